package cli

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/filter"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

type replayOptions struct {
	files []string
	out   outOptions
	encap encapOptions
	pace  paceOptions

	filter      string
	limit       uint64
	loop        int
	duration    time.Duration
	uniqueFlows bool
	slice       string
	lossless    string
	json        bool
}

// outOptions say where datagrams go.
type outOptions struct {
	to    string
	via   viaOptions
	write string
	tx    string
	cpu   string
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
	given       func(flag string) bool // whether a flag was on the command line
}

// paceOptions say when datagrams leave.
type paceOptions struct {
	pace  string
	speed string
	pps   float64
	rate  string
	delay time.Duration
	given func(flag string) bool
}

func newReplay(app *App) *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay [FILE...]",
		Short: "Replay captures into Zeek, or into any monitor, through a tunnel",
		Long: `Replay captures, encapsulated in VXLAN or GENEVE, into the stack's sensor, or
with --to into any monitor: that needs no engine. Without a file the embedded
sample is replayed.

FILE is a pcap or pcapng capture, plain or compressed with gzip or zstd; "-" is
standard input. Every link type that carries network packets is normalised to
Ethernet. The order of the capture is kept, always.

There are three ways to the stack's sensor. Direct: to its container's own
address, past docker-proxy; whether that arrives is tried, not guessed. By
sidecar: this program, copied into a container that joins the sensor's network
namespace, sends over its loopback; that works wherever the engine is, needs no
image but the sensor's and no privilege, and leaves nothing behind. Published: to
the port that the engine publishes on this machine. Without --via it is the
first of these that works, and the report says why not a better one.

Each run has a fresh VNI, by which its connections are found in Zeek's logs.`,
		Example: `  zeekdemo replay                                  the sample, as it was recorded
  zeekdemo replay big.pcap --pace max              as fast as the sensor takes it
  zeekdemo replay big.pcap --via published         through docker-proxy, as other tools do
  zeekdemo replay a.pcapng.gz --encap geneve --filter 'tcp port 80'
  zeekdemo replay big.pcap --to 192.0.2.7 --pps 10000
  zeekdemo replay big.pcap -w encapsulated.pcap    into a file instead`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.files = args
			return runReplay(cmd.Context(), app, o)
		},
	}
	f := cmd.Flags()
	o.encap.given, o.pace.given = f.Changed, f.Changed
	o.out.flags(f)
	o.encap.flags(f)
	o.pace.flags(f)
	f.StringVar(&o.filter, "filter", "", "send only frames that match this pcap-filter(7) expression (needs tcpdump)")
	f.Uint64Var(&o.limit, "limit", 0, "stop after this many frames")
	f.IntVar(&o.loop, "loop", 1, "replay this many times; 0 for ever")
	f.DurationVar(&o.duration, "duration", 0, "stop after this time")
	f.BoolVar(&o.uniqueFlows, "unique-flows", false, "give each loop its own VNI, so that loops do not merge into the same connections")
	f.StringVar(&o.slice, "slice", "", "run in this systemd slice, e.g. system.slice (needs systemd-run)")
	f.StringVar(&o.lossless, "lossless", string(losslessAuto), "wait rather than overrun the sensor: auto (where its queue can be seen), require or off")
	f.BoolVar(&o.json, "json", false, "print the report as one JSON document")
	return cmd
}

func (o *outOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.to, "to", "", "send to HOST[:PORT] instead of the stack; needs no engine")
	o.via.flags(f)
	f.StringVarP(&o.write, "write", "w", "", "write the encapsulated packets to this pcap file instead of sending them")
	f.StringVar(&o.tx, "tx", "auto", "transmission: packet (packet socket, needs CAP_NET_RAW), udp (no privilege) or auto")
	f.StringVar(&o.cpu, "cpu", "auto", "pin the sender to this CPU: a number, auto or off")
}

func (o *encapOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.kind, "encap", "vxlan", "encapsulation: vxlan or geneve")
	f.StringVar(&o.preset, "as", "", "encapsulate as a cloud's mirror does: "+strings.Join(encap.Presets(), ", "))
	f.Int64Var(&o.vni, "vni", -1, "VNI of the run, 0 to 16777215 (default a fresh one)")
	f.Lookup("vni").DefValue = "0" // what help takes for "no default to show"
	f.Uint16Var(&o.port, "port", 0, "destination port (default 4789 for vxlan, 6081 for geneve)")
	f.StringVar(&o.ports, "source-port-range", "", "MIN-MAX of the source ports, chosen by a symmetric hash of the inner flow (default 49152-65535)")
	f.StringArrayVar(&o.options, "geneve-option", nil, "add a GENEVE option, as CLASS:TYPE:HEX, e.g. 0108:01:0000000000000001 (repeatable)")
	f.IntVar(&o.mtu, "mtu", encap.DefaultMTU, "size of the IP packets into which TCP super-frames that cannot pass are re-segmented")
	f.IntVar(&o.maxDatagram, "max-datagram", 0, "longest UDP payload that the receiver takes, in bytes (default what UDP allows)")
	f.BoolVar(&o.padCut, "pad-cut", false, "fill frames that the capture cut with zeros to their recorded length")
}

func (o *paceOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.pace, "pace", "recorded", "recorded (as captured) or max (as fast as it goes)")
	f.StringVar(&o.speed, "speed", "1x", "scale the recorded pace, e.g. 2x or 0.5x")
	f.Float64Var(&o.pps, "pps", 0, "a fixed rate in packets per second")
	f.StringVar(&o.rate, "rate", "", "a fixed rate in bits of frames per second, e.g. 500mbit")
	f.DurationVar(&o.delay, "delay", 0, "a fixed pause between packets, e.g. 1ms")
}

// pacer checks that the flags name one pace, and makes it.
func (o paceOptions) pacer() (forward.Pacer, error) {
	var chosen []string
	for _, flag := range []string{"pace", "pps", "rate", "delay"} {
		if o.given(flag) {
			chosen = append(chosen, "--"+flag)
		}
	}
	switch {
	case len(chosen) > 1:
		return nil, fmt.Errorf("%s: they exclude each other", strings.Join(chosen, " and "))
	case o.given("speed") && (o.pace != "recorded" || len(chosen) == 1 && chosen[0] != "--pace"):
		return nil, errors.New("--speed scales the recorded pace; it does not go with another one")
	case o.given("pps"):
		return pace.PPS(o.pps)
	case o.given("delay"):
		return pace.Delay(o.delay)
	case o.given("rate"):
		bits, err := pace.ParseRate(o.rate)
		if err != nil {
			return nil, err
		}
		return pace.Rate(bits)
	case o.pace == "max":
		return pace.Max(), nil
	case o.pace != "recorded":
		return nil, fmt.Errorf("--pace %q: want recorded or max (or --pps, --rate, --delay)", o.pace)
	}
	speed, err := pace.ParseSpeed(o.speed)
	if err != nil {
		return nil, err
	}
	return pace.Recorded(speed)
}

// config turns flags into an encapsulation. A preset sets all of it; flags that
// were given go before the preset.
func (o encapOptions) config(uniqueFlows bool) (encap.Config, error) {
	var c encap.Config
	if o.preset != "" {
		var err error
		if c, err = encap.Preset(o.preset); err != nil {
			return c, err
		}
	}
	if o.preset == "" || o.given("encap") {
		kind, err := encap.ParseKind(o.kind)
		if err != nil {
			return c, err
		}
		if o.preset != "" && kind != c.Kind {
			return c, fmt.Errorf("--encap %s: --as %s is %v", kind, o.preset, c.Kind)
		}
		c.Kind = kind
	}
	if err := o.geneveOptions(&c); err != nil {
		return c, err
	}
	if o.port != 0 {
		c.Port = o.port
	}
	c.MTU, c.MaxDatagram, c.PadCut, c.VNIPerLoop = o.mtu, o.maxDatagram, o.padCut, uniqueFlows
	return c, o.numbers(&c)
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
	default:
		c.VNI = freshVNI()
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

// freshVNI draws the id of a run: seven or eight digits, so that it does not
// look like one that a person chose.
func freshVNI() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	const low = 1_000_000
	return low + binary.BigEndian.Uint32(b[:])%(encap.MaxVNI-low)
}

// replay is a run made ready: everything that can be wrong with the command
// line, the captures and the destination has been looked at.
type replay struct {
	app    *App
	o      replayOptions
	config encap.Config
	pacer  forward.Pacer
	cpu    transmit.CPU
	mode   transmit.Mode
	// lossless says whether the receiver holds the run back.
	lossless losslessMode
	target   target
	source   forward.Source
	sizes    forward.Progress
	sink     forward.Sink
	tx       transmit.Transmitter // nil when a file is written
	// sidecar sends in place of this process; nil where none does.
	sidecar *sidecar
	// stopSource ends a wait for standard input or a pipe.
	stopSource func()
	// account is what is known of the receiver; nil when a file is written.
	account *losslessDocument
	// done is the report, once the run is over.
	done *replayDocument
	// cleanup removes what the run put on disk for itself.
	cleanup func()
}

// validate looks at the flags alone.
func (o *replayOptions) validate() (*replay, error) {
	r := &replay{cleanup: func() {}, stopSource: func() {}}
	var err error
	if r.config, err = o.encap.config(o.uniqueFlows); err != nil {
		return nil, usageError{err}
	}
	if _, err := encap.New(r.config); err != nil {
		return nil, usageError{err}
	}
	if r.pacer, err = o.pace.pacer(); err != nil {
		return nil, usageError{err}
	}
	if r.cpu, err = transmit.ParseCPU(o.out.cpu); err != nil {
		return nil, usageError{err}
	}
	if r.mode, err = transmit.ParseMode(o.out.tx); err != nil {
		return nil, usageError{err}
	}
	if r.lossless, err = parseLossless(o.lossless); err != nil {
		return nil, usageError{err}
	}
	if err := o.out.via.validate(r.mode); err != nil {
		return nil, err
	}
	switch {
	case o.out.write != "" && r.lossless == losslessRequire:
		return nil, usagef("--write and --lossless require exclude each other")
	case o.out.to != "" && o.out.via.given():
		return nil, usagef("--to and --via (or --direct) exclude each other")
	case o.out.write != "" && o.out.via.given():
		return nil, usagef("--write and --via (or --direct) exclude each other")
	case o.out.write == "-" && o.json:
		return nil, usagef("--write - and --json both want standard output")
	case o.loop < 0:
		return nil, usagef("--loop %d: want a number of times, or 0 for ever", o.loop)
	case o.duration < 0:
		return nil, usagef("--duration %s: want a time above zero", o.duration)
	}
	r.o = *o
	return r, nil
}

func runReplay(ctx context.Context, app *App, o replayOptions) error {
	r, err := o.validate()
	if err != nil {
		return err
	}
	if o.slice != "" && app.Getenv(inSlice) == "" {
		return app.reexecInSlice(o.slice)
	}
	r.app = app
	defer func() { r.cleanup() }()
	if err := r.openSource(ctx); err != nil {
		return err
	}
	defer r.source.Close()
	if err := r.openSink(ctx); err != nil {
		return err
	}
	defer r.mark(ctx)()
	return r.run(ctx)
}

// openSource opens the captures, or the sample, and the filter before them.
func (r *replay) openSource(ctx context.Context) error {
	names := r.o.files
	if len(names) == 0 {
		name, remove, err := sampleFile()
		if err != nil {
			return err
		}
		r.cleanup, names = remove, []string{name}
	}
	loop := r.o.loop
	if loop == 0 {
		loop = -1
	}
	waiting, stop := context.WithCancel(ctx)
	r.stopSource = stop
	r.atEnd(stop)
	files, err := pcapfile.OpenAll(names, pcapfile.Options{Loop: loop, Stdin: r.app.In, Stop: waiting.Done()})
	if err != nil {
		return err
	}
	r.source, r.sizes = files, files
	if err := refuseLinkTypes(files.LinkTypes(), names); err != nil {
		return errors.Join(err, files.Close())
	}
	if r.o.filter != "" {
		filtered, err := filter.Source(ctx, files, r.o.filter)
		if err != nil {
			return errors.Join(err, files.Close())
		}
		r.source = filtered
	}
	return nil
}

// refuseLinkTypes fails where nothing of a capture could pass, before anything
// is sent. Where some of it can, the rest is counted in the report.
func refuseLinkTypes(links []forward.LinkType, names []string) error {
	for _, lt := range links {
		if encap.Supported(lt) {
			return nil
		}
	}
	if len(links) == 0 {
		return nil // a pcapng without interfaces has no frames either
	}
	return fmt.Errorf("replay %s: link type %s carries no network packets that Ethernet could carry", strings.Join(names, ", "), encap.LinkTypeName(links[0]))
}

// sampleFile puts the embedded sample where it can be opened more than once,
// and returns what removes it again.
func sampleFile() (name string, remove func(), err error) {
	f, err := os.CreateTemp("", "zeekdemo-*-"+samples.Name)
	if err != nil {
		return "", nil, fmt.Errorf("unpack the sample: %w", err)
	}
	remove = func() { os.Remove(f.Name()) }
	_, err = f.Write(samples.Sample())
	if err = errors.Join(err, f.Close()); err != nil {
		remove()
		return "", nil, fmt.Errorf("unpack the sample: %w", err)
	}
	return f.Name(), remove, nil
}

// openSink opens the way out: a file, or a transmission to the target.
func (r *replay) openSink(ctx context.Context) (err error) {
	if r.o.out.write != "" {
		r.sink, err = r.openFile(ctx)
		return err
	}
	if r.target, err = r.findTarget(ctx); err != nil {
		return err
	}
	if r.sidecar != nil {
		return nil
	}
	most := transmit.MaxPayload(r.target.Address.Addr())
	if r.config.MaxDatagram == 0 || r.config.MaxDatagram > most {
		r.config.MaxDatagram = most
	}
	r.tx, err = transmit.Open(ctx, transmit.Options{Destination: r.target.Address, Mode: r.mode, Kind: r.config.Kind,
		PortMin: r.config.PortMin, PortMax: r.config.PortMax})
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			err = orchestrate.WithHint(err, "--tx udp needs no privilege; packet sockets need root or CAP_NET_RAW")
		}
		return err
	}
	r.sink = r.tx
	return nil
}

// outerFile are the addresses in a file's outer headers where no destination
// was given: the documentation range of RFC 5737, and locally administered
// hardware addresses.
var outerFile = encap.OuterConfig{
	SrcMAC: [6]byte{2, 0, 0, 0, 0, 1}, DstMAC: [6]byte{2, 0, 0, 0, 0, 2},
	Src: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Dst: netip.AddrFrom4([4]byte{192, 0, 2, 2}),
}

func (r *replay) openFile(ctx context.Context) (forward.Sink, error) {
	outer := outerFile
	outer.Kind, outer.DstPort = r.config.Kind, r.config.DestinationPort()
	if r.o.out.to != "" {
		to, err := resolve(ctx, r.o.out.to, outer.DstPort)
		if err != nil {
			return nil, err
		}
		outer.Dst, outer.DstPort = to.Addr(), to.Port()
		if to.Addr().Is6() {
			outer.Src = netip.MustParseAddr("2001:db8::1") // RFC 3849
		}
	}
	header, err := encap.NewOuter(outer)
	if err != nil {
		return nil, err
	}
	if err := refuseOverwrite(r.o.out.write, r.o.files); err != nil {
		return nil, err
	}
	return pcapfile.Create(r.o.out.write, r.app.Out, header)
}

// refuseOverwrite keeps a capture from being truncated by its own output.
func refuseOverwrite(out string, inputs []string) error {
	target, err := os.Stat(out)
	if err != nil {
		return nil // a new file
	}
	for _, name := range inputs {
		if in, err := os.Stat(name); err == nil && os.SameFile(in, target) {
			return usagef("--write %s: that is the capture to be read", out)
		}
	}
	return nil
}
