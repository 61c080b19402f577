package afpacket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// Hardware types (linux/if_arp.h).
const (
	hardwareEther    = 1
	hardwareLoopback = 772
	hardware80211    = 801
	hardwareRadiotap = 803
	hardwarePPP      = 512
	hardwareRawIP    = 519
	hardwareTunnel   = 768
	hardwareTunnel6  = 769
	hardwareSIT      = 776
	hardwareIPGRE    = 778
	hardwareIP6GRE   = 823
	hardwareNone     = 0xfffe // tun, wireguard
)

func linkTypeOf(hardware uint16) (forward.LinkType, bool) {
	switch hardware {
	case hardwareEther, hardwareLoopback:
		return forward.LinkEthernet, true
	case hardware80211:
		return forward.LinkIEEE80211, true
	case hardwareRadiotap:
		return forward.LinkRadiotap, true
	case hardwarePPP, hardwareRawIP, hardwareTunnel, hardwareTunnel6, hardwareSIT, hardwareIPGRE, hardwareIP6GRE, hardwareNone:
		return forward.LinkRaw, true
	}
	return 0, false
}

func find(name string) (Interface, error) {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return Interface{}, fmt.Errorf("find interface %s: %w", name, cause(err))
	}
	hardware, err := sys.HardwareType(name)
	if err != nil {
		return Interface{}, err
	}
	lt, ok := linkTypeOf(hardware)
	if !ok {
		return Interface{}, &unknownLinkError{name, int(hardware)}
	}
	return Interface{Name: name, Index: device.Index, LinkType: lt, Loopback: device.Flags&net.FlagLoopback != 0,
		MTU: device.MTU, Up: device.Flags&net.FlagUp != 0}, nil
}

// cause drops what net puts before it.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// knowsVirtio reports whether the kernel describes every merged packet in a
// virtio-net header. Before Linux 6.2 it could not do so for UDP's, and dropped
// them when a ring asked for that header (virtio_net_hdr_from_skb in
// linux/virtio_net.h).
func knowsVirtio(release string) bool {
	numbers := strings.SplitN(release, ".", 3)
	if len(numbers) < 2 {
		return false
	}
	major, err := strconv.Atoi(numbers[0])
	minor, err2 := strconv.Atoi(strings.TrimRight(numbers[1], "-+abcdefghijklmnopqrstuvwxyz"))
	return err == nil && err2 == nil && (major > 6 || major == 6 && minor >= 2)
}

// watched is the state of one interface, shared by its rings.
type watched struct {
	Interface
	mu   sync.Mutex
	down bool
	gone bool
}

// isDown reports whether it was down when it was looked at last, and may be gone
// since.
func (w *watched) isDown() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down && !w.gone
}

// Capture is an open capture. Its methods may be called from any goroutine,
// Close when no Worker is in use any more.
type Capture struct {
	workers []*Worker
	faces   []*watched
	virtio  bool
	news    chan News
	streams []netip.AddrPort

	mu          sync.Mutex // guards what follows, and the rings' filters
	tunnels     []Tunnel
	stopped     atomic.Bool
	interrupted atomic.Bool
	closed      bool
}

func open(o Options) (*Capture, error) {
	if o.Workers <= 0 {
		o.Workers = 1
	}
	if o.Buffer <= 0 {
		o.Buffer = DefaultBuffer
	}
	c := &Capture{virtio: knowsVirtio(sys.KernelRelease()), news: make(chan News, 64), tunnels: slices.Clone(o.Exclude), streams: slices.Clone(o.Streams)}
	for _, i := range o.Interfaces {
		c.faces = append(c.faces, &watched{Interface: i, down: !i.Up})
	}
	err := c.openWorkers(o)
	if err == nil {
		err = c.refilter()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Capture) openWorkers(o Options) error {
	groups := make([]int, len(c.faces))
	for i := range groups {
		groups[i] = sys.NewGroup
	}
	for range o.Workers {
		w := &Worker{capture: c}
		c.workers = append(c.workers, w)
		for i, face := range c.faces {
			r, err := c.openRing(face, o, &groups[i])
			if r != nil {
				w.rings = append(w.rings, r)
			}
			if err != nil {
				return permission(fmt.Errorf("capture on %s: %w", face.Name, err))
			}
		}
		if err := w.prepare(); err != nil {
			return err
		}
	}
	return nil
}

// permission says which privilege is missing.
func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w (it needs CAP_NET_RAW)", err)
	}
	return err
}

// openRing opens one ring, which takes nothing yet.
func (c *Capture) openRing(face *watched, o Options, group *int) (*ring, error) {
	cooked := face.LinkType == forward.LinkRaw
	r := &ring{capture: c, face: face, virtio: c.virtio && !cooked}
	var err error
	r.Ring, err = sys.OpenRing(sys.RingOptions{
		Cooked: cooked, BlockSize: blockSize, Blocks: max(o.Buffer/o.Workers/blockSize, 8),
		Retire: retire, Reserve: tagLen, Virtio: r.virtio,
	})
	if err != nil {
		return nil, err
	}
	if err := r.Filter(nothing()); err != nil {
		return r, err
	}
	if face.Loopback {
		_ = r.IgnoreOutgoing() // on an older kernel they are left out one by one
	} else if face.LinkType == forward.LinkEthernet {
		_ = r.Promiscuous(face.Index) // some devices cannot: then it is what they receive
	}
	if err := r.Bind(face.Index); err != nil {
		return r, err
	}
	if o.Workers > 1 {
		*group, err = r.Fanout(*group)
	}
	return r, err
}

// refilter attaches the filter that is in force to all rings. A kernel that
// replaces a filter does so between two frames.
func (c *Capture) refilter() error {
	for _, w := range c.workers {
		for _, r := range w.rings {
			p := nothing()
			if !c.stopped.Load() {
				p = program(r.face.LinkType, c.tunnels, c.streams, r.face.Filter)
			}
			if err := r.Filter(p); err != nil {
				return fmt.Errorf("capture on %s: %w", r.face.Name, err)
			}
		}
	}
	return nil
}

// Exclude replaces the tunnels whose packets are not captured.
func (c *Capture) Exclude(tunnels []Tunnel) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tunnels = slices.Clone(tunnels)
	return c.refilter()
}

// Workers are the sources of frames, one for each goroutine that forwards.
func (c *Capture) Workers() []*Worker { return c.workers }

// Merging reports whether merged packets come out as what they stand for. Where
// it is false, the kernel does not tell where to cut, and they come as they are.
func (c *Capture) Merging() bool { return c.virtio }

// News tells what happens to interfaces, until Close. It need not be read.
func (c *Capture) News() <-chan News { return c.news }

// Stop ends the capture: nothing that comes after it is taken. What was captured
// before comes out of the Workers, then io.EOF.
func (c *Capture) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped.Store(true)
	err := c.refilter()
	c.wake()
	return err
}

// Interrupt makes the Workers fail with context.Canceled, instead of waiting and
// whatever is left, for as long as it is on.
func (c *Capture) Interrupt(on bool) {
	c.interrupted.Store(on)
	c.wake()
}

func (c *Capture) wake() {
	for _, w := range c.workers {
		w.waiter.Wake()
	}
}

// Counts returns what has been seen so far, by interface. What a Worker has in
// its hands may be missing until it asks for the next block.
func (c *Capture) Counts() ([]Counts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Counts
	for i, face := range c.faces {
		sum := Counts{Interface: face.Name}
		for _, w := range c.workers {
			if i >= len(w.rings) {
				continue
			}
			if err := w.rings[i].statistics(); err != nil {
				return nil, fmt.Errorf("capture on %s: %w", face.Name, err)
			}
			w.rings[i].seen.addTo(&sum)
		}
		list = append(list, sum)
	}
	return list, nil
}

// Close releases everything. Frames that were lent are invalid afterwards.
func (c *Capture) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, w := range c.workers {
		for _, r := range w.rings {
			errs = append(errs, r.Close())
		}
		if w.waiter != nil {
			errs = append(errs, w.waiter.Close())
		}
	}
	c.workers = nil
	if !c.closed {
		c.closed = true
		close(c.news)
	}
	return errors.Join(errs...)
}

// tell gives news, unless nobody takes them.
func (c *Capture) tell(name, text string) {
	select {
	case c.news <- News{name, text}:
	default:
	}
}

// failed looks what became of an interface whose socket reported an error, and
// returns whether it has gone.
func (c *Capture) failed(r *ring) (gone bool) {
	face := r.face
	up, err := r.DeviceUp(face.Index)
	face.mu.Lock()
	defer face.mu.Unlock()
	switch {
	case err != nil:
		if !face.gone {
			face.gone = true
			c.tell(face.Name, "has gone")
		}
	case !up && !face.down:
		face.down = true
		c.tell(face.Name, "is down")
	}
	return face.gone
}

// lives notes that frames come.
func (c *Capture) lives(face *watched) {
	face.mu.Lock()
	defer face.mu.Unlock()
	if face.down {
		face.down = false
		c.tell(face.Name, "is up again")
	}
}

// Worker yields frames of one ring of each interface. It belongs to one
// goroutine, and Source, Readier and so on are what that one calls.
type Worker struct {
	capture  *Capture
	rings    []*ring
	heads    []frameInfo // what each ring has in hand, or had last
	order    order
	waiter   *sys.Waiter
	now      int // the ring that was taken from last
	splitter encap.Splitter
	splits   bool  // the splitter yields segments of what that one had in hand
	alive    int   // rings whose interface is there
	deadline int64 // when a stopped capture counts as drained in any case; 0 before
}

// drainLimit is how long a stopped capture waits for frames that the kernel has
// counted and not handed over.
const drainLimit = time.Second

// waitLimit bounds a wait for frames; what ends it wakes it, so it is long.
const waitLimit = 10 * time.Second

// downLook is how often an interface that is down is looked at. The kernel reports
// that it went down, and nothing more when it goes away after that
// (packet_notifier in net/packet/af_packet.c).
const downLook = 200 * time.Millisecond

func (w *Worker) prepare() (err error) {
	rings := make([]*sys.Ring, len(w.rings))
	for i, r := range w.rings {
		rings[i] = r.Ring
	}
	w.alive = len(rings)
	w.heads = make([]frameInfo, len(rings))
	w.order = order{bound: int64(mergeBound), clock: func() int64 { return time.Now().UnixNano() }, lanes: make([]lane, len(rings))}
	w.waiter, err = sys.NewWaiter(rings)
	return err
}

// LinkTypes are those of the interfaces.
func (w *Worker) LinkTypes() []forward.LinkType {
	var list []forward.LinkType
	for _, r := range w.rings {
		list = append(list, r.face.LinkType)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Next implements [forward.Source]. It waits for a frame, until Stop or Interrupt, or
// until every interface has gone: then the error unwraps to [ErrGone].
func (w *Worker) Next(f *forward.Frame) error {
	if w.capture.interrupted.Load() {
		return context.Canceled
	}
	for {
		if w.splits {
			if segment, ok := w.splitter.Next(); ok {
				w.heads[w.now].fill(f, segment)
				w.rings[w.now].count(len(segment))
				return nil
			}
			w.splits = false
		}
		switch chosen, hold := w.choose(); {
		case chosen >= 0 && w.take(chosen, f):
			return nil
		case chosen < 0:
			if err := w.wait(hold); err != nil {
				return err
			}
		}
	}
}

// take takes the frame that a ring has in hand. It returns false if that begins to be
// cut instead.
func (w *Worker) take(ring int, f *forward.Frame) bool {
	w.now = ring
	r, info := w.rings[ring], &w.heads[ring]
	if w.order.pass(ring) {
		r.tally.late++
	}
	if info.merged && w.split(info) {
		return false
	}
	info.finish(r)
	info.fill(f, info.data)
	r.count(len(info.data))
	return true
}

// split begins to cut a merged packet. Where it returns false, it is to be taken as
// it is.
func (w *Worker) split(info *frameInfo) bool {
	tally := &w.rings[w.now].tally
	switch w.splitter.Split(info.data, info.merge, false) {
	case encap.IsSplit:
		tally.merged++
		w.splits = true
		return true
	case encap.LeftWhole:
		tally.whole++
	}
	return false
}

// choose chooses the ring whose frame is next: see order. What was lent is invalid
// afterwards.
func (w *Worker) choose() (ring int, hold time.Duration) {
	w.look()
	if len(w.rings) == 1 {
		if w.order.lanes[0].has {
			return 0, 0
		}
		return -1, 0
	}
	if ring, hold = w.order.choose(); hold > 0 && w.findEmpty() {
		ring, hold = w.order.choose()
	}
	return ring, hold
}

// look takes a frame in hand from each ring that has one.
func (w *Worker) look() {
	for i, r := range w.rings {
		if l := &w.order.lanes[i]; !l.has {
			if r.next(&w.heads[i]) {
				w.order.show(i, w.heads[i].time)
			}
			l.over = r.gone
		}
	}
}

// unstamped is the time by which a frame's time stamp may be older than the count of
// its arrival: the kernel does the one just before the other, unless it is interrupted.
const unstamped = 100 * time.Microsecond

// findEmpty asks the kernel which of the rings that show no frame have none, and
// reports whether there are any: all that comes into them will be newer.
func (w *Worker) findEmpty() (found bool) {
	w.capture.mu.Lock()
	defer w.capture.mu.Unlock()
	for i, r := range w.rings {
		if w.order.lanes[i].has {
			continue
		}
		at := time.Now().UnixNano()
		if r.statistics() == nil && r.seen.queued.Load() == r.read {
			w.order.empty(i, at-int64(unstamped))
			found = true
		}
	}
	return found
}

// wait waits for a block; if a frame is held back, for one of another ring, and no
// longer than that.
func (w *Worker) wait(hold time.Duration) error {
	for _, r := range w.rings {
		r.publish()
	}
	stopped := w.capture.stopped.Load()
	limit := waitLimit
	switch {
	case w.capture.interrupted.Load():
		return context.Canceled
	case hold > 0:
		limit = min(hold, holdLook)
	case !stopped && w.alive > 0:
	case !w.drained():
		limit = retire
	case stopped:
		return io.EOF
	default:
		return fmt.Errorf("capture on %s: %w", w.names(), ErrGone)
	}
	for i, r := range w.rings {
		w.waiter.Skip(i, w.order.lanes[i].has) // it would end the wait at once
		if r.face.isDown() {
			limit = min(limit, downLook)
		}
	}
	err := w.waiter.Wait(max(limit, time.Millisecond), w.failed)
	for i, r := range w.rings {
		if r.face.isDown() {
			w.failed(i)
		}
	}
	return err
}

// holdLook is the pause between two looks while a frame is held back.
const holdLook = 2 * time.Millisecond

func (w *Worker) names() string {
	var names []string
	for _, r := range w.rings {
		names = append(names, r.face.Name)
	}
	return strings.Join(names, ", ")
}

// failed deals with a ring whose socket has an error.
func (w *Worker) failed(i int) {
	r := w.rings[i]
	_ = r.Failure() // which is that the device went down, or away
	if w.capture.failed(r) && !r.gone {
		r.gone = true
		w.alive--
		w.waiter.Forget(i)
	}
}

// drained reports whether everything has come out that the kernel put into the
// rings of a stopped capture.
func (w *Worker) drained() bool {
	now := sys.Monotonic()
	if w.deadline == 0 {
		w.deadline = now + int64(drainLimit)
	}
	w.capture.mu.Lock()
	defer w.capture.mu.Unlock()
	for _, r := range w.rings {
		if r.statistics() != nil || r.seen.queued.Load() != r.read {
			return now > w.deadline
		}
	}
	return true
}

// Ready implements [forward.Readier]. What was lent is invalid afterwards.
func (w *Worker) Ready() bool {
	if w.splits || w.capture.interrupted.Load() {
		return true
	}
	chosen, _ := w.choose()
	return chosen >= 0
}

// Close does nothing: rings are the [Capture]'s.
func (w *Worker) Close() error { return nil }
