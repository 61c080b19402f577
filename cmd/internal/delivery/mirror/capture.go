package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/forward/filter"
	"github.com/zeekdemo/zeekdemo/forward/tcpdump"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// capture is what the forwarder forwards.
type capture interface {
	// Sources are where frames come from, one for each worker. After Stop they
	// yield what was captured before, and then io.EOF.
	Sources() []forward.Source
	// Exclude replaces the tunnels whose packets are not captured.
	Exclude(tunnels []afpacket.Tunnel) error
	// Counts are by interface, at any time.
	Counts() ([]afpacket.Counts, error)
	Stop() error
	// Interrupt makes the sources fail with context.Canceled while it is on.
	Interrupt(on bool)
	Close() error
}

var (
	_ capture = ringCapture{}
	_ capture = (*tcpdump.Capture)(nil)
)

// ringCapture is a capture by packet rings.
type ringCapture struct{ *afpacket.Capture }

// Sources implements capture.
func (c ringCapture) Sources() (list []forward.Source) {
	for _, w := range c.Workers() {
		list = append(list, w)
	}
	return list
}

// The rings are memory of the kernel's that cannot be swapped out: all of them
// together take no more than the first, unless that leaves less than the second for
// an interface.
const ringMemory, leastRing = 256 << 20, 8 << 20

// openCapture begins to capture, by packet rings where there are any.
func (m *mirror) openCapture(ctx context.Context) (capture, error) {
	if m.target.Kind == way.Sidecar && m.Workers > 1 {
		m.warn(errors.New("a sidecar takes its frames one after the other: --workers is of no use"))
		m.Workers = 1
	}
	o := afpacket.Options{Exclude: m.tunnels(), Streams: m.streams(ctx), Workers: m.Workers,
		Buffer: min(afpacket.DefaultBuffer, max(ringMemory/len(m.interfaces), leastRing))}
	mtu := 0
	for _, name := range m.interfaces {
		i, err := m.findInterface(ctx, name)
		if errors.Is(err, errors.ErrUnsupported) {
			return m.openTcpdump(o)
		}
		if err != nil {
			return nil, err
		}
		mtu = max(mtu, i.MTU)
		o.Interfaces = append(o.Interfaces, i)
	}
	c, err := afpacket.Open(o)
	if errors.Is(err, os.ErrPermission) {
		return nil, orchestrate.WithHint(err, "run it as root, or grant the program what it needs: sudo setcap cap_net_raw=ep "+programPath())
	}
	if err != nil {
		return nil, err
	}
	if !c.Merging() { // then merged packets are told by their size
		m.Config.ResegmentAll, m.Config.MTU = true, mtu
	}
	go func() {
		for news := range c.News() {
			m.say(news.Interface + " " + news.Text)
		}
	}()
	return ringCapture{c}, nil
}

// findInterface finds one and compiles the filter for it.
func (m *mirror) findInterface(ctx context.Context, name string) (i afpacket.Interface, err error) {
	if i, err = afpacket.Find(name); err != nil {
		return i, err
	}
	if i.Filter, err = m.compile(ctx, i); err != nil {
		return i, err
	}
	if !i.Up {
		m.say(fmt.Sprintf("%s is down; it is mirrored once it is up", name))
	}
	return i, nil
}

// compile compiles the filter for an interface; nil takes everything.
func (m *mirror) compile(ctx context.Context, i afpacket.Interface) ([]bpf.RawInstruction, error) {
	if m.Filter == "" {
		return nil, nil
	}
	p, err := filter.CompileLive(ctx, m.Filter, i.Name, i.LinkType)
	if err != nil {
		return nil, err
	}
	return p.Raw(), nil
}

// openTcpdump captures with the system's tcpdump.
func (m *mirror) openTcpdump(o afpacket.Options) (capture, error) {
	c, err := tcpdump.Open(m.interfaces, tcpdump.Filter(m.Filter, o.Exclude, o.Streams))
	if err != nil {
		return nil, err
	}
	for _, name := range m.interfaces {
		m.say("Capturing on " + name + " with tcpdump")
	}
	return c, nil
}

func programPath() string {
	path, err := orchestrate.RunningProgram()
	if err != nil {
		return "zeekdemo"
	}
	return path
}

// streams are the engine's addresses, where it is elsewhere: the frames go there if
// they go by sidecar.
func (m *mirror) streams(ctx context.Context) (list []netip.AddrPort) {
	if m.target.Kind != way.Sidecar || m.engine == nil {
		return nil
	}
	info, err := m.engine.Info(ctx)
	if err != nil || !info.Remote {
		return nil
	}
	at, err := url.Parse(info.Address)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(cmp.Or(at.Port(), map[string]string{"ssh": "22", "https": "443"}[at.Scheme], "2375"), 10, 16)
	if err != nil {
		return nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", at.Hostname())
	if err != nil { // an alias of ssh's configuration
		m.warn(fmt.Errorf("the engine's address is not known (%w): leave its connection out with --filter, if it passes %s", err, strings.Join(m.interfaces, ", ")))
	}
	for _, addr := range addrs {
		list = append(list, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
	}
	return list
}
