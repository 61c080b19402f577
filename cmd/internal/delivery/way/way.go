// Package way is how a run gets to its receiver.
//
// A sensor of the stack is reached direct (its container's own address, past
// docker-proxy), by sidecar (from inside its network namespace) or by the
// published port. [Probe] finds out which of these work, [Choose] takes the best
// one that was allowed, which is pure, and [Request.Open] starts it: it is then
// that a sidecar is made. Any other monitor is named by --to ([ParseTo]).
package way

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/sidecar"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Kind is a way, as --via names it and reports show it.
type Kind string

// The ways.
const (
	Auto      Kind = "auto"      // direct where that arrives, else by sidecar, else published
	Published Kind = "published" // the port that the engine publishes on this machine: past docker-proxy
	Direct    Kind = "direct"    // the container's own address; by sidecar where that is not reached
	Sidecar   Kind = "sidecar"   // from inside the sensor's network namespace
	To        Kind = "to"        // no sensor of the stack: what --to names
	File      Kind = "file"      // nowhere: into a capture
)

// ParseKind reads the value of --via.
func ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case Auto, Published, Direct, Sidecar:
		return k, nil
	}
	return "", fmt.Errorf("--via %q: want published, direct, sidecar or auto", s)
}

// Phrase is the way in a sentence: "by sidecar".
func (k Kind) Phrase() string {
	switch k {
	case Sidecar:
		return "by sidecar"
	case Published:
		return "by the published port"
	}
	return string(k)
}

// UsageError is a mistake in what was asked for that shows only once the engine,
// the sensor or the files were asked.
type UsageError struct{ Err error }

// Error implements error.
func (u *UsageError) Error() string { return u.Err.Error() }

// Unwrap returns the mistake.
func (u *UsageError) Unwrap() error { return u.Err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Request is what was asked for.
type Request struct {
	Kind   Kind
	Tx     transmit.Mode
	Binary string // of this program, for the engine's platform; empty for the running one
	// Patience is how long a sensor that has just been started may take until
	// it can be tried whether it is reached directly.
	Patience time.Duration
}

// Probed is what was found out: why a way cannot be gone, nil where it can or
// where that need not be known.
type Probed struct {
	Direct  error
	Sidecar error
}

// Choice is a way and why it is not a better one.
type Choice struct {
	Kind    Kind
	Reasons []string
}

// Announcement tells why the way is not a better one; empty if there is none.
func (c Choice) Announcement() string {
	if len(c.Reasons) == 0 {
		return ""
	}
	return fmt.Sprintf("Going %s: %s", c.Kind.Phrase(), strings.Join(c.Reasons, "; "))
}

// Address is where a sensor is on this way; not valid if it is not there.
func (c Choice) Address(s orchestrate.Sensor) netip.AddrPort {
	switch c.Kind {
	case Direct:
		return s.Direct
	case Sidecar:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.Service.Port)
	}
	return s.Published
}

// Choose takes the best way that was allowed and works. Where what was asked for
// is not to be had, it says why.
func Choose(wanted Kind, p Probed) (Choice, error) {
	if wanted == Published {
		return Choice{Kind: Published}, nil
	}
	var reasons []string
	if wanted != Sidecar {
		if p.Direct == nil {
			return Choice{Kind: Direct}, nil
		}
		reasons = append(reasons, "not direct: "+p.Direct.Error())
	}
	switch {
	case p.Sidecar == nil:
		return Choice{Sidecar, reasons}, nil
	case wanted == Auto:
		return Choice{Published, append(reasons, "not by sidecar: "+p.Sidecar.Error())}, nil
	case len(reasons) > 0:
		return Choice{}, fmt.Errorf("%s; %w", strings.Join(reasons, "; "), p.Sidecar)
	}
	return Choice{}, p.Sidecar
}

// Opened is a way that has been started.
type Opened struct {
	Choice
	request Request
	// Streams are those of the sidecar that was started; nil without one.
	Streams *orchestrate.SidecarStreams
}

// Open probes, chooses and starts the way to a sensor. A sidecar that cannot be
// started counts as a way that does not work.
func (r Request) Open(ctx context.Context, e orchestrate.Engine, s orchestrate.Sensor) (Opened, error) {
	probed := r.Probe(ctx, e, s)
	for {
		choice, err := Choose(r.Kind, probed)
		if err != nil {
			return Opened{}, r.unreached(s, err)
		}
		o := Opened{Choice: choice, request: r}
		if choice.Kind != Sidecar {
			return o, nil
		}
		streams, err := r.startSidecar(ctx, e, s)
		if err == nil {
			o.Streams = &streams
			return o, nil
		}
		if ctx.Err() != nil {
			return Opened{}, err
		}
		probed.Sidecar = err
	}
}

// unreached names the sensor where it was tried to reach it directly.
func (r Request) unreached(s orchestrate.Sensor, err error) error {
	if r.Kind == Sidecar {
		return err
	}
	return fmt.Errorf("reach sensor %s: %w", s.Service.Name, err)
}

// Straight is the way to a sensor's own address, without asking.
func Straight() Opened { return Opened{Choice: Choice{Kind: Direct}} }

// Probe finds out what Choose has to know, and changes nothing. What it does not
// have to know it does not ask.
func (r Request) Probe(ctx context.Context, e orchestrate.Engine, s orchestrate.Sensor) (p Probed) {
	if r.Kind == Direct || r.Kind == Auto {
		if p.Direct = s.AwaitReach(ctx, e, r.Patience); p.Direct == nil {
			return p
		}
	}
	if r.Kind != Published {
		_, _, p.Sidecar = r.program(ctx, e)
	}
	return p
}

// program is what a sidecar would run, or why there can be none.
func (r Request) program(ctx context.Context, e orchestrate.Engine) (orchestrate.CompanionEngine, string, error) {
	if r.Tx == transmit.Packet {
		return nil, "", errors.New("run a sidecar: it has no capability for --tx packet")
	}
	engine, ok := e.(orchestrate.CompanionEngine)
	if !ok {
		return nil, "", errors.New("run a sidecar: this engine cannot")
	}
	info, err := e.Info(ctx)
	if err != nil {
		return nil, "", err
	}
	self, err := orchestrate.RunningProgram()
	if err != nil {
		return nil, "", err
	}
	program, err := orchestrate.SidecarBinary(info, runtime.GOOS, runtime.GOARCH, self, r.Binary)
	return engine, program, err
}

// startSidecar starts this program beside the sensor, or says why it cannot.
func (r Request) startSidecar(ctx context.Context, e orchestrate.Engine, s orchestrate.Sensor) (orchestrate.SidecarStreams, error) {
	engine, program, err := r.program(ctx, e)
	if err != nil {
		return orchestrate.SidecarStreams{}, err
	}
	return orchestrate.StartSidecar(ctx, engine, s, program, sidecar.Command)
}

// Client is this process's end of the sidecar on the way: of the one that was
// started, or of another one beside s once that has been used.
func (o *Opened) Client(ctx context.Context, e orchestrate.Engine, s orchestrate.Sensor) (*sidecar.Client, error) {
	streams := o.Streams
	o.Streams = nil
	if streams == nil {
		fresh, err := o.request.startSidecar(ctx, e, s)
		if err != nil {
			return nil, err
		}
		streams = &fresh
	}
	return sidecar.NewClient(e, o.Address(s), *streams), nil
}

// Discard ends a sidecar that was started and not used.
func (o *Opened) Discard(e orchestrate.Engine) {
	if o.Streams == nil {
		return
	}
	sidecar.NewClient(e, netip.AddrPort{}, *o.Streams).Close()
	o.Streams = nil
}
