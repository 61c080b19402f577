package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// The ways to a sensor of the stack, as --via names them and reports show them.
const (
	viaAuto      = "auto"      // direct where that arrives, else by sidecar, else published
	viaPublished = "published" // the port that the engine publishes on this machine: past docker-proxy
	viaDirect    = "direct"    // the container's own address
	viaSidecar   = "sidecar"   // from inside the sensor's network namespace
	viaTo        = "to"        // no sensor of the stack: what --to names
)

// viaOptions say by which way a sensor is reached.
type viaOptions struct {
	via    string
	direct bool
	binary string
	// patience is how long a sensor that has just been started may take until
	// it can be tried whether it is reached directly.
	patience time.Duration
}

func (o *viaOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.via, "via", viaAuto, `way to the sensor: direct (its container's own address), sidecar (from a
container beside it), published (the published port, through docker-proxy) or
auto (the first of these that works)`)
	f.BoolVar(&o.direct, "direct", false, "the same as --via direct; by sidecar where the container's address cannot be reached from here")
	f.StringVar(&o.binary, "sidecar-binary", "", "this program built for the engine's platform, where that is not this machine's")
}

// given reports whether a way was asked for.
func (o viaOptions) given() bool { return o.direct || o.via != viaAuto }

// wanted is the way that was asked for.
func (o viaOptions) wanted() string {
	if o.direct {
		return viaDirect
	}
	return o.via
}

// validate looks at the flags alone; mode is the transmission asked for.
func (o viaOptions) validate(mode transmit.Mode) error {
	switch o.via {
	case viaAuto, viaPublished, viaDirect, viaSidecar:
	default:
		return usagef("--via %q: want published, direct, sidecar or auto", o.via)
	}
	switch {
	case o.direct && o.via != viaAuto && o.via != viaDirect:
		return usagef("--direct and --via %s exclude each other", o.via)
	case o.via == viaSidecar && mode == transmit.Packet:
		return usagef("--via sidecar and --tx packet exclude each other: a sidecar has no capability")
	}
	return nil
}

// chosenWay is how a sensor will be reached.
type chosenWay struct {
	via     string
	reasons []string // why not by a better one
	sidecar orchestrate.SidecarStreams
}

// address is where the sensor is on this way; not valid if it is not there.
func (w chosenWay) address(sensor orchestrate.Sensor) netip.AddrPort {
	switch w.via {
	case viaDirect:
		return sensor.Direct
	case viaSidecar:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), sensor.Service.Port)
	}
	return sensor.Published
}

// announce tells why the way is not a better one.
func (w chosenWay) announce(to io.Writer) {
	if len(w.reasons) > 0 {
		fmt.Fprintf(to, "Going %s: %s\n", viaWords[w.via], strings.Join(w.reasons, "; "))
	}
}

// viaWords are the ways in a sentence.
var viaWords = map[string]string{viaDirect: "direct", viaSidecar: "by sidecar", viaPublished: "by the published port"}

// choose takes the best way that was allowed and works, for the transmission
// asked for. A sidecar has been started when it is the one.
func (o viaOptions) choose(ctx context.Context, e orchestrate.Engine, sensor orchestrate.Sensor, mode transmit.Mode) (w chosenWay, err error) {
	wanted := o.wanted()
	if wanted == viaDirect || wanted == viaAuto {
		err := sensor.AwaitReach(ctx, e, o.patience)
		if err == nil {
			return chosenWay{via: viaDirect}, nil
		}
		w.reasons = append(w.reasons, "not direct: "+err.Error())
	}
	if wanted != viaPublished {
		w.sidecar, err = o.startSidecar(ctx, e, sensor, mode)
		if err == nil {
			w.via = viaSidecar
			return w, nil
		}
		if wanted == viaAuto && ctx.Err() == nil {
			w.reasons = append(w.reasons, "not by sidecar: "+err.Error())
			w.via = viaPublished
			return w, nil
		}
		if len(w.reasons) > 0 { // --direct
			err = fmt.Errorf("reach sensor %s: %s; %w", sensor.Service.Name, strings.Join(w.reasons, "; "), err)
		}
		return w, err
	}
	w.via = viaPublished
	return w, nil
}

// startSidecar starts this program beside the sensor, or says why it cannot.
func (o viaOptions) startSidecar(ctx context.Context, e orchestrate.Engine, sensor orchestrate.Sensor, mode transmit.Mode) (orchestrate.SidecarStreams, error) {
	var none orchestrate.SidecarStreams
	if mode == transmit.Packet {
		return none, errors.New("run a sidecar: it has no capability for --tx packet")
	}
	engine, ok := e.(orchestrate.SidecarEngine)
	if !ok {
		return none, errors.New("run a sidecar: this engine cannot")
	}
	info, err := e.Info(ctx)
	if err != nil {
		return none, err
	}
	self, err := orchestrate.RunningProgram()
	if err != nil {
		return none, err
	}
	program, err := orchestrate.SidecarBinary(info, runtime.GOOS, runtime.GOARCH, self, o.binary)
	if err != nil {
		return none, err
	}
	return orchestrate.StartSidecar(ctx, engine, sensor, program, sidecarCommand)
}
