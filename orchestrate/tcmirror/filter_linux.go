package tcmirror

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Numbers of include/uapi/linux/{pkt_cls,pkt_sched,tc_act/tc_mirred}.h that the
// netlink library does not have, or has as something else.
const (
	mirredParms    = 2  // TCA_MIRRED_PARMS
	mirredMirror   = 2  // TCA_EGRESS_MIRROR
	mirredLen      = 28 // struct tc_mirred
	matchallAct    = 2  // TCA_MATCHALL_ACT
	u32Terminal    = 1  // TC_U32_TERMINAL
	skipHardware   = 1  // TCA_CLS_FLAGS_SKIP_HW
	statsBasic     = 1  // TCA_STATS_BASIC
	statsQueue     = 3  // TCA_STATS_QUEUE
	statsPackets64 = 8  // TCA_STATS_PKT64
	clsactHandle   = 0xffff0000
	bpfInstruction = 8 // struct sock_filter
	priorityShift  = 16
	parentIn       = netlink.HANDLE_MIN_INGRESS
	parentOut      = netlink.HANDLE_MIN_EGRESS
	allProtocols   = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00 // in network byte order
)

// tcFilter is a classifier as far as we know it.
type tcFilter struct {
	link     int
	parent   uint32
	priority int
	kind     classifier
	handle   uint32
	protocol uint16 // in network byte order
	program  []bpf.RawInstruction
	direct   int  // file descriptor of an eBPF program that decides by itself; 0 without
	decides  bool // the program's answer is the verdict
	// Of its mirred action:
	target  int    // index of the device
	cookie  []byte // empty if there is no mirred action
	index   uint32 // of the action
	counted Counters
}

func (f tcFilter) message() *nl.TcMsg {
	return &nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(f.link), Handle: f.handle, Parent: f.parent,
		Info: uint32(f.priority)<<priorityShift | uint32(f.protocol)}
}

// add makes the filter; with replace one of the same handle is replaced at once.
func (f tcFilter) add(replace bool) error {
	flags := unix.NLM_F_CREATE | unix.NLM_F_EXCL | unix.NLM_F_ACK
	if replace {
		flags = unix.NLM_F_CREATE | unix.NLM_F_ACK
	}
	f.protocol = allProtocols
	req := nl.NewNetlinkRequest(unix.RTM_NEWTFILTER, flags)
	req.AddData(f.message())
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(string(f.kind))))
	req.AddData(f.options())
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func (f tcFilter) options() *nl.RtAttr {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	action := 0
	switch f.kind {
	case classifierBPF:
		action = nl.TCA_BPF_ACT
		f.bpfOptions(options)
	case classifierMatchAll:
		action = matchallAct
	case classifierU32:
		action = nl.TCA_U32_ACT
		// struct tc_u32_sel with one key whose mask is zero: "match u32 0 0".
		sel := make([]byte, 16+16)
		sel[0], sel[2] = u32Terminal, 1
		options.AddRtAttr(nl.TCA_U32_SEL, sel)
	}
	if f.target != 0 {
		f.addMirred(options.AddRtAttr(action, nil).AddRtAttr(1, nil))
	}
	return options
}

func (f tcFilter) bpfOptions(options *nl.RtAttr) {
	if f.decides {
		options.AddRtAttr(nl.TCA_BPF_FLAGS, nl.Uint32Attr(nl.TCA_BPF_FLAG_ACT_DIRECT))
	}
	options.AddRtAttr(nl.TCA_BPF_FLAGS_GEN, nl.Uint32Attr(skipHardware))
	if f.direct != 0 {
		options.AddRtAttr(nl.TCA_BPF_FD, nl.Uint32Attr(uint32(f.direct)))
		options.AddRtAttr(nl.TCA_BPF_NAME, nl.ZeroTerminated("zeekdemo"))
		return
	}
	ops := make([]byte, 0, bpfInstruction*len(f.program))
	for _, i := range f.program {
		ops = append(binary.NativeEndian.AppendUint16(ops, i.Op), i.Jt, i.Jf)
		ops = binary.NativeEndian.AppendUint32(ops, i.K)
	}
	options.AddRtAttr(nl.TCA_BPF_OPS_LEN, nl.Uint16Attr(uint16(len(f.program))))
	options.AddRtAttr(nl.TCA_BPF_OPS, ops)
}

// addMirred adds the action: mirror to the target, then go on as if nothing had
// been. An action that exists already by the index keeps its counters.
func (f tcFilter) addMirred(action *nl.RtAttr) {
	parms := make([]byte, mirredLen)
	binary.NativeEndian.PutUint32(parms, f.index)
	binary.NativeEndian.PutUint32(parms[8:], uint32(actContinue&0xffffffff))
	binary.NativeEndian.PutUint32(parms[20:], mirredMirror)
	binary.NativeEndian.PutUint32(parms[24:], uint32(f.target))
	action.AddRtAttr(nl.TCA_ACT_KIND, nl.ZeroTerminated("mirred"))
	if len(f.cookie) > 0 {
		action.AddRtAttr(nl.TCA_ACT_COOKIE, f.cookie)
	}
	action.AddRtAttr(nl.TCA_ACT_OPTIONS, nil).AddRtAttr(mirredParms, parms)
}

// remove deletes the filter. One that is gone is no error.
func (f tcFilter) remove() error {
	if f.kind == classifierU32 {
		f.handle = 0 // the whole priority, with its hash table: it is ours alone
	}
	req := nl.NewNetlinkRequest(unix.RTM_DELTFILTER, unix.NLM_F_ACK)
	req.AddData(f.message())
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(string(f.kind))))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) && !f.exists() {
		return nil
	}
	return err
}

func (f tcFilter) exists() bool {
	there, err := filters(f.link, f.parent)
	for _, o := range there {
		if o.handle == f.handle && o.priority == f.priority {
			return true
		}
	}
	return err != nil
}

// filters lists what is at a hook of an interface. Nothing is there if the
// interface is gone, or has no such hook.
func filters(link int, parent uint32) ([]tcFilter, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETTFILTER, unix.NLM_F_DUMP)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(link), Parent: parent})
	messages, err := dump(req, unix.RTM_NEWTFILTER)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list filters of interface %d: %w", link, err)
	}
	var list []tcFilter
	for _, m := range messages {
		f, err := parseFilter(m)
		if err != nil {
			return nil, fmt.Errorf("list filters of interface %d: %w", link, err)
		}
		f.link, f.parent = link, parent
		list = append(list, f)
	}
	return list, nil
}

// dump asks again where what was asked for changed meanwhile.
func dump(req *nl.NetlinkRequest, kind uint16) (messages [][]byte, err error) {
	for range 10 {
		messages, err = req.Execute(unix.NETLINK_ROUTE, kind)
		if !errors.Is(err, nl.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return messages, err
}

func parseFilter(m []byte) (tcFilter, error) {
	msg := nl.DeserializeTcMsg(m)
	f := tcFilter{handle: msg.Handle, priority: int(msg.Info >> priorityShift), protocol: uint16(msg.Info)}
	attrs, err := attributes(m[msg.Len():])
	if err != nil {
		return f, err
	}
	f.kind = classifier(unix.ByteSliceToString(attrs[nl.TCA_KIND]))
	options, err := attributes(attrs[nl.TCA_OPTIONS])
	if err != nil {
		return f, err
	}
	action := map[classifier]uint16{classifierBPF: nl.TCA_BPF_ACT, classifierMatchAll: matchallAct, classifierU32: nl.TCA_U32_ACT}[f.kind]
	if action == 0 {
		return f, nil
	}
	if f.kind == classifierBPF {
		for ops := options[nl.TCA_BPF_OPS]; len(ops) >= bpfInstruction; ops = ops[bpfInstruction:] {
			f.program = append(f.program, bpf.RawInstruction{Op: binary.NativeEndian.Uint16(ops), Jt: ops[2], Jf: ops[3], K: binary.NativeEndian.Uint32(ops[4:])})
		}
	}
	actions, err := attributes(options[action])
	if err != nil {
		return f, err
	}
	return f, f.parseAction(actions[1])
}

// parseAction reads the first action, if it is mirred.
func (f *tcFilter) parseAction(b []byte) error {
	action, err := attributes(b)
	if err != nil || unix.ByteSliceToString(action[nl.TCA_ACT_KIND]) != "mirred" {
		return err
	}
	f.cookie = action[nl.TCA_ACT_COOKIE]
	options, err := attributes(action[nl.TCA_ACT_OPTIONS])
	if err != nil {
		return err
	}
	if parms := options[mirredParms]; len(parms) >= mirredLen {
		f.index, f.target = binary.NativeEndian.Uint32(parms), int(binary.NativeEndian.Uint32(parms[24:]))
	}
	stats, err := attributes(action[nl.TCA_ACT_STATS])
	if err != nil {
		return err
	}
	// struct gnet_stats_basic: u64 bytes, u32 packets; gnet_stats_queue: u32
	// qlen, backlog, drops, requeues, overlimits.
	if basic := stats[statsBasic]; len(basic) >= 12 {
		f.counted.Bytes, f.counted.Packets = binary.NativeEndian.Uint64(basic), uint64(binary.NativeEndian.Uint32(basic[8:]))
	}
	if packets := stats[statsPackets64]; len(packets) >= 8 {
		f.counted.Packets = binary.NativeEndian.Uint64(packets)
	}
	if queue := stats[statsQueue]; len(queue) >= 20 {
		f.counted.Dropped = uint64(binary.NativeEndian.Uint32(queue[8:])) + uint64(binary.NativeEndian.Uint32(queue[16:]))
	}
	return nil
}

// attributes are the values by type, without the flag of nesting.
func attributes(b []byte) (map[uint16][]byte, error) {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, err
	}
	m := make(map[uint16][]byte, len(list))
	for _, a := range list {
		m[a.Attr.Type&^unix.NLA_F_NESTED] = a.Value
	}
	return m, nil
}

// hooks are the interfaces that have clsact, ingress or another queueing
// discipline in that place, with its kind.
func hooks() (map[int]string, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_DUMP)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL})
	messages, err := dump(req, unix.RTM_NEWQDISC)
	if err != nil {
		return nil, fmt.Errorf("list queueing disciplines: %w", err)
	}
	found := map[int]string{}
	for _, m := range messages {
		msg := nl.DeserializeTcMsg(m)
		if msg.Parent != netlink.HANDLE_CLSACT {
			continue
		}
		attrs, err := attributes(m[msg.Len():])
		if err != nil {
			return nil, fmt.Errorf("list queueing disciplines: %w", err)
		}
		found[int(msg.Ifindex)] = unix.ByteSliceToString(attrs[nl.TCA_KIND])
	}
	return found, nil
}

func clsactOf(link int) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{QdiscType: "clsact",
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link, Handle: clsactHandle, Parent: netlink.HANDLE_CLSACT}}
}

// networkPort is a port in network byte order.
func networkPort(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
