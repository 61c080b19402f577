package transmit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// How often a follower looks.
const (
	followAlways = time.Second           // whatever happens: a path's MTU changes without a notice
	followNotice = 10 * time.Millisecond // after a notice: some machines give many
	followLost   = 5 * time.Millisecond  // while the way is lost
	// askAgain is how long an answer of the neighbour is good for. The packet
	// transmission sends past the kernel, which therefore does not notice by
	// itself that a neighbour is gone.
	askAgain = 5 * time.Second
	askLost  = 250 * time.Millisecond // while it does not answer
	// probeAgain is how often a path through routers is measured.
	probeAgain = 30 * time.Second
)

// follower keeps up with the way to a destination: route, device, neighbour,
// path MTU. It belongs to one goroutine, and looks with that one's thread, whose
// network namespace must be the one in which it was made.
type follower struct {
	question
	events *sys.RouteEvents // nil where notices cannot be had
	prober *sys.Prober      // nil where there is no router, or no privilege
	exit   exit             // as last found

	lastLook, nextLook int64 // nanoseconds, monotonic
	asked              int64 // when the neighbour was
	probed             int64
	there              bool         // the destination has answered a request of the prober's
	doubt              bool         // the neighbour has to say that it is there before anything goes to it
	known              bool         // the neighbour was, at some time
	lost               error        // why there is no way now; nil if there is
	silent             bool         // the neighbour stopped answering while it was sent to
	own                map[int]bool // devices of the way
}

// newFollower begins to follow from the exit that was found.
func newFollower(e exit) *follower {
	f := &follower{question: e.question, own: make(map[int]bool, 2)}
	f.events, _ = sys.OpenRouteEvents() // without, it looks now and then
	f.take(e)
	now := sys.Monotonic()
	f.lastLook, f.nextLook, f.probed, f.asked = now, now+int64(followAlways), now, now
	return f
}

// Close ends following.
func (f *follower) Close() error {
	var errs []error
	if f.events != nil {
		errs = append(errs, f.events.Close())
	}
	if f.prober != nil {
		errs = append(errs, f.prober.Close())
	}
	return errors.Join(errs...)
}

func (f *follower) take(e exit) {
	f.exit = e
	clear(f.own)
	f.own[e.link.Attrs().Index] = true
}

// alsoOn says that frames are put on another device than the route's.
func (f *follower) alsoOn(device int) { f.own[device] = true }

// notice takes the notices that have come and reports whether it is time to look.
func (f *follower) notice(now int64) bool {
	if f.events != nil && f.events.Read(func(device int) bool { return f.own[device] }) {
		f.nextLook = min(f.nextLook, f.lastLook+int64(followNotice))
	}
	return now >= f.nextLook
}

// look finds the way as it is now: exit, and the neighbour's address where there
// is one. Whatever is missing is an error that wraps errLost, and will be looked
// for again soon.
func (f *follower) look(now int64) (exit, net.HardwareAddr, error) {
	f.lastLook, f.nextLook = now, now+int64(followAlways)
	e, mac, err := f.find(now)
	if err != nil {
		f.nextLook = now + int64(followLost)
		err = fmt.Errorf("%w: %w", errLost, err)
	}
	f.lost = err
	if err == nil {
		f.take(e)
		f.probe(now)
	}
	return e, mac, err
}

func (f *follower) find(now int64) (exit, net.HardwareAddr, error) {
	e, err := findExit(f.question)
	switch {
	case err != nil:
		return e, nil, f.because(err)
	case e.link.Attrs().RawFlags&linkRunning == 0:
		return e, nil, fmt.Errorf("device %s is down", e.link.Attrs().Name)
	case !e.hasNeighbour():
		return e, nil, nil
	}
	mac, err := f.ask(e.neighbour(), now)
	return e, mac, err
}

// because says why there is no route any more, if the device it went by is the
// cause.
func (f *follower) because(err error) error {
	name := f.exit.link.Attrs().Name
	link, linkErr := netlink.LinkByIndex(f.exit.link.Attrs().Index)
	switch {
	case linkErr != nil:
		return fmt.Errorf("device %s is gone: %w", name, errGone)
	case link.Attrs().RawFlags&linkRunning == 0:
		return fmt.Errorf("device %s is down: %w", name, err)
	}
	return err
}

// ask returns the neighbour's address as the kernel knows it, and makes it ask
// again when that is old or missing.
func (f *follower) ask(n neighbour, now int64) (net.HardwareAddr, error) {
	entry := n.lookup()
	usable := neighbourKnown
	if f.doubt {
		usable = neighbourSure
	}
	if entry.State&usable != 0 {
		f.known, f.doubt = true, false
		if entry.State&neighbourSure == 0 && now-f.asked >= int64(askAgain) {
			f.asked = now
			_ = n.confirm(entry) // without the privilege the kernel will, if it sends
		}
		return entry.HardwareAddr, nil
	}
	if entry.State&netlink.NUD_FAILED != 0 && f.lost == nil && f.known {
		f.silent = true
	}
	if now-f.asked >= int64(askLost) {
		f.asked = now
		_ = n.provoke(context.Background(), entry) // asked again soon
	}
	return nil, fmt.Errorf("neighbour %v on %s does not answer", n.addr, n.link.Attrs().Name)
}

// doubtNeighbour makes the neighbour say that it is there before it counts as
// known again, as far as it can be asked.
func (f *follower) doubtNeighbour(now int64) {
	if f.doubt || !f.exit.hasNeighbour() {
		return
	}
	n := f.exit.neighbour()
	f.doubt, f.asked = n.confirm(n.lookup()) == nil, now
}

// probe measures a path through routers anew, now and then. What comes of it, the
// kernel keeps, and a later look sees.
func (f *follower) probe(now int64) {
	if f.prober == nil || now-f.probed < int64(probeAgain) {
		return
	}
	f.probed = now
	f.heardOf()                      // by the one before
	_ = f.prober.Probe(f.exit.mtu()) // that it is too long is known then
}

// answer reads what came for the prober.
func (f *follower) answer() sys.Answer {
	a := f.prober.Answer()
	f.there = f.there || a == sys.AnsweredEcho
	return a
}

// heardOf reads all that came for the prober, and reports whether the destination
// itself has ever answered.
func (f *follower) heardOf() bool {
	for f.prober != nil && f.answer() != sys.AnsweredNot {
	}
	return f.there
}

// probeWait bounds the measuring of a path before the first datagram: routers
// answer within a round trip, if they do.
const probeWait = 200 * time.Millisecond

// measure finds the MTU of a path through routers before a datagram meets it, by
// echo requests that may not be fragmented: a router that they are too long for
// says so, and the kernel keeps that for every socket. A destination without
// routers before it needs none and gets none.
func (f *follower) measure(ctx context.Context) {
	if !f.exit.gateway() {
		return
	}
	prober, err := sys.OpenProber(f.dst)
	if err != nil {
		return // without the privilege routers fragment, over IPv4, or complain
	}
	f.prober = prober
	var answers sys.Poller
	answers.AddData(prober.FD())
	deadline := sys.Monotonic() + int64(probeWait)
	for range maxNarrower {
		if err := prober.Probe(f.exit.mtu()); err == nil && !f.awaitAnswer(ctx, &answers, deadline) {
			return
		}
		e, err := findExit(f.question)
		if err != nil || e.mtu() == f.exit.mtu() {
			return
		}
		f.take(e)
	}
}

// maxNarrower is how many links, each narrower than the one before, a path is
// expected to have.
const maxNarrower = 8

// awaitAnswer reports whether a router said that the request was too long.
func (f *follower) awaitAnswer(ctx context.Context, answers *sys.Poller, deadline int64) bool {
	for ctx.Err() == nil {
		switch f.answer() {
		case sys.AnsweredTooBig:
			return true
		case sys.AnsweredEcho, sys.AnsweredOther:
			return false
		}
		left := time.Duration(deadline - sys.Monotonic())
		if left <= 0 || !answers.Wait(left) {
			return false
		}
	}
	return false
}

// settleNeighbour makes the neighbour say that it is there, and waits for that at
// most so long. It is false if the neighbour does not say so; where nobody can be
// made to say something it is true.
func (f *follower) settleNeighbour(ctx context.Context, most time.Duration) bool {
	e, err := findExit(f.question)
	if err != nil || !e.hasNeighbour() {
		return true
	}
	n := e.neighbour()
	entry := n.lookup()
	switch {
	case entry.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0:
		return true
	case entry.State&neighbourKnown != 0:
		if n.confirm(entry) != nil {
			return true
		}
	case entry.State == 0:
		return true // forgotten, and nothing says that it is silent
	}
	entry, err = n.await(ctx, most)
	return err != nil || entry.State&neighbourSure != 0
}
