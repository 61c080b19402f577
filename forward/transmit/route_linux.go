package transmit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
)

// What leads to a destination, from the first to the last that is known of it:
//
//   - The exit is what the kernel's routing says: a route and its device.
//   - The neighbour is whom frames on that device are addressed to: the
//     destination itself, or a router before it.
//   - The way is what the packet transmission needs to put frames on it: the
//     device, which may be a port of the exit's bridge, and addresses.
//
// All of them change while something is sent; a follower (follow_linux.go) sees
// to that.

// way is how frames get to a destination: from which device, with which
// addresses.
type way struct {
	device   string // frames are put on this one
	index    int
	exit     int    // index of the route's device: index, or that of the bridge
	bridge   string // of which it is a port, if the bridge is skipped
	mtu      int    // of the narrowest of device, bridge and route
	src      netip.Addr
	srcMAC   [6]byte
	dstMAC   [6]byte
	segments bool // the device takes UDP super-packets as they are
}

// Numbers of linux/rtnetlink.h and linux/if.h.
const (
	routeUnicast = 1      // RTN_UNICAST
	routeLocal   = 2      // RTN_LOCAL
	linkRunning  = 1 << 6 // IFF_RUNNING: it is up and has a carrier
	linkNoARP    = 1 << 7 // IFF_NOARP: nobody has to be asked for an address
)

// question is what the kernel's routing is asked.
type question struct {
	dst    netip.Addr
	src    netip.Addr // invalid for any
	device string     // "" for any
}

func (o Options) question() question {
	return question{o.Destination.Addr(), o.Outer.Source, o.Outer.Device}
}

// exit is where the kernel would send packets for dst.
type exit struct {
	question
	route netlink.Route
	link  netlink.Link
}

// findExit looks up the route. It needs no privilege.
func findExit(q question) (exit, error) {
	route, err := findRoute(q)
	if err != nil {
		return exit{}, err
	}
	link, err := netlink.LinkByIndex(route.LinkIndex)
	if err != nil {
		return exit{}, fmt.Errorf("look up device %d: %w", route.LinkIndex, err)
	}
	return exit{question: q, route: route, link: link}, nil
}

// local reports whether the destination is this machine itself.
func (e exit) local() bool { return e.route.Type == routeLocal }

// gateway reports whether the destination is behind a router.
func (e exit) gateway() bool { return e.route.Gw != nil || e.route.Via != nil }

// mtu is that of the path, as far as the kernel knows it: its device's, and the
// route's, which includes what routers said (RTAX_MTU). In bytes.
func (e exit) mtu() int {
	mtu := e.link.Attrs().MTU
	if e.route.MTU > 0 {
		mtu = min(mtu, e.route.MTU)
	}
	return mtu
}

// frames returns why frames cannot be put on the way, or nil.
func (e exit) frames() error {
	switch {
	case e.local():
		return fmt.Errorf("%v is an address of this machine", e.dst)
	case e.route.Via != nil:
		return fmt.Errorf("the route to %v leads by a neighbour of another address family", e.dst)
	}
	return ethernetLike(e.link)
}

// hasNeighbour reports whether somebody has to be asked for an Ethernet address.
func (e exit) hasNeighbour() bool { return e.frames() == nil && e.link.Attrs().RawFlags&linkNoARP == 0 }

// neighbour is whom the kernel addresses frames for e.dst to.
func (e exit) neighbour() neighbour {
	hop := e.route.Gw
	if hop == nil {
		hop = e.dst.AsSlice()
	}
	return neighbour{link: e.link, addr: hop, dst: e.dst}
}

// awaitNeighbour has the kernel find out whom to address frames to, as far as
// that applies: while it does not know, its queue for such packets is short, and
// what overflows is lost without a word.
func (e exit) awaitNeighbour(ctx context.Context) error {
	if !e.hasNeighbour() {
		return nil
	}
	_, err := e.neighbour().resolve(ctx)
	return err
}

// The narrowest paths that the packet transmission uses, in bytes. IPv4's is
// where the fragments of the longest datagram fill one plan (packetMessages),
// IPv6's is what RFC 8200 section 5 requires of every link.
const (
	minPacketMTU4 = 280
	minPacketMTU6 = 1280
)

// narrowError says that a path is too narrow for the packet transmission.
type narrowError struct {
	dst        netip.Addr
	mtu, least int
}

func (e *narrowError) Error() string {
	return fmt.Sprintf("the path to %v has an MTU of %d bytes, at least %d are needed", e.dst, e.mtu, e.least)
}

// wideEnough returns an error for a path of too small an MTU.
func wideEnough(dst netip.Addr, mtu int) error {
	least := minPacketMTU4
	if dst.Is6() {
		least = minPacketMTU6
	}
	if mtu < least {
		return &narrowError{dst: dst, mtu: mtu, least: least}
	}
	return nil
}

// newWay puts together what was found.
func newWay(e exit, mac net.HardwareAddr) (way, error) {
	attrs := e.link.Attrs()
	w := way{device: attrs.Name, index: attrs.Index, exit: attrs.Index, mtu: e.mtu()}
	w.src, _ = netip.AddrFromSlice(e.route.Src)
	w.src = w.src.Unmap()
	if e.src.IsValid() {
		w.src = e.src
	}
	copy(w.srcMAC[:], attrs.HardwareAddr)
	copy(w.dstMAC[:], mac)
	if port := portBehind(e.link, mac); port != nil {
		w.bridge, w.device, w.index = attrs.Name, port.Attrs().Name, port.Attrs().Index
		w.mtu = min(w.mtu, port.Attrs().MTU)
	}
	if !w.src.IsValid() {
		return w, fmt.Errorf("no source address on device %s", attrs.Name)
	}
	if err := wideEnough(e.dst, w.mtu); err != nil {
		return w, err
	}
	w.segments = segmentsUDP(w.device)
	return w, nil
}

// explainRoute says what the kernel means by the errno with which it refuses a
// route (net/ipv4/fib_semantics.c, fib_props). Such an errno is not wrapped: it
// must pass neither for a missing privilege nor for a packet that is unfit.
func explainRoute(dst netip.Addr, err error) error {
	switch {
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("its route is of type prohibit (ip route get %v)", dst.WithZone(""))
	case !errors.Is(err, syscall.EINVAL):
		return err
	case dst.Is6() && dst.IsLinkLocalUnicast() && dst.Zone() == "":
		return fmt.Errorf("a link-local address needs its device, as %v%%eth0", dst)
	}
	return fmt.Errorf("its route is of type blackhole (ip route get %v)", dst.WithZone(""))
}

// findRoute returns the route to dst, which has to lead somewhere.
func findRoute(q question) (netlink.Route, error) {
	dst, o := q.dst, &netlink.RouteGetOptions{Oif: q.dst.Zone()}
	if q.device != "" {
		o.Oif = q.device
	}
	if q.src.IsValid() {
		o.SrcAddr = q.src.AsSlice()
	}
	routes, err := netlink.RouteGetWithOptions(dst.AsSlice(), o)
	switch {
	case err != nil:
		return netlink.Route{}, fmt.Errorf("look up route to %v: %w", dst, explainRoute(dst, err))
	case len(routes) == 0:
		return netlink.Route{}, fmt.Errorf("no route to %v", dst)
	}
	switch r := routes[0]; r.Type {
	case routeUnicast, routeLocal:
		return r, nil
	default:
		return r, fmt.Errorf("route to %v is of type %d, not unicast", dst, r.Type)
	}
}

// ethernetLike returns an error if frames on link are not Ethernet.
func ethernetLike(link netlink.Link) error {
	attrs := link.Attrs()
	switch {
	case attrs.Flags&net.FlagLoopback != 0:
		return fmt.Errorf("device %s is a loopback device", attrs.Name)
	case attrs.EncapType != "ether" || len(attrs.HardwareAddr) != 6:
		return fmt.Errorf("device %s is not an Ethernet device (%s)", attrs.Name, attrs.EncapType)
	case attrs.Flags&net.FlagUp == 0:
		return fmt.Errorf("device %s is down", attrs.Name)
	}
	return nil
}

// portBehind returns the port of the bridge link behind which mac lives, by
// the bridge's forwarding database. It returns nil if link is no bridge, if
// the bridge does not know, or if it filters VLANs, for then it may have to
// change frames on their way.
func portBehind(link netlink.Link, mac net.HardwareAddr) netlink.Link {
	bridge, ok := link.(*netlink.Bridge)
	if !ok || bridge.VlanFiltering != nil && *bridge.VlanFiltering {
		return nil
	}
	entries, err := netlink.NeighList(0, familyBridge)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.MasterIndex != link.Attrs().Index || e.State&(netlink.NUD_PERMANENT) != 0 || !bytes.Equal(e.HardwareAddr, mac) {
			continue
		}
		if port, err := netlink.LinkByIndex(e.LinkIndex); err == nil && ethernetLike(port) == nil {
			return port
		}
	}
	return nil
}

const familyBridge = 7 // AF_BRIDGE of linux/socket.h

// segmentsUDP reports whether device takes UDP super-packets without the
// kernel having to split them first. That cannot be done behind the queueing
// discipline's back.
func segmentsUDP(device string) bool {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return false
	}
	defer tool.Close()
	features, err := tool.Features(device)
	return err == nil && features["tx-udp-segmentation"]
}

// neighbour is the host that frames for dst are addressed to.
type neighbour struct {
	link netlink.Link
	addr net.IP
	dst  netip.Addr
}

// How long a neighbour is waited for.
const (
	neighbourPoll   = 2 * time.Millisecond
	confirmTimeout  = 200 * time.Millisecond // its address is known but may be out of date
	neighbourAnswer = 3 * time.Second        // three requests, as the kernel makes them
)

// States of an entry in the kernel's neighbour table (linux/neighbour.h).
const (
	neighbourSure  = netlink.NUD_REACHABLE | netlink.NUD_PERMANENT | netlink.NUD_NOARP
	neighbourKnown = neighbourSure | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE
)

// resolve returns the neighbour's Ethernet address. Whatever the kernel remembers,
// it is made to ask: what answered half a minute ago may have moved. That goes
// without anything that a monitor behind the address would see on its port. An
// address that is merely remembered is good enough if nobody answers in time: the
// kernel uses it too.
func (n neighbour) resolve(ctx context.Context) (net.HardwareAddr, error) {
	known := n.lookup()
	if known.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 {
		return known.HardwareAddr, nil
	}
	entry, err := n.askAndAwait(ctx, known)
	if err == nil && known.State&neighbourKnown != 0 && entry.State&neighbourSure == 0 {
		entry, err = n.askAll(ctx, known)
	}
	switch {
	case err != nil:
		return nil, err
	case entry.State&neighbourKnown == 0:
		return nil, fmt.Errorf("neighbour %v on %s does not answer", n.addr, n.link.Attrs().Name)
	}
	return entry.HardwareAddr, nil
}

// askAndAwait makes the kernel ask and waits for the answer.
func (n neighbour) askAndAwait(ctx context.Context, known netlink.Neigh) (netlink.Neigh, error) {
	if err := n.provoke(ctx, known); err != nil {
		return known, fmt.Errorf("ask for neighbour %v on %s: %w", n.addr, n.link.Attrs().Name, err)
	}
	timeout := neighbourAnswer
	if known.State&neighbourKnown != 0 {
		timeout = confirmTimeout
	}
	return n.await(ctx, timeout)
}

// askAll asks everybody on the link for a neighbour that does not answer at the
// address that is remembered, which has to be forgotten for that. If nobody
// answers it is remembered again.
func (n neighbour) askAll(ctx context.Context, known netlink.Neigh) (netlink.Neigh, error) {
	if n.forget() != nil {
		return known, nil // without the privilege
	}
	entry := netlink.Neigh{}
	err := n.confirm(entry)
	if err == nil {
		entry, err = n.await(ctx, confirmTimeout)
	}
	if entry.State&neighbourKnown == 0 {
		known.Flags, known.State, entry = 0, netlink.NUD_STALE, known
		_ = netlink.NeighSet(&known) // the kernel will ask once more when it needs it
	}
	return entry, err
}

// forget removes the neighbour from the kernel's table.
func (n neighbour) forget() error {
	return netlink.NeighDel(&netlink.Neigh{LinkIndex: n.link.Attrs().Index, Family: familyOf(n.addr), IP: n.addr})
}

// await returns the entry as soon as the kernel is sure of it, or has given
// up, or when the time is over.
func (n neighbour) await(ctx context.Context, timeout time.Duration) (netlink.Neigh, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(neighbourPoll)
	defer tick.Stop()
	for {
		entry := n.lookup()
		if entry.State&(neighbourSure|netlink.NUD_FAILED) != 0 {
			return entry, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return entry, nil
			}
			return entry, context.Cause(ctx)
		}
	}
}

// lookup returns the neighbour table's entry, or one of state 0.
func (n neighbour) lookup() netlink.Neigh {
	entries, err := netlink.NeighList(n.link.Attrs().Index, familyOf(n.addr))
	if err != nil {
		return netlink.Neigh{}
	}
	for _, e := range entries {
		if e.IP.Equal(n.addr) && (len(e.HardwareAddr) == 6 || e.State&neighbourKnown == 0) {
			return e
		}
	}
	return netlink.Neigh{}
}

func familyOf(ip net.IP) int {
	if ip.To4() != nil {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// Flags of an entry (linux/neighbour.h).
const neighbourUse = 0x01 // NTF_USE: act as if there were something to send

// provoke makes the kernel ask: by netlink, or without CAP_NET_ADMIN by giving
// it something to send.
func (n neighbour) provoke(ctx context.Context, known netlink.Neigh) error {
	err := n.confirm(known)
	if errors.Is(err, os.ErrPermission) {
		knock(ctx, n.dst)
		return nil
	}
	return err
}

// confirm makes the kernel ask by netlink, which needs CAP_NET_ADMIN: the
// neighbour itself where its address is known, else all on the link.
func (n neighbour) confirm(known netlink.Neigh) error {
	ask := &netlink.Neigh{LinkIndex: n.link.Attrs().Index, Family: familyOf(n.addr), IP: n.addr, Flags: neighbourUse}
	if known.State&neighbourKnown != 0 {
		ask.Flags, ask.State, ask.HardwareAddr = 0, netlink.NUD_PROBE, known.HardwareAddr
	}
	return netlink.NeighSet(ask)
}

// knock makes the kernel send something to dst that no UDP socket sees: the
// first packet of a TCP connection to the discard port (RFC 863). It needs no
// privilege, and whatever comes of the connection does not matter.
func knock(ctx context.Context, dst netip.Addr) {
	dialer := net.Dialer{Timeout: neighbourPoll}
	if conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(dst, discardPort).String()); err == nil {
		conn.Close()
	}
}

const discardPort = 9
