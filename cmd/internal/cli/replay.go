package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

type replayOptions struct {
	files []string
	to    toOption
	write string
	via   viaOptions
	send  sendOptions
	encap encapOptions
	pace  paceOptions
	outer outerOptions

	input       inputOptions
	filter      string
	limit       uint64
	loop        int
	duration    time.Duration
	uniqueFlows bool
	preload     bool
	stats       time.Duration
	slice       string
	json        bool
}

func newReplay(app *App) *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay [FILE|FOLDER|tcp://HOST:PORT...]",
		Short: "Replay captures into Zeek, or into any monitor, through a tunnel",
		Long: `Replay captures, encapsulated in VXLAN or GENEVE, into the stack's sensor, or
with --to into any monitor: that needs no engine. Without a file the embedded
sample is replayed.

FILE is a pcap or pcapng capture, plain or compressed with gzip, zstd, xz, bzip2
or lz4; "-" is standard input, a folder the captures in it, tcp://HOST:PORT what
a server there sends (PCAP-over-IP). Link types that hold network packets are
normalised to Ethernet. The order of the capture is kept, always. What follows a
damaged capture is played; the exit code is 1 then.

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
  zeekdemo replay big.pcap -w encapsulated.pcap    into a file instead
  zeekdemo replay tcp://router:57012               what a router or a proxy sends
  zeekdemo replay --listen 57012                   what others bring to 127.0.0.1
  zeekdemo replay --follow growing.pcap            as it is written`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.files = args
			return runReplay(cmd.Context(), app, o)
		},
	}
	o.flags(cmd)
	return cmd
}

func (o *replayOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.input.flags(f)
	o.to.flags(f)
	o.via.flags(f)
	f.StringVarP(&o.write, "write", "w", "", "write the encapsulated packets to this pcap file instead of sending them")
	o.send.flags(f, watch.DefaultPatience)
	o.encap.flags(f)
	o.encap.frameFlags(f)
	o.outer.flags(f)
	o.pace.flags(f, "recorded")
	o.pace.pauseFlags(f)
	filterFlag(f, &o.filter, "send only frames")
	limitFlag(f, &o.limit)
	f.IntVar(&o.loop, "loop", 1, "replay this many times; 0 for ever")
	durationFlag(f, &o.duration)
	f.BoolVar(&o.uniqueFlows, "unique-flows", false, "give each loop its own VNI, so that loops do not merge into the same connections")
	f.BoolVar(&o.preload, "preload", false, "read all of it into memory before the first packet leaves")
	f.DurationVar(&o.stats, "stats", 0, "print a line about the run this often; with --json a JSON line, on standard error")
	f.StringVar(&o.slice, "slice", "", "run in this systemd slice, e.g. system.slice (needs systemd-run)")
	jsonFlag(f, &o.json, "the report")
	groupFlags(cmd, replayGroups())
}

// replayGroups are the flags as help shows them, from where frames come to what is
// printed.
func replayGroups() []flagGroup {
	return []flagGroup{
		{"Input", []string{"sort", "filter", "limit", "loop", "preload", "follow", "listen", "stop-on-error"}},
		{"Pace", []string{"pace", "speed", "pps", "rate", "delay", "max-gap", "fit", "loop-delay", "duration"}},
		{"Frames", []string{"mtu", "resegment", "fix-checksums", "pad-cut", "max-datagram"}},
		{"Tunnel", []string{"encap", "as", "vni", "unique-flows", "port", "source-port-range", "geneve-option", "raw-ip", "ttl", "dscp", "df"}},
		{"Way", []string{"to", "via", "direct", "sidecar-binary", "source", "device", "tx", "lossless", "patience", "cpu", "slice"}},
		{"Output", []string{"write", "stats", "json"}},
	}
}

// replaying is what the flags mean.
type replaying struct {
	delivery.Replay
	way  way.Request
	host *way.Host // nil without --to
}

// parse looks at the flags alone.
func (o *replayOptions) parse() (r replaying, err error) {
	if r.Config, err = o.encap.config(); err != nil {
		return r, err
	}
	r.Config.VNIPerLoop = o.uniqueFlows
	if r.Pace, err = o.pace.spec(); err != nil {
		return r, err
	}
	if r.Outer, err = o.outer.parse(); err != nil {
		return r, err
	}
	sending, err := o.send.parse()
	if err != nil {
		return r, err
	}
	r.CPU, r.Tx, r.Lossless, r.Waiting = sending.cpu, sending.tx, sending.lossless, sending.waiting
	if r.way, err = o.via.request(r.Tx); err != nil {
		return r, err
	}
	if r.host, err = o.to.host(r.Config); err != nil {
		return r, err
	}
	if o.uniqueFlows && r.Config.VNI == 0 {
		return r, usagef("--unique-flows and a VNI of 0 (which --as %s sends) exclude each other; give --vni", o.encap.preset)
	}
	if _, err = pcapfile.ParseOrder(o.input.sort); err != nil {
		return r, usagef("--sort: %w", err)
	}
	r.Limit, r.Duration = o.limit, o.duration
	return r, o.check(r.Lossless)
}

// check looks at what flags want of each other.
func (o *replayOptions) check(lossless watch.Mode) error {
	switch {
	case o.write != "" && lossless == watch.Require:
		return usagef("--write and --lossless require exclude each other")
	case o.to.text != "" && o.via.given():
		return usagef("--to and --via (or --direct) exclude each other")
	case o.write != "" && o.via.given():
		return usagef("--write and --via (or --direct) exclude each other")
	case o.write != "" && o.outer.device != "":
		return usagef("--write and --device exclude each other")
	case o.write == "-" && o.json:
		return usagef("--write - and --json both want standard output")
	case o.loop < 0:
		return usagef("--loop %d: want a number of times, or 0 for ever", o.loop)
	case o.pace.Fit > 0 && o.loop == 0:
		return usagef("--fit and --loop 0 exclude each other: what has no end fits no time")
	case o.pace.Fit > 0 && slices.Contains(o.files, "-"):
		return usagef("--fit reads the captures once before: standard input can be read only once; save it to a file first")
	case o.stats < 0:
		return usagef("--stats %s: want a time above zero", o.stats)
	case o.duration < 0:
		return usagef("--duration %s: want a time above zero", o.duration)
	}
	return nil
}

func runReplay(ctx context.Context, app *App, o replayOptions) error {
	r, err := o.parse()
	if err != nil {
		return err
	}
	if o.slice != "" && app.Getenv(inSlice) == "" {
		return app.reexecInSlice(o.slice)
	}
	r.Observer = o.observer(app)
	if err := o.fit(ctx, app, &r.Replay); err != nil {
		return err
	}
	if r.Captures, err = o.captures(app, o.passes(), r.Observer.Say).Open(ctx, o.files); err != nil {
		return err
	}
	defer r.Captures.Close()
	if o.preload {
		if err := r.Preload(ctx, o.loop); err != nil {
			return err
		}
	}
	switch {
	case o.write != "":
		return o.deliver(ctx, app, &r.Replay, delivery.File{Path: o.write, Stdout: app.Out, To: r.host})
	case r.host != nil:
		return o.deliver(ctx, app, &r.Replay, delivery.Monitor{Host: *r.host})
	}
	return app.withEngine(func(e orchestrate.Engine) error {
		return o.deliver(ctx, app, &r.Replay, delivery.Sensor{Engine: e, Way: r.way})
	})
}

// observer shows how the run goes.
func (o *replayOptions) observer(app *App) delivery.Observer {
	if o.stats > 0 {
		return ui.NewStats(app.Err, app.Terminal, o.stats, o.json)
	}
	return app.observer()
}

// passes is how often the captures are read.
func (o *replayOptions) passes() int {
	if o.preload {
		return 1
	}
	return o.loop
}

// fit looks how long the captures take where they are to take a certain time.
func (o *replayOptions) fit(ctx context.Context, app *App, r *delivery.Replay) error {
	if r.Pace.Fit == 0 {
		return nil
	}
	for _, name := range o.files {
		if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
			return usagef("--fit reads the captures once before: %s can be read only once; save it to a file first", name)
		}
	}
	open, loops := 1, o.loop
	if o.limit > 0 { // they may end within any loop
		open, loops = o.loop, 0
	}
	captures, err := o.captures(app, open, r.Observer.Say).Open(ctx, o.files)
	if err != nil {
		return err
	}
	defer captures.Close()
	r.Observer.Say("Measuring how long it takes.")
	if r.Pace, err = delivery.Fit(ctx, captures, r.Pace, o.limit, loops); err != nil && ctx.Err() == nil {
		return usageError{err}
	}
	return err
}

// inputOptions say how captures are read.
type inputOptions struct {
	sort        string
	follow      bool
	listen      string
	stopOnError bool
}

func (o *inputOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.sort, "sort", "", "order of the captures: name, or time of the first packet (default as given, those in folders by name)")
	f.BoolVar(&o.follow, "follow", false, "read on as the file grows or is replaced, until stopped")
	f.StringVar(&o.listen, "listen", "", "replay the captures that connections bring to this [ADDRESS:]PORT (127.0.0.1 without an address)")
	f.BoolVar(&o.stopOnError, "stop-on-error", false, "end at the first damaged capture instead of playing the next one")
}

// captures say how the captures are opened, to be read loop times.
func (o *replayOptions) captures(app *App, loop int, say func(line string)) delivery.CaptureOptions {
	return delivery.CaptureOptions{Loop: loop, Opening: o.duration, Stdin: app.In, Filter: o.filter, Sort: pcapfile.Order(o.input.sort), StopOnError: o.input.stopOnError,
		Follow: o.input.follow, Listen: o.input.listen, Say: say}
}

// deliver runs the replay and reports.
func (o replayOptions) deliver(ctx context.Context, app *App, r *delivery.Replay, to delivery.Receiver) error {
	run, err := r.Open(ctx, to)
	if err != nil {
		return err
	}
	defer run.Close()
	marked := run.Mark(ctx)
	doc, err := run.Send(ctx)
	if doc != nil {
		err = errors.Join(err, o.report(app, *doc))
	}
	marked(doc)
	return err
}

// inSlice marks a process that runs in the slice already.
const inSlice = "ZEEKDEMO_IN_SLICE"

// reexecInSlice starts this command once more, as a scope of a systemd slice.
func (a *App) reexecInSlice(slice string) error {
	path, err := exec.LookPath("systemd-run")
	if err != nil {
		return orchestrate.WithHint(fmt.Errorf("run in %s: find systemd-run: %w", slice, err), "leave --slice away where systemd does not run")
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("run in %s: %w", slice, err)
	}
	if !strings.HasSuffix(slice, ".slice") || strings.ContainsRune(slice, filepath.Separator) {
		return usagef("--slice %q: want a slice's name, e.g. system.slice", slice)
	}
	args := append([]string{"systemd-run", "--quiet", "--scope", "--slice=" + slice, "--", self}, os.Args[1:]...)
	if err := a.Exec(path, args, append(os.Environ(), inSlice+"=1")); err != nil {
		return fmt.Errorf("run in %s: %w", slice, err)
	}
	return nil
}
