// Package delivery is where orchestrate and forward meet: it takes frames to a
// sensor, and says what became of them.
//
// [Replay] plays captures, package mirror what passes live interfaces, package
// verify a capture whose logs are then compared with those of Zeek reading it
// offline. They share how a sensor is reached (package way), what is seen of it
// meanwhile (package watch) and the two ends of a sidecar (package sidecar).
//
// What happens on the way is told to an [Observer]; what it came to is a
// [Document] with a [Verdict]. Nothing here prints.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

// What the packages below share with their callers.
type (
	// Account is the ledger of a run and how it was held back.
	Account = watch.Account
	// Delivered is what is known of whether what was sent was taken.
	Delivered = watch.Delivered
	// LossError says that a run came to its end and that packets were lost.
	LossError = watch.LossError
	// UsageError is a mistake in what was asked for that shows only later.
	UsageError = way.UsageError
)

// ErrInterrupted says that a run was ended before its end.
var ErrInterrupted = errors.New("interrupted")

// Verdict is what a run came to.
type Verdict string

// The verdicts.
const (
	Complete    Verdict = "complete"
	Incomplete  Verdict = "incomplete" // it ran, and the evidence shows loss
	Failed      Verdict = "failed"
	Interrupted Verdict = "interrupted"
)

// VerdictOf is the verdict that the result of a run amounts to.
func VerdictOf(result error) Verdict {
	var loss *LossError
	switch {
	case result == nil:
		return Complete
	case errors.As(result, &loss):
		return Incomplete
	case errors.Is(result, ErrInterrupted):
		return Interrupted
	}
	return Failed
}

// Known is what is known of a run's packets: that they were taken, that some were
// lost, or no more than that they were sent. Counters of the receiver's know better
// than what was said on the way. The account and what the kernel did may be nil.
func Known(result error, kernel *transmit.Stats, account *Account) Delivered {
	var loss *LossError
	counted := account != nil && account.Ledger != nil
	switch {
	case errors.As(result, &loss), !counted && kernel != nil && len(kernel.Lost()) > 0:
		return watch.SomeLost
	case account == nil:
		return watch.OnlySent
	}
	return account.Delivery()
}

// Observer is told what happens while something is delivered. Its methods may be
// called from several goroutines.
type Observer interface {
	// Say tells news in a line.
	Say(line string)
	// Meter shows how far a replay is, until end is called.
	Meter(read func() Reading) (end func())
	// Flows shows what passes several interfaces, until end is called.
	Flows(read func() []Flow) (end func())
	// Step shows how far one of several things is.
	Step(s Step)
}

// Reading is how far a replay has come.
type Reading struct {
	Packets     uint64
	Bytes       uint64 // of the packets
	Elapsed     time.Duration
	Mean        float64 // packets per second
	Done, Total int64   // bytes of the input; Total 0 where it is not known
}

// Flow is what has passed one interface so far.
type Flow struct {
	Name    string
	Packets uint64
	Bytes   uint64
	Dropped uint64 // packets
}

// Step is how far one thing is.
type Step struct {
	ID          string // which
	Text        string // what happens to it
	Detail      string
	State       StepState
	Done, Total int64 // bytes
}

// StepState is how a step stands.
type StepState int

// The states.
const (
	Working StepState = iota
	Succeeded
	Unsuccessful
)

// LostFrames counts the frames that did not pass though they hold a packet. A
// beacon or a PPP negotiation holds none: leaving it out is no loss.
func LostFrames(rep forward.Report) uint64 {
	var n uint64
	for _, refused := range rep.Refused {
		if refused.Reason != forward.SkippedNoPacket.String() {
			n += refused.Frames
		}
	}
	return n + rep.DatagramsUnsent
}

// judge is nil where every frame that carries a packet has passed and nothing is
// known to the contrary.
func judge(ctx context.Context, to fmt.Stringer, s Sent, runErr error) error {
	switch lost := LostFrames(s.Report); {
	case ctx.Err() != nil:
		return fmt.Errorf("%w after %s packets", ErrInterrupted, units.Count(s.Report.DatagramsSent))
	case runErr != nil:
		return runErr
	case lost > 0:
		return watch.Lossf("%s of %s frames could not pass", units.Count(lost), units.Count(s.Report.FramesRead))
	}
	return Arrival(to, s.Kernel, s.Account)
}

// Arrival is nil unless something contradicts that what was sent to an address has
// arrived. The receiver's own counters go before what was heard on the way; both
// may be nil.
func Arrival(to fmt.Stringer, kernel *transmit.Stats, account *Account) error {
	if account != nil && account.Ledger != nil {
		return account.Result()
	}
	if kernel == nil || len(kernel.Lost()) == 0 {
		return nil
	}
	var said []string
	for _, t := range kernel.Lost() {
		said = append(said, t.String())
	}
	return watch.Lossf("packets to %s did not arrive: %s", to, strings.Join(said, "; "))
}
