package way

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Target is where a run goes.
type Target struct {
	Choice
	Address netip.AddrPort
	Grafana orchestrate.Grafana // the stack's
	Sensor  orchestrate.Sensor
}

// Host is a receiver that --to names.
type Host struct {
	name string
	port uint16
}

// ParseTo reads HOST or HOST:PORT; an IPv6 address with a port is in brackets.
func ParseTo(text string, defaultPort uint16) (Host, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return Host{addr.String(), defaultPort}, nil
	}
	name, port := text, strconv.Itoa(int(defaultPort))
	if h, p, err := net.SplitHostPort(text); err == nil {
		name, port = h, p
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 || name == "" {
		return Host{}, fmt.Errorf("--to %q: want HOST or HOST:PORT", text)
	}
	return Host{name, uint16(number)}, nil
}

// lookUpLimit is how long the look-up of a name may take.
const lookUpLimit = 10 * time.Second

// Resolve finds the receiver's address.
func (h Host) Resolve(ctx context.Context) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(h.name); err == nil {
		return netip.AddrPortFrom(addr, h.port), nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpLimit)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", h.name)
	if err != nil || len(addrs) == 0 {
		return netip.AddrPort{}, fmt.Errorf("look up %s: %w", h.name, err)
	}
	return netip.AddrPortFrom(preferIPv4(addrs), h.port), nil
}

// Target is the receiver as a target.
func (h Host) Target(ctx context.Context) (Target, error) {
	address, err := h.Resolve(ctx)
	return Target{Choice: Choice{Kind: To}, Address: address}, err
}

// preferIPv4 takes the first IPv4 address, since sensors listen on 0.0.0.0.
func preferIPv4(addrs []netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.Unmap().Is4() {
			return a.Unmap()
		}
	}
	return addrs[0]
}

// Find is the target that a sensor of the stack is on this way.
func (o Opened) Find(ctx context.Context, e orchestrate.Engine, s orchestrate.Sensor) (Target, error) {
	s.Nodes = orchestrate.FindNodes(ctx, e, s.Container)
	t := Target{Choice: o.Choice, Address: o.Address(s), Grafana: orchestrate.FindGrafana(ctx, e), Sensor: s}
	if !t.Address.IsValid() {
		return t, orchestrate.WithHint(fmt.Errorf("find sensor %s: its port is not published", s.Service.Name),
			"--direct sends to the container's own address, or by sidecar")
	}
	return t, nil
}

// CheckMode refuses, before anything is sent, what a sensor of the stack would
// misread: what its datagrams hold is fixed, and their headers do not count. A
// mistake is a [UsageError].
func CheckMode(c encap.Config, s orchestrate.Sensor) error {
	sent := modeOf(c)
	if sent == s.Mode {
		return nil
	}
	advice := []string{fmt.Sprintf("`zeekdemo up --geneve-mode %s` makes it take that", sent)}
	if a := alternative(sent, s.Mode); a != "" {
		advice = append(advice, a)
	}
	return orchestrate.WithHint(Usagef("send %s to sensor %s: it takes %s", sent.Phrase(), s.Service.Name, s.Mode.Phrase()),
		strings.Join(append(advice, "--to HOST sends to any monitor what a cloud sends"), "; "))
}

// modeOf is the mode of a sensor that takes what c makes.
func modeOf(c encap.Config) orchestrate.GeneveMode {
	switch {
	case c.InVXLAN:
		return orchestrate.GeneveGWLB
	case c.RawIP:
		return orchestrate.GeneveIP
	}
	return orchestrate.GeneveEthernet
}

// alternative is how to send what a sensor takes in place of what was to be sent;
// empty where there is no way.
func alternative(sent, taken orchestrate.GeneveMode) string {
	switch {
	case taken == orchestrate.GeneveEthernet && sent == orchestrate.GeneveIP:
		return "--raw-ip=false carries Ethernet in the same tunnel"
	case taken == orchestrate.GeneveEthernet:
		return "without --as Ethernet is carried"
	case taken == orchestrate.GeneveIP && sent == orchestrate.GeneveEthernet:
		return "--raw-ip, --as aws-gwlb and --as gcp-nsi carry bare IP packets"
	case taken == orchestrate.GeneveIP:
		return "--as aws-gwlb and --as gcp-nsi carry bare IP packets"
	case taken == orchestrate.GeneveGWLB:
		return "--as aws-mirror-gwlb carries Ethernet in VXLAN"
	}
	return ""
}

// CheckPort says whether a port that was asked for (0: none) is one of the
// sensor's; a mistake is a [UsageError].
func CheckPort(port uint16, s orchestrate.Sensor) error {
	if listens := s.Service.Port; port != 0 && port != listens && port != s.Published.Port() {
		return Usagef("--port %d: the stack's sensor listens on %d (use --to for another receiver)", port, listens)
	}
	return nil
}
