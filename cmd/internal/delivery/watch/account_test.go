package watch

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

// others is a counter of the whole machine, ours one of a socket on the way.
func others() drops.Counter {
	return drops.Counter{Place: AtSensor, Kind: drops.OfProtocol, Name: "Ip6InDiscards", Count: 2}
}

func ours() drops.Counter {
	return drops.Counter{Place: AtSensor, Kind: drops.OfSocket, Name: "socket 0.0.0.0:4789", Count: 5}
}

func TestGovernance(t *testing.T) {
	governed := Account{Governed: true, Feedback: "proc", Sockets: []Socket{{Place: "sensor", BufferBytes: 2048}, {Place: "host", BufferBytes: 1024}}}
	for want, got := range map[string]string{
		"governed by the sensor's socket and docker-proxy's (sizes assumed), least buffer 1.02 kB; waited 1.5s for the sensor":      governed.Governance(1.5),
		"governed by the sensor's socket and docker-proxy's (sizes assumed), least buffer 1.02 kB; the sensor was never waited for": governed.Governance(0),
		"governed by the sensor's 2 sockets, least buffer 1.02 kB; waited 2s for the sensor, 1.5s of it for worker-2 at 0.0.0.0:4789": Account{Governed: true, Feedback: FromSockDiag,
			Sockets: []Socket{{Place: "sensor", Address: "worker-1 at 0.0.0.0:4789", BufferBytes: 1024, WaitedSeconds: 0.5}, {Place: "sensor", Address: "worker-2 at 0.0.0.0:4789", BufferBytes: 1024, WaitedSeconds: 1.5}}}.Governance(2),
		"not governed: --lossless off": Account{Reason: "--lossless off"}.Governance(1),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Without feedback a run goes on and says why, unless it must not.
func TestWithoutFeedback(t *testing.T) {
	for mode, fails := range map[Mode]bool{Auto: false, Off: false, Require: true} {
		reason, err := mode.Without(fs.ErrPermission)
		if (err != nil) != fails || fails && !errors.Is(err, fs.ErrPermission) || !fails && reason != fs.ErrPermission.Error() {
			t.Errorf("%s: %q, %v", mode, reason, err)
		}
	}
}

// What the kernel counted explains what is missing, and nothing else.
func TestCountersExplainAPath(t *testing.T) {
	d := &Account{Sockets: []Socket{{Place: "sensor", Dropped: 1}, {Place: "host", Dropped: 3}},
		Ledger: &drops.Ledger{Taken: 6, Counters: []drops.Counter{ours(), others(), {Place: "host", Kind: drops.OfLoad, Name: "softnet time_squeeze", Count: 9}}}}
	missing := zeeklog.Path{Sent: 10, Counted: true, Received: 6}
	d.Explain(&missing)
	if !missing.TakenKnown || missing.Taken != 6 || missing.ProxyDropped != 3 || !slices.Equal(missing.Elsewhere, []string{others().String()}) {
		t.Errorf("%+v", missing)
	}
	whole := zeeklog.Path{Sent: 6, Counted: true, Received: 6}
	d.Explain(&whole)
	if whole.Elsewhere != nil {
		t.Errorf("%+v", whole)
	}
	nothing := zeeklog.Path{Sent: 6}
	(*Account)(nil).Explain(&nothing)
	if nothing.TakenKnown {
		t.Errorf("%+v", nothing)
	}
}

// What a sensor that has gone still had in its queue is lost.
func TestAccountsOfSeveralSensorsAddUp(t *testing.T) {
	first := Account{Ledger: &drops.Ledger{Sent: 100, Taken: 90, QueuedBytes: 8000}, Seen: &pace.Feedback{Taken: 90, Looks: 3}}
	last := Account{Governed: true, Ledger: &drops.Ledger{Sent: 50, Taken: 50}, Seen: &pace.Feedback{Taken: 50, Looks: 2}}
	sum := Join([]Account{first, last})
	if l := sum.Ledger; l.Sent != 150 || l.Taken != 140 || l.Lost != 10 || !strings.Contains(l.Verdict, "10 of 150 packets lost") {
		t.Errorf("%+v", l)
	}
	if sum.Seen.Taken != 140 || sum.Seen.Looks != 5 || !sum.Governed {
		t.Errorf("%+v", sum)
	}
	var loss *LossError
	if err := sum.Result(); !errors.As(err, &loss) {
		t.Errorf("%v", err)
	}
	// What is known of one stretch stays known though nothing is of the last.
	first.Ledger.Lost = 3
	if sum := Join([]Account{first, {Reason: "none"}}); sum.Ledger == nil || sum.Ledger.Lost != 3 || !strings.Contains(sum.Ledger.Verdict, "nothing is known of 1 of these") {
		t.Errorf("%+v", sum.Ledger)
	}
	if only := Join([]Account{{Reason: "none"}}); only.Reason != "none" {
		t.Errorf("%+v", only)
	}
}
