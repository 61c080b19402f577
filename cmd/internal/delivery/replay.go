package delivery

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/preload"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

// Replay is what is to be played and how. Open makes a [Run] of it.
type Replay struct {
	Captures *Captures
	Config   encap.Config // its VNI is the run
	Pace     pace.Spec
	CPU      transmit.CPU
	Tx       transmit.Mode
	Outer    Outer
	Lossless watch.Mode
	Waiting  watch.Waiting // for a sensor that takes nothing
	Limit    uint64        // frames; 0 for all
	Duration time.Duration // 0 for ever
	Observer Observer

	preloaded *preload.Source // plays in place of Captures; nil without Preload
}

// Outer is what may be asked of the outer headers. Its zero value leaves them as they
// are: a file's have the don't-fragment bit, what is sent has not.
type Outer struct {
	transmit.Outer
	MayFragment bool // no don't-fragment bit in a file either
}

// Receiver is where a replay goes: a [File], a [Monitor] or a [Sensor].
type Receiver interface {
	open(ctx context.Context, r *Replay) (sender, error)
}

// sender is an open way out.
type sender interface {
	// target is where it leads.
	target() way.Target
	// destination is the same for documents: an address and port, or a file.
	destination() string
	// send sends all that r plays. Started is called once when it begins, with
	// what tells how far it is, and returns what is to be called at the end.
	send(ctx context.Context, r *Replay, started started) (Sent, error)
	// close releases what a run that has not sent holds; it may be called twice.
	close()
}

// started is told where datagrams begin to go, and how it is read how far they are.
type started func(to string, snapshot func() forward.Report) (over func())

// Sent is what became of a run on its way.
type Sent struct {
	Report       forward.Report
	Transmission *transmit.Description // nil for a file
	Kernel       *transmit.Stats       // nil for a file
	Account      *Account              // nil for a file
}

// Run is a replay whose way is open.
type Run struct {
	*Replay
	sender sender
	begun  time.Time
}

// Open opens the way. Close must be called.
func (r *Replay) Open(ctx context.Context, to Receiver) (*Run, error) {
	if r.Observer == nil {
		r.Observer = nobody{}
	}
	s, err := to.open(ctx, r)
	if err != nil {
		return nil, err
	}
	return &Run{Replay: r, sender: s, begun: time.Now()}, nil
}

// Close releases what the run holds.
func (r *Run) Close() { r.sender.close() }

// Send plays and returns what it came to. The document is nil where the run has
// not begun; otherwise it is right whatever the error, which is then the one that
// the verdict stands for.
func (r *Run) Send(ctx context.Context) (*Document, error) {
	begun := false
	sent, err := r.sender.send(ctx, r.Replay, func(to string, snapshot func() forward.Report) func() {
		begun = true
		r.announce(to)
		return r.Observer.Meter(r.reading(snapshot))
	})
	if !begun && err != nil && sent.Transmission == nil {
		return nil, err
	}
	sent.Report.Damages = r.Captures.damages()
	target := r.sender.target()
	result := r.Captures.withDamage(judge(ctx, target.Address, sent, err))
	doc := r.document(target, sent, result)
	return &doc, result
}

// announce says what is about to happen, for a run may take hours.
func (r *Run) announce(to string) {
	r.Observer.Say(fmt.Sprintf("Run %d: %s to %s", r.Config.VNI, r.Captures.Title(), to))
}

// describe names a transmission, for example
//
//	vxlan 172.18.0.2:4789 by packet on veth1
func describe(kind encap.Kind, t way.Target, d transmit.Description) string {
	d.Reasons = nil // the report has them
	return fmt.Sprintf("%s %s by %s", kind, t.Address, d)
}

// reading turns snapshots into what a meter shows.
func (r *Run) reading(snapshot func() forward.Report) func() Reading {
	return func() Reading {
		rep := snapshot()
		reading := Reading{Packets: rep.DatagramsSent, Bytes: rep.InnerBytes, Mean: rep.DatagramsPerSecond,
			Elapsed: time.Duration(rep.ElapsedSeconds * float64(time.Second))}
		reading.Done, reading.Total = r.Captures.Progress()
		if r.preloaded != nil {
			reading.Done, reading.Total = r.preloaded.Progress()
		}
		return reading
	}
}

// document is the report of a run.
func (r *Run) document(t way.Target, s Sent, result error) Document {
	doc := Document{Run: r.Config.VNI, RunPerLoop: r.Config.VNIPerLoop, Files: r.Captures.Names, Encapsulation: r.Config.Kind.String(),
		Destination: r.sender.destination(), Via: t.Kind, ViaReason: strings.Join(t.Reasons, "; "), Transmission: s.Transmission, Kernel: s.Kernel,
		Report: s.Report, Lossless: s.Account, Verdict: VerdictOf(result)}
	if len(doc.Files) == 0 {
		doc.Files = []string{sampleName}
	}
	if result != nil {
		doc.Error = result.Error()
	}
	if t.Kind != way.File {
		doc.Delivery = Known(result, s.Kernel, s.Account)
	}
	doc.GrafanaURL = Link(t.Grafana, r.Config, s.Report)
	return doc
}

// nobody is an Observer that does not care.
type nobody struct{}

func (nobody) Say(string)                  {}
func (nobody) Meter(func() Reading) func() { return func() {} }
func (nobody) Flows(func() []Flow) func()  { return func() {} }
func (nobody) Step(Step)                   {}
