package watch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

// LossError says that a run came to its end and that packets were lost.
type LossError struct{ Err error }

// Error implements error.
func (l *LossError) Error() string { return l.Err.Error() }

// Unwrap returns what was lost.
func (l *LossError) Unwrap() error { return l.Err }

// Lossf makes a LossError.
func Lossf(format string, args ...any) error { return &LossError{fmt.Errorf(format, args...)} }

// How the queues were read.
const (
	FromSockDiag = "sock_diag"
	FromProc     = "proc" // their sizes had to be assumed
)

// Account says in a report whether a run was governed, by what, and what became
// of it.
type Account struct {
	Governed bool   `json:"governed"`
	Reason   string `json:"reason,omitempty"` // why it was not
	// Feedback is how the queues were read, empty if they could not be.
	Feedback string         `json:"feedback,omitempty"`
	Sockets  []Socket       `json:"sockets,omitempty"`
	Seen     *pace.Feedback `json:"seen,omitempty"`
	Ledger   *drops.Ledger  `json:"ledger,omitempty"`
	// Blind is of how many stretches nothing is known, between which the receiver
	// was replaced; of others something is.
	Blind int `json:"blind,omitempty"`
	// WaitedSeconds is how long the sensor was waited for at the end, where some
	// packets still wait; 0 stands for Patience.
	WaitedSeconds float64 `json:"waited_seconds,omitempty"`
}

// Delivered is what is known of whether a run's packets were taken.
type Delivered string

// What may be known.
const (
	AllTaken Delivered = "taken" // the sensor's counters say that all of them were
	OnlySent Delivered = "sent"  // nobody here can see whether they were
	SomeLost Delivered = "lost"  // some were not
)

// Delivery tells what is known.
func (a Account) Delivery() Delivered {
	l := a.Ledger
	switch {
	case l == nil:
		return OnlySent
	case l.Lost > 0, len(l.Died) > 0:
		return SomeLost
	case a.Blind > 0, l.Doubt > 0, l.QueuedBytes > 0, l.Taken < l.Sent:
		return OnlySent
	}
	return AllTaken
}

// Socket is a queue on the way of a run.
type Socket struct {
	Place       string `json:"place"` // AtSensor or AtHost (docker-proxy's)
	Address     string `json:"address"`
	BufferBytes int    `json:"buffer_bytes"`
	Dropped     uint64 `json:"dropped"` // in this run
	// Where datagrams were dropped while no more than HeldBytes of the buffer were
	// in use, it was believed to hold BelievedBytes from then on.
	HeldBytes     int  `json:"held_bytes,omitempty"`
	BelievedBytes int  `json:"believed_bytes,omitempty"`
	Gone          bool `json:"gone,omitempty"` // before the end of the run, while others went on
	// WaitedSeconds is how long sending waited while this queue had the least room.
	WaitedSeconds float64 `json:"waited_seconds,omitempty"`
}

// Limited says where a buffer could not be used to its end; empty if it could.
func (s Socket) Limited() string {
	if s.HeldBytes == 0 {
		return ""
	}
	return fmt.Sprintf("%s of the %s dropped packets while it held no more than %s of its %s: a memory limit below the buffer (of its cgroup, or net.ipv4.udp_mem), or another sender; %s were counted on from then on",
		s.Address, s.Place, units.Bytes(int64(s.HeldBytes)), units.Bytes(int64(s.BufferBytes)), units.Bytes(int64(s.BelievedBytes)))
}

// Result is nil if the receiver took everything, or nothing is known of it. A
// loss is a [LossError].
func (a Account) Result() error {
	switch {
	case a.Ledger == nil:
		return nil
	case a.Delivery() == SomeLost:
		return &LossError{errors.New(a.Ledger.Verdict)}
	case a.Ledger.QueuedBytes > 0: // it stopped reading before the end
		return orchestrate.WithHint(fmt.Errorf("wait for the sensor: it has taken nothing for %s: %s", a.waited(), a.Ledger.Verdict),
			"`zeekdemo logs` and `zeekdemo status` tell how it is")
	}
	return nil
}

// waited is how long it was waited for that the sensor took something.
func (a Account) waited() time.Duration {
	if a.WaitedSeconds == 0 {
		return Patience
	}
	return time.Duration(a.WaitedSeconds * float64(time.Second))
}

// Governance says whether and by what the run was held back, which stalled it
// for so many seconds.
func (a Account) Governance(stalled float64) string {
	switch {
	case a.Governed && stalled > 0:
		return fmt.Sprintf("governed by %s; waited %s for the sensor%s", a.queues(), units.Duration(time.Duration(stalled*float64(time.Second))), a.laggard())
	case a.Governed:
		return fmt.Sprintf("governed by %s; the sensor was never waited for", a.queues())
	}
	return "not governed: " + a.Reason
}

// laggard names the one of several workers for which the run was waiting most.
func (a Account) laggard() string {
	var most Socket
	workers := 0
	for _, s := range a.Sockets {
		if s.Place == AtSensor {
			workers++
		}
		if s.WaitedSeconds > most.WaitedSeconds {
			most = s
		}
	}
	if workers < 2 || most.Address == "" {
		return ""
	}
	return fmt.Sprintf(", %s of it for %s", units.Duration(time.Duration(most.WaitedSeconds*float64(time.Second))), most.Address)
}

// queues names the buffers that were watched.
func (a Account) queues() string {
	there := slices.DeleteFunc(slices.Clone(a.Sockets), func(s Socket) bool { return s.Gone })
	if len(there) == 0 {
		return "the sensor's socket" // which has gone
	}
	count := map[string]int{}
	for _, s := range there {
		count[s.Place]++
	}
	text := "the sensor's socket"
	if n := count[AtSensor]; n > 1 {
		text = fmt.Sprintf("the sensor's %d sockets", n)
	}
	if count[AtHost] > 0 {
		text += " and docker-proxy's"
	}
	if a.Feedback == FromProc {
		text += " (sizes assumed)"
	}
	least := slices.MinFunc(there, func(x, y Socket) int { return x.BufferBytes - y.BufferBytes })
	return fmt.Sprintf("%s, least buffer %s", text, units.Bytes(int64(least.BufferBytes)))
}

// Explain adds to a path what the kernel's counters tell of it. A nil account
// tells nothing.
func (a *Account) Explain(p *zeeklog.Path) {
	if a == nil || a.Ledger == nil {
		return
	}
	p.Taken, p.TakenKnown = a.Ledger.Taken, true
	for _, s := range a.Sockets {
		if s.Place == AtHost {
			p.ProxyDropped += s.Dropped
		}
	}
	if p.Counted && p.Received >= p.Sent {
		return
	}
	for _, c := range a.Ledger.Counters {
		if c.Kind != drops.OfSocket && c.Kind != drops.OfLoad {
			p.Elsewhere = append(p.Elsewhere, c.String())
		}
	}
}

// Join makes one account of those of several stretches, between which the
// receiver was replaced, as far as something is known of them.
func Join(list []Account) Account {
	at := len(list) - 1
	for at > 0 && list[at].Ledger == nil {
		at--
	}
	last := list[at]
	if len(list) == 1 || last.Ledger == nil {
		return list[len(list)-1]
	}
	ledger := *last.Ledger
	ledger.Counters = slices.Clone(ledger.Counters)
	last.Ledger = &ledger
	blind := 0
	for i, a := range list {
		switch {
		case i == at:
		case a.Ledger == nil:
			blind++
		default:
			last.add(a)
		}
	}
	last.Blind = blind
	ledger.Verdict = joined(ledger, len(list), blind)
	return last
}

// joined is the verdict over several stretches, of some of which nothing is
// known.
func joined(l drops.Ledger, stretches, blind int) string {
	var text strings.Builder
	switch {
	case l.Lost > 0:
		fmt.Fprintf(&text, "%d of %d packets lost", l.Lost, l.Sent)
	case l.Doubt > 0:
		fmt.Fprintf(&text, "at least %d of %d packets were taken, others' may be among the rest", l.Taken-l.Doubt, l.Sent)
	default:
		fmt.Fprintf(&text, "all %d packets were taken", l.Sent)
	}
	fmt.Fprintf(&text, ", in %d stretches between which a container was replaced", stretches)
	if len(l.Died) > 0 {
		fmt.Fprintf(&text, "; what %s had taken and not logged is lost", strings.Join(l.Died, ", "))
	}
	if blind > 0 {
		fmt.Fprintf(&text, "; nothing is known of %d of these", blind)
	}
	return text.String()
}

// add puts the account of an earlier stretch to this one.
func (a *Account) add(o Account) {
	to, from := a.Ledger, o.Ledger
	to.Sent, to.Taken, to.Lost = to.Sent+from.Sent, to.Taken+from.Taken, to.Lost+from.Lost+unaccounted(*from)
	to.Others, to.Doubt, to.InGone = to.Others+from.Others, to.Doubt+from.Doubt, to.InGone+from.InGone
	to.Counters, to.Gone = append(to.Counters, from.Counters...), append(slices.Clone(to.Gone), from.Gone...)
	to.Died = append(slices.Clone(to.Died), from.Died...)
	if a.Seen == nil || o.Seen == nil {
		return
	}
	seen := *a.Seen
	seen.Taken, seen.Dropped = seen.Taken+o.Seen.Taken, seen.Dropped+o.Seen.Dropped
	seen.WrittenOff, seen.InGone, seen.Looks = seen.WrittenOff+o.Seen.WrittenOff, seen.InGone+o.Seen.InGone, seen.Looks+o.Seen.Looks
	a.Seen = &seen
}

// unaccounted are packets that still waited in the queue of a sensor that has
// gone: it did not take them.
func unaccounted(l drops.Ledger) uint64 {
	if l.QueuedBytes == 0 {
		return 0
	}
	return l.Sent - min(l.Sent, l.Taken+l.Lost)
}
