package cli

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Flags that several commands have stand here, each once: its name, its default,
// its help, and what its value means.

func encapFlag(f *pflag.FlagSet, to *string) {
	f.StringVar(to, "encap", "vxlan", "encapsulation: vxlan or geneve")
}

// jsonFlag is for a command that prints what it is called here; empty for one that
// does nothing but print.
func jsonFlag(f *pflag.FlagSet, to *bool, what string) {
	if what != "" {
		what += " as "
	}
	f.BoolVar(to, "json", false, "print "+what+"one JSON document")
}

// lockFlag is for commands that change the stack or the engine's machine.
func lockFlag(f *pflag.FlagSet, to *time.Duration) {
	f.DurationVar(to, "lock-timeout", time.Minute, "how long to wait for another up, down or tune-host on this engine; 0 does not wait")
}

func checkLock(timeout time.Duration) error {
	if timeout < 0 {
		return usagef("--lock-timeout %s: want a time, or 0 not to wait", timeout)
	}
	return nil
}

func imageFlag(f *pflag.FlagSet, to *[]string) {
	f.StringArrayVar(to, "image", nil, "use another image, as NAME=REF, e.g. zeek=zeek/zeek:9.0 (repeatable)")
}

// workersFlag is how many processes share a sensor's port.
func workersFlag(f *pflag.FlagSet, to *string, help string) {
	f.StringVar(to, "workers", "1", help)
}

// nodesOptions are the processes of the stack's sensors.
type nodesOptions struct {
	workers string
	loggers int
	proxies int
	pin     bool
}

func (o *nodesOptions) flags(f *pflag.FlagSet) {
	workersFlag(f, &o.workers, `Zeek processes that share the work of the VXLAN sensor: a number, or auto (what
the engine's processors bear, at most 8); vxlan=N,geneve=N names the sensors`)
	f.IntVar(&o.loggers, "loggers", 1, "processes that write the logs of a sensor with several workers")
	f.IntVar(&o.proxies, "proxies", 1, "proxy processes of a sensor with several workers")
	f.BoolVar(&o.pin, "pin-workers", false, "give each worker a processor, and leave one for the sender")
}

// parse does not know the engine's machine yet, on which auto depends. The zero value
// is a sensor of one process.
func (o nodesOptions) parse() (c orchestrate.Cluster, err error) {
	c = orchestrate.Cluster{Loggers: o.loggers, Proxies: o.proxies, Pin: o.pin}
	if o == (nodesOptions{}) {
		return c, nil
	}
	if c.Workers, err = orchestrate.ParseWorkers(o.workers); err != nil {
		return c, usagef("--workers: %w", err)
	}
	if o.loggers < 1 || o.proxies < 1 {
		return c, usagef("--loggers %d, --proxies %d: want at least 1", o.loggers, o.proxies)
	}
	return c, nil
}

func durationFlag(f *pflag.FlagSet, to *time.Duration) {
	f.DurationVar(to, "duration", 0, "stop after this time")
}

func limitFlag(f *pflag.FlagSet, to *uint64) {
	f.Uint64Var(to, "limit", 0, "stop after this many frames")
}

func filterFlag(f *pflag.FlagSet, to *string, verb string) {
	f.StringVar(to, "filter", "", verb+" that match this pcap-filter(7) expression (needs tcpdump)")
}

func cpuFlag(f *pflag.FlagSet, to *string) {
	f.StringVar(to, "cpu", "auto", "pin the sender to this CPU: a number, auto or off")
}

// toOption is --to.
type toOption struct {
	text  string
	given func(flag string) bool
}

func (o *toOption) flags(f *pflag.FlagSet) {
	o.given = f.Changed
	f.StringVar(&o.text, "to", "", "send to HOST[:PORT] instead of the stack; needs no engine")
}

// host is nil if the flag was not given. An empty value, as that of a variable of a
// shell's that is not set, names no host, and does not stand for the stack.
func (o toOption) host(c encap.Config) (*way.Host, error) {
	switch {
	case !o.given("to"):
		return nil, nil
	case o.text == "":
		return nil, usagef("--to %q: want HOST or HOST:PORT", o.text)
	}
	h, err := way.ParseTo(o.text, c.DestinationPort())
	if err != nil {
		return nil, usageError{err}
	}
	return &h, nil
}

// sendOptions say by what means datagrams leave.
type sendOptions struct {
	tx       string
	cpu      string
	lossless string
	patience time.Duration
	given    func(flag string) bool
}

// flags has initial as the patience without any flag.
func (o *sendOptions) flags(f *pflag.FlagSet, initial time.Duration) {
	o.given = f.Changed
	f.StringVar(&o.tx, "tx", "auto", "transmission: packet (packet socket, needs CAP_NET_RAW), udp (no privilege) or auto")
	cpuFlag(f, &o.cpu)
	f.StringVar(&o.lossless, "lossless", string(watch.Auto), "wait rather than overrun the sensor: auto (where its queue can be seen), require or off")
	f.DurationVar(&o.patience, "patience", initial, "give up when the sensor has taken nothing for this time; 0 waits for ever")
}

// sending is what sendOptions mean.
type sending struct {
	tx       transmit.Mode
	cpu      transmit.CPU
	lossless watch.Mode
	waiting  watch.Waiting
}

func (o sendOptions) parse() (s sending, err error) {
	if s.cpu, err = transmit.ParseCPU(o.cpu); err != nil {
		return s, usageError{err}
	}
	if s.tx, err = transmit.ParseMode(o.tx); err != nil {
		return s, usageError{err}
	}
	if s.lossless, err = watch.ParseMode(o.lossless); err != nil {
		return s, usageError{err}
	}
	if o.patience < 0 {
		return s, usagef("--patience %s: want a time, or 0 for ever", o.patience)
	}
	s.waiting = watch.Waits()
	s.waiting.Run = o.patience
	if o.patience > 0 && o.given("patience") {
		s.waiting.End = o.patience
	}
	return s, nil
}

// viaOptions say by which way a sensor is reached.
type viaOptions struct {
	via    string
	direct bool
	binary string
}

func (o *viaOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.via, "via", string(way.Auto), `way to the sensor: direct (its container's own address), sidecar (from a
container beside it), published (the published port, through docker-proxy) or
auto (the first of these that works)`)
	f.BoolVar(&o.direct, "direct", false, "the same as --via direct; by sidecar where the container's address cannot be reached from here")
	f.StringVar(&o.binary, "sidecar-binary", "", "this program built for the engine's platform, where that is not this machine's")
}

// given reports whether a way was asked for.
func (o viaOptions) given() bool { return o.direct || o.via != string(way.Auto) }

// request looks at the flags alone; tx is the transmission asked for.
func (o viaOptions) request(tx transmit.Mode) (way.Request, error) {
	kind, err := way.ParseKind(o.via)
	switch {
	case err != nil:
		return way.Request{}, usageError{err}
	case o.direct && kind != way.Auto && kind != way.Direct:
		return way.Request{}, usagef("--direct and --via %s exclude each other", kind)
	case kind == way.Sidecar && tx == transmit.Packet:
		return way.Request{}, usagef("--via sidecar and --tx packet exclude each other: a sidecar has no capability")
	case o.direct:
		kind = way.Direct
	}
	return way.Request{Kind: kind, Tx: tx, Binary: o.binary}, nil
}

// encapOptions say what datagrams look like.
type encapOptions struct {
	kind        string
	preset      string
	vni         int64 // negative: a fresh one
	port        uint16
	ports       string
	options     []string
	mtu         int
	maxDatagram int
	padCut      bool
	resegment   bool
	fixSums     bool
	rawIP       bool
	given       func(flag string) bool // whether a flag was on the command line
}

// flags are those of every tunnel.
func (o *encapOptions) flags(f *pflag.FlagSet) {
	o.given, o.mtu = f.Changed, encap.DefaultMTU
	encapFlag(f, &o.kind)
	f.StringVar(&o.preset, "as", "", "encapsulate as a cloud's mirror does: "+strings.Join(encap.Presets(), ", "))
	f.Int64Var(&o.vni, "vni", -1, "VNI of the run, 0 to 16777215 (default a fresh one)")
	f.Lookup("vni").DefValue = "0" // what help takes for "no default to show"
	f.Uint16Var(&o.port, "port", 0, "destination port (default 4789 for vxlan, 6081 for geneve)")
	f.BoolVar(&o.rawIP, "raw-ip", false, "carry IP packets without Ethernet, as some clouds do (geneve only, the stack's sensor in the mode ip; --raw-ip=false with --as carries Ethernet)")
	f.IntVar(&o.maxDatagram, "max-datagram", 0, "longest UDP payload that the receiver takes, in bytes (default what UDP allows)")
}

// frameFlags are those of frames that come from captures.
func (o *encapOptions) frameFlags(f *pflag.FlagSet) {
	f.StringVar(&o.ports, "source-port-range", "", "MIN-MAX of the source ports, chosen by a symmetric hash of the inner flow (default 49152-65535)")
	f.StringArrayVar(&o.options, "geneve-option", nil, "add a GENEVE option, as CLASS:TYPE:HEX, e.g. 0108:01:0000000000000001 (repeatable)")
	f.IntVar(&o.mtu, "mtu", encap.DefaultMTU, "size of the IP packets into which TCP super-frames that cannot pass are re-segmented")
	f.BoolVar(&o.resegment, "resegment", false, "cut every TCP super-frame to --mtu, not only those that cannot pass")
	f.BoolVar(&o.fixSums, "fix-checksums", false, "compute checksums that the capturing host had left to its network card, within tunnels too")
	f.BoolVar(&o.padCut, "pad-cut", false, "fill frames that the capture cut with zeros to their recorded length")
}

// config turns flags into an encapsulation. A preset sets all of it; flags that
// were given go before the preset.
func (o encapOptions) config() (encap.Config, error) {
	c, err := o.base()
	if o.given("raw-ip") {
		c.RawIP = o.rawIP
	}
	if err == nil {
		err = o.geneveOptions(&c)
	}
	if err == nil {
		err = o.numbers(&c)
	}
	if err != nil {
		return c, usageError{err}
	}
	if o.port != 0 {
		c.Port = o.port
	}
	c.MTU, c.MaxDatagram, c.PadCut = o.mtu, o.maxDatagram, o.padCut
	c.ResegmentAll, c.FixChecksums = o.resegment, o.fixSums
	if _, err := encap.New(c); err != nil {
		return c, usageError{err}
	}
	return c, nil
}

// base is the preset, or the kind alone.
func (o encapOptions) base() (c encap.Config, err error) {
	if o.preset != "" {
		if c, err = encap.Preset(o.preset); err != nil {
			return c, err
		}
	}
	if o.preset != "" && !o.given("encap") {
		return c, nil
	}
	kind, err := encap.ParseKind(o.kind)
	if err != nil {
		return c, err
	}
	if o.preset != "" && kind != c.Kind {
		return c, fmt.Errorf("--encap %s: --as %s is %v", kind, o.preset, c.Kind)
	}
	c.Kind = kind
	return c, nil
}

func (o encapOptions) geneveOptions(c *encap.Config) error {
	for _, text := range o.options {
		option, err := encap.ParseOption(text)
		if err != nil {
			return err
		}
		c.SetOption(option)
	}
	return nil
}

// numbers sets the VNI and the source ports.
func (o encapOptions) numbers(c *encap.Config) error {
	switch {
	case o.given("vni") && (o.vni < 0 || o.vni > encap.MaxVNI):
		return fmt.Errorf("--vni %d: want 0 to %d", o.vni, encap.MaxVNI)
	case o.given("vni"):
		c.VNI = uint32(o.vni)
	case o.preset != "" && c.RawIP: // what the cloud sends has none
	default:
		c.VNI = encap.FreshVNI()
	}
	if o.ports == "" {
		return nil
	}
	low, high, _ := strings.Cut(o.ports, "-")
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || first == 0 || first > last {
		return fmt.Errorf("--source-port-range %q: want MIN-MAX, e.g. 49152-65535", o.ports)
	}
	c.PortMin, c.PortMax = uint16(first), uint16(last)
	return nil
}

// paceOptions say when datagrams leave.
type paceOptions struct {
	pace.Spec
	given func(flag string) bool
}

// flags has initial as the pace without any flag.
func (o *paceOptions) flags(f *pflag.FlagSet, initial string) {
	o.given = f.Changed
	f.StringVar(&o.Pace, "pace", initial, "recorded (as captured) or max (as fast as it goes)")
	f.StringVar(&o.Speed, "speed", "1x", "scale the recorded pace, e.g. 2x or 0.5x")
	f.Float64Var(&o.PPS, "pps", 0, "a fixed rate in packets per second")
	f.StringVar(&o.Rate, "rate", "", "a fixed rate in bits of frames per second, e.g. 500mbit")
	f.DurationVar(&o.Delay, "delay", 0, "a fixed pause between packets, e.g. 1ms")
}

// pauseFlags change the pauses of a capture.
func (o *paceOptions) pauseFlags(f *pflag.FlagSet) {
	f.DurationVar(&o.MaxGap, "max-gap", 0, "shorten recorded pauses that are longer than this (after --speed)")
	f.DurationVar(&o.Fit, "fit", 0, "play all of it within this time, every pause scaled alike (reads the captures once before)")
	f.DurationVar(&o.LoopDelay, "loop-delay", 0, "pause between one loop and the next")
}

// spec checks that the flags name one pace.
func (o paceOptions) spec() (pace.Spec, error) {
	s := o.Spec
	s.Given = map[string]bool{}
	for _, flag := range []string{"pace", "speed", "pps", "rate", "delay"} {
		s.Given[flag] = o.given(flag)
	}
	if _, err := s.Pacer(); err != nil {
		return s, usageError{err}
	}
	return s, nil
}

// outerOptions say what the outer header looks like, and where datagrams leave.
type outerOptions struct {
	ttl, dscp int
	df        string
	source    string
	device    string
	given     func(flag string) bool
}

func (o *outerOptions) flags(f *pflag.FlagSet) {
	o.given = f.Changed
	f.IntVar(&o.ttl, "ttl", 0, "TTL or hop limit of the outer header, 1 to 255 (default 64)")
	f.IntVar(&o.dscp, "dscp", 0, "differentiated services codepoint of the outer header, 0 to 63")
	f.StringVar(&o.df, "df", "", "don't-fragment bit of the outer IPv4 header, on or off; what is too long for the path leaves in fragments even so (default off, with --write on)")
	f.StringVar(&o.source, "source", "", "source address of the outer header, one of this machine's")
	f.StringVar(&o.device, "device", "", "network device by which datagrams leave")
}

// parse looks at each value.
func (o outerOptions) parse() (outer delivery.Outer, err error) {
	switch {
	case o.given("ttl") && (o.ttl < 1 || o.ttl > 255):
		return outer, usagef("--ttl %d: want 1 to 255", o.ttl)
	case o.dscp < 0 || o.dscp > encap.MaxDSCP:
		return outer, usagef("--dscp %d: want 0 to %d", o.dscp, encap.MaxDSCP)
	case o.df != "" && o.df != "on" && o.df != "off":
		return outer, usagef("--df %q: want on or off", o.df)
	}
	outer = delivery.Outer{Outer: transmit.Outer{TTL: uint8(o.ttl), DSCP: uint8(o.dscp), DontFragment: o.df == "on", Device: o.device}, MayFragment: o.df == "off"}
	if o.source != "" {
		if outer.Source, err = netip.ParseAddr(o.source); err != nil {
			return outer, usagef("--source %q: want an IP address", o.source)
		}
	}
	return outer, nil
}

// reachOptions say how the engine's machine is reached, as root or by a container.
type reachOptions struct {
	way    string
	former *pflag.Flag // --via, which now is the way to a sensor
}

func (o *reachOptions) flags(f *pflag.FlagSet, what string) {
	f.StringVar(&o.way, "reach", string(nsenter.Auto), what)
	f.StringVar(&o.way, "via", string(nsenter.Auto), "the former name of --reach")
	o.former = f.Lookup("via")
	o.former.Hidden = true // not deprecated by pflag, of which cobra would print a line into the result
}

func (o reachOptions) parse() (nsenter.Way, error) {
	switch w := nsenter.Way(o.way); w {
	case nsenter.Auto, nsenter.Direct, nsenter.Helper:
		return w, nil
	}
	return "", usagef("--reach %q: want direct, helper or auto", o.way)
}

// note says what the flag is called where it was given by its former name.
func (o reachOptions) note(to io.Writer) {
	if o.former != nil && o.former.Changed {
		fmt.Fprintln(to, "note: --via is called --reach here now: --via is the way to a sensor")
	}
}

// flagGroup is a part of a command's flags under a heading of its own.
type flagGroup struct {
	title string
	flags []string // names, in the order in which help lists them
}

// groupFlags has the command's help list its flags in groups, as far as they are in
// any, as docker compose and gh do for many.
func groupFlags(cmd *cobra.Command, groups []flagGroup) {
	cmd.SetUsageFunc(func(c *cobra.Command) error {
		var b strings.Builder
		fmt.Fprintf(&b, "Usage:\n  %s\n", c.UseLine())
		if c.HasExample() {
			fmt.Fprintf(&b, "\nExamples:\n%s\n", c.Example)
		}
		for _, g := range append(groups, rest(c.LocalFlags(), groups)) {
			flagSection(&b, g.title, pick(c.LocalFlags(), g.flags))
		}
		flagSection(&b, "Global flags", c.InheritedFlags())
		_, err := fmt.Fprint(c.OutOrStderr(), b.String())
		return err
	})
}

// flagSection writes the usage of flags under a title, if there are any.
func flagSection(b *strings.Builder, title string, flags *pflag.FlagSet) {
	if flags.HasAvailableFlags() {
		fmt.Fprintf(b, "\n%s:\n%s\n", title, strings.TrimRight(flags.FlagUsages(), " \n"))
	}
}

// pick takes flags by their names.
func pick(from *pflag.FlagSet, names []string) *pflag.FlagSet {
	some := pflag.NewFlagSet("", pflag.ContinueOnError)
	some.SortFlags = false
	for _, name := range names {
		if f := from.Lookup(name); f != nil {
			some.AddFlag(f)
		}
	}
	return some
}

// rest is the group of those that are in none.
func rest(all *pflag.FlagSet, groups []flagGroup) flagGroup {
	known := map[string]bool{}
	for _, g := range groups {
		for _, name := range g.flags {
			known[name] = true
		}
	}
	other := flagGroup{title: "Other"}
	all.VisitAll(func(f *pflag.Flag) {
		if !known[f.Name] {
			other.flags = append(other.flags, f.Name)
		}
	})
	return other
}
