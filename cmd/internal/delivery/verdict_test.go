package delivery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

// What a run came to follows from what is known of it: what ended it first, then
// what it could not send, then what its receiver did not take.
func TestJudgement(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("it broke")
	refused := forward.Report{FramesRead: 12, Refused: []forward.RefusedCount{
		{Reason: forward.RefusedTooLong.String(), Frames: 2}, {Reason: forward.SkippedNoPacket.String(), Frames: 3}}}
	deaf := &transmit.Stats{Refused: 1, Troubles: []transmit.Trouble{{Kind: transmit.PortUnreachable, Count: 1}, {Kind: transmit.LinkDown, Count: 2}}}
	lost := &Account{Ledger: &drops.Ledger{Lost: 4, Verdict: "4 of 12 packets lost"}}
	stuck := &Account{Ledger: &drops.Ledger{QueuedBytes: 9, Verdict: "9 bytes wait"}}
	for name, tt := range map[string]struct {
		ctx     context.Context
		sent    Sent
		err     error
		verdict Verdict
		text    string
	}{
		"all went well":         {t.Context(), Sent{Kernel: &transmit.Stats{}, Account: &Account{Ledger: &drops.Ledger{}}}, nil, Complete, ""},
		"nothing is known":      {t.Context(), Sent{}, nil, Complete, ""},
		"interrupted":           {ended, Sent{Report: forward.Report{DatagramsSent: 345}, Kernel: deaf}, broken, Interrupted, "interrupted after 345 packets"},
		"it broke":              {t.Context(), Sent{Report: refused, Kernel: deaf}, broken, Failed, "it broke"},
		"some could not pass":   {t.Context(), Sent{Report: refused, Kernel: deaf}, nil, Incomplete, "2 of 12 frames could not pass"},
		"ready and never sent":  {t.Context(), Sent{Report: forward.Report{FramesRead: 12, DatagramsUnsent: 1}}, nil, Incomplete, "1 of 12 frames could not pass"},
		"frames with no packet": {t.Context(), Sent{Report: forward.Report{Refused: refused.Refused[1:]}}, nil, Complete, ""},
		"nobody listens":        {t.Context(), Sent{Kernel: deaf, Account: &Account{}}, nil, Incomplete, "packets to 192.0.2.1:4789 did not arrive: nobody listens at the port, or a firewall rejects the datagrams (said once)"},
		"what was overcome":     {t.Context(), Sent{Kernel: &transmit.Stats{Troubles: deaf.Troubles[1:]}}, nil, Complete, ""},
		"its counters say more": {t.Context(), Sent{Kernel: deaf, Account: lost}, nil, Incomplete, "4 of 12 packets lost"},
		"its counters say all":  {t.Context(), Sent{Kernel: deaf, Account: &Account{Ledger: &drops.Ledger{Sent: 12, Taken: 12}}}, nil, Complete, ""},
		"the receiver lost":     {t.Context(), Sent{Account: lost}, nil, Incomplete, "4 of 12 packets lost"},
		"the receiver stopped":  {t.Context(), Sent{Account: stuck}, nil, Failed, fmt.Sprintf("wait for the sensor: it has taken nothing for %s: 9 bytes wait", watch.Patience)},
	} {
		err := judge(tt.ctx, netip.MustParseAddrPort("192.0.2.1:4789"), tt.sent, tt.err)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != tt.text || VerdictOf(err) != tt.verdict {
			t.Errorf("%s: %s, %q, want %s, %q", name, VerdictOf(err), text, tt.verdict, tt.text)
		}
	}
}

// The verdict looks through what stands around a result.
func TestVerdictOfAResult(t *testing.T) {
	for want, results := range map[Verdict][]error{
		Complete:    {nil},
		Incomplete:  {watch.Lossf("lost"), fmt.Errorf("run: %w", watch.Lossf("lost")), errors.Join(errors.New("close"), watch.Lossf("lost"))},
		Interrupted: {ErrInterrupted, fmt.Errorf("%w after 3 packets", ErrInterrupted)},
		Failed:      {errors.New("it broke"), context.Canceled},
	} {
		for _, result := range results {
			if got := VerdictOf(result); got != want {
				t.Errorf("%v: %s, want %s", result, got, want)
			}
		}
	}
}

// A link leads to one run in its time, or to all of a time where each loop is a
// run of its own; to nothing without a Grafana.
func TestLinks(t *testing.T) {
	at := time.UnixMilli(1_000_000_000)
	rep := forward.Report{Start: at, End: at.Add(time.Minute)}
	g := orchestrate.Grafana{URL: "http://grafana"}
	const times = "http://grafana/d/zeekdemo-logs?from=999999000&to=1000240000"
	for want, got := range map[string]string{
		times + "&var-run=7": Link(g, encap.Config{VNI: 7}, rep),
		times:                Link(g, encap.Config{VNI: 7, VNIPerLoop: true}, rep),
		"":                   Link(orchestrate.Grafana{}, encap.Config{VNI: 7}, rep),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A loss is one, whatever counters say; without counters no more is known than that
// packets were sent.
func TestWhatIsKnownOfPackets(t *testing.T) {
	taken, lost := &Account{Ledger: &drops.Ledger{Sent: 3, Taken: 3}}, &Account{Ledger: &drops.Ledger{Sent: 3, Taken: 2, Lost: 1}}
	deaf := &transmit.Stats{Troubles: []transmit.Trouble{{Kind: transmit.PortUnreachable, Count: 1}}}
	for name, tt := range map[string]struct {
		result  error
		kernel  *transmit.Stats
		account *Account
		want    Delivered
	}{
		"taken":              {nil, nil, taken, watch.AllTaken},
		"no counters":        {nil, nil, &Account{Reason: "a foreign monitor"}, watch.OnlySent},
		"nothing at all":     {nil, nil, nil, watch.OnlySent},
		"lost":               {lost.Result(), nil, lost, watch.SomeLost},
		"could not pass":     {watch.Lossf("1 of 4 frames could not pass"), nil, taken, watch.SomeLost},
		"interrupted, deaf":  {ErrInterrupted, deaf, nil, watch.SomeLost},
		"taken all the same": {nil, deaf, taken, watch.AllTaken},
		"overcome":           {nil, &transmit.Stats{Troubles: []transmit.Trouble{{Kind: transmit.LinkDown, Count: 1}}}, nil, watch.OnlySent},
		"interrupted, taken": {ErrInterrupted, nil, taken, watch.AllTaken},
		"interrupted, lost":  {ErrInterrupted, nil, lost, watch.SomeLost},
	} {
		if got := Known(tt.result, tt.kernel, tt.account); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}
