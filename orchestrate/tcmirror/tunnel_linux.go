package tcmirror

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// tunnelMTU lets every frame pass that fits into a datagram; what does not fit
	// into the way to the sensor is sent in fragments.
	tunnelMTU = maxDatagram - headerTunnel - headerIPv6 - headerEther - tags
	// firstPort is where the ports begin that a vxlan device is given to listen
	// on, as it has to: above those that the system gives to others.
	firstPort = 61000
	// onePort is the source port of tunnels that cannot compute one for each flow.
	onePort = 60999
	// vxlanLocalBypass is IFLA_VXLAN_LOCALBYPASS.
	vxlanLocalBypass = 31
	addrGenNone      = 1 // IN6_ADDR_GEN_MODE_NONE
)

// tunnel is the device of a mirror.
type tunnel struct {
	name   string
	index  int
	encap  string
	vni    uint32
	sensor netip.AddrPort
	single bool // one source port for all flows
}

// create makes the device, which is not up.
func (t *tunnel) create() error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Flags, msg.Change = unix.IFF_NOARP, unix.IFF_NOARP
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(t.name)))
	req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(tunnelMTU)))
	// Frames that NIC offloads merged are segmented before they get headers.
	req.AddData(nl.NewRtAttr(unix.IFLA_GSO_MAX_SEGS, nl.Uint32Attr(1)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(t.encap))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	if t.encap == VXLAN {
		t.vxlan(data)
	} else {
		t.geneve(data)
	}
	req.AddData(info)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
			return unsupportedf("add a %s device: this kernel has no module %s", t.encap, t.encap)
		}
		return denied(fmt.Errorf("add a %s device: %w", t.encap, err))
	}
	link, err := netlink.LinkByName(t.name)
	if err != nil {
		return fmt.Errorf("find device %s: %w", t.name, err)
	}
	t.index = link.Attrs().Index
	return nil
}

// vxlan makes a device without a destination: that is an entry of its forwarding
// database, so that the port it sends to may be another than the one it listens
// on (which on this machine may be taken by the published port of the sensor).
func (t *tunnel) vxlan(data *nl.RtAttr) {
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(t.vni))
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, []byte{0})
	data.AddRtAttr(nl.IFLA_VXLAN_UDP_CSUM, []byte{0})
	data.AddRtAttr(nl.IFLA_VXLAN_UDP_ZERO_CSUM6_TX, []byte{0}) // receivers want one over IPv6
	data.AddRtAttr(vxlanLocalBypass, []byte{0})
	b := make([]byte, 2)
	_, _ = rand.Read(b) // never fails
	port := firstPort + int(binary.NativeEndian.Uint16(b))%(maxDatagram-firstPort)
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, networkPort(uint16(port)))
	if t.single {
		data.AddRtAttr(nl.IFLA_VXLAN_PORT_RANGE, append(networkPort(onePort), networkPort(onePort+1)...))
	}
	if t.sensor.Addr().Is6() {
		data.AddRtAttr(nl.IFLA_VXLAN_GROUP6, make([]byte, 16)) // makes its sockets IPv6
	}
}

// geneve has its destination in the device, with the port that it listens on; the
// kernel allows one device of a VNI to a destination.
func (t *tunnel) geneve(data *nl.RtAttr) {
	data.AddRtAttr(nl.IFLA_GENEVE_ID, nl.Uint32Attr(t.vni))
	data.AddRtAttr(nl.IFLA_GENEVE_PORT, networkPort(t.sensor.Port()))
	if t.single {
		data.AddRtAttr(nl.IFLA_GENEVE_PORT_RANGE, append(networkPort(onePort), networkPort(onePort+1)...))
	}
	checksum := byte(0)
	if t.sensor.Addr().Is6() {
		checksum = 1 // receivers want one over IPv6
	}
	data.AddRtAttr(nl.IFLA_GENEVE_UDP_CSUM, []byte{checksum})
	geneveRemote(data, t.sensor.Addr())
}

func geneveRemote(data *nl.RtAttr, to netip.Addr) {
	if to.Is6() {
		data.AddRtAttr(nl.IFLA_GENEVE_REMOTE6, to.AsSlice())
		return
	}
	data.AddRtAttr(nl.IFLA_GENEVE_REMOTE, to.AsSlice())
}

func (t *tunnel) link() netlink.Link {
	return &netlink.GenericLink{LinkType: t.encap, LinkAttrs: netlink.LinkAttrs{Name: t.name, Index: t.index}}
}

// write sets the alias.
func (t *tunnel) write(r record) error {
	if err := netlink.LinkSetAlias(t.link(), r.String()); err != nil {
		return denied(fmt.Errorf("write the alias of %s: %w", t.name, err))
	}
	return nil
}

// quiet keeps the kernel from sending anything of its own (IPv6 would look for
// routers), and has checksums computed that NICs were to compute.
func (t *tunnel) quiet() error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+t.name+"/disable_ipv6", []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// Where /proc/sys is read-only this is nearly as good.
		if err := netlink.LinkSetIP6AddrGenMode(t.link(), addrGenNone); err != nil {
			return fmt.Errorf("keep IPv6 off %s: %w", t.name, err)
		}
	}
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("set offloads of %s: %w", t.name, err)
	}
	defer tool.Close()
	if err := tool.Change(t.name, map[string]bool{"tx-checksum-ip-generic": false}); err != nil {
		return fmt.Errorf("set offloads of %s: %w", t.name, err)
	}
	return nil
}

// destination is where a tunnel sends to.
type destination struct {
	to    netip.AddrPort
	bound int
}

// leadsNowhere says that the device to which it is bound is gone.
func (d destination) leadsNowhere() bool {
	if d.bound == 0 {
		return false
	}
	_, err := netlink.LinkByIndex(d.bound)
	return err != nil
}

// point makes it send to the sensor, and to nothing else. A new destination is
// there before the old one goes.
func (t *tunnel) point(d destination) error {
	if t.encap == GENEVE {
		return t.repoint(d.to)
	}
	before, err := t.destinations()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(before, destination.leadsNowhere); i >= 0 {
		// It can only be removed with the whole entry.
		if err := t.entry(unix.RTM_DELNEIGH, 0, destination{}); err != nil {
			return fmt.Errorf("point %s away from %s: %w", t.name, before[i].to, err)
		}
		before = nil
	}
	if !slices.Contains(before, d) {
		if err := t.entry(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_APPEND, d); err != nil {
			return fmt.Errorf("point %s to %s: %w", t.name, d.to, err)
		}
	}
	for _, old := range before {
		if old == d {
			continue
		}
		if err := t.entry(unix.RTM_DELNEIGH, 0, old); err != nil {
			return fmt.Errorf("point %s away from %s: %w", t.name, old.to, err)
		}
	}
	return nil
}

// destinations are where the tunnel sends to now.
func (t *tunnel) destinations() ([]destination, error) {
	if t.encap == GENEVE {
		return []destination{{to: t.sensor}}, nil
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	req.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(t.index)})
	messages, err := dump(req, unix.RTM_NEWNEIGH)
	if err != nil {
		return nil, fmt.Errorf("list destinations of %s: %w", t.name, err)
	}
	const header = 12 // struct ndmsg, with the index behind the family
	var list []destination
	for _, m := range messages {
		if len(m) < header || int(binary.NativeEndian.Uint32(m[4:])) != t.index {
			continue
		}
		attrs, err := attributes(m[header:])
		if err != nil {
			return nil, fmt.Errorf("list destinations of %s: %w", t.name, err)
		}
		if d, ok := parseDestination(attrs); ok {
			list = append(list, d)
		}
	}
	return list, nil
}

// parseDestination reads an entry; ok is false if it has no address.
func parseDestination(attrs map[uint16][]byte) (d destination, ok bool) {
	addr, ok := netip.AddrFromSlice(attrs[netlink.NDA_DST])
	if port := attrs[netlink.NDA_PORT]; len(port) == 2 {
		d.to = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port))
	}
	if bound := attrs[netlink.NDA_IFINDEX]; len(bound) == 4 {
		d.bound = int(binary.NativeEndian.Uint32(bound))
	}
	return d, ok
}

// entry changes the entry for frames to every address; without a destination, it
// means all of it.
func (t *tunnel) entry(command, flags int, d destination) error {
	req := nl.NewNetlinkRequest(command, flags|unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(t.index), State: netlink.NUD_PERMANENT | netlink.NUD_NOARP, Flags: netlink.NTF_SELF})
	req.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, make([]byte, 6)))
	if d.to.IsValid() {
		req.AddData(nl.NewRtAttr(netlink.NDA_DST, d.to.Addr().AsSlice()))
		req.AddData(nl.NewRtAttr(netlink.NDA_PORT, networkPort(d.to.Port())))
	}
	if d.bound != 0 {
		req.AddData(nl.NewRtAttr(netlink.NDA_IFINDEX, nl.Uint32Attr(uint32(d.bound))))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// repoint changes a geneve device's remote address; its port cannot be changed.
func (t *tunnel) repoint(to netip.AddrPort) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(t.index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(t.encap))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_GENEVE_ID, nl.Uint32Attr(t.vni))
	geneveRemote(data, to.Addr())
	req.AddData(info)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("point %s to %s: %w", t.name, to, err)
	}
	return nil
}

// up lets it send. Its listening port may be taken.
func (t *tunnel) up() error {
	err := netlink.LinkSetUp(t.link())
	if errors.Is(err, unix.EADDRINUSE) && t.encap == GENEVE {
		return unsupportedf("listen on UDP port %d, which a geneve device has to: it is taken on this machine", t.sensor.Port())
	}
	if err != nil {
		return denied(fmt.Errorf("set %s up: %w", t.name, err))
	}
	return nil
}

// guard puts the gate on its way out, and lets nothing in: the kernel hears on
// its port, and nobody shall reach this machine by it.
func (t *tunnel) guard(program *ebpf.Program) error {
	if program == nil {
		return nil
	}
	if err := netlink.QdiscAdd(clsactOf(t.index)); err != nil && !errors.Is(err, unix.EEXIST) {
		return denied(missing("clsact (sch_ingress)", fmt.Errorf("add clsact to %s: %w", t.name, err)))
	}
	in := tcFilter{link: t.index, parent: parentIn, priority: 1, kind: classifierBPF, handle: 1, decides: true, program: verdict(actShot)}
	out := tcFilter{link: t.index, parent: parentOut, priority: 1, kind: classifierBPF, handle: 1, decides: true, direct: program.FD()}
	for _, f := range []tcFilter{in, out} {
		if err := f.add(true); err != nil {
			return denied(fmt.Errorf("add a filter to %s: %w", t.name, err))
		}
	}
	return nil
}

// remove deletes the device. One that is gone is no error.
func removeDevice(name string) error {
	link, err := netlink.LinkByName(name)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return denied(fmt.Errorf("remove device %s: %w", name, err))
	}
	return nil
}
