package watch

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

// What is known of a run's packets has three values.
func TestDelivery(t *testing.T) {
	for _, tt := range []struct {
		name    string
		account Account
		want    Delivered
	}{
		{"nothing is known", Account{Reason: "--to"}, OnlySent},
		{"all taken", Account{Ledger: &drops.Ledger{Sent: 9, Taken: 9}}, AllTaken},
		{"all taken, and others'", Account{Ledger: &drops.Ledger{Sent: 9, Taken: 9, Others: 6}}, AllTaken},
		{"some may be others'", Account{Ledger: &drops.Ledger{Sent: 9, Taken: 9, Doubt: 1}}, OnlySent},
		{"some wait", Account{Ledger: &drops.Ledger{Sent: 9, Taken: 8, QueuedBytes: 768}}, OnlySent},
		{"some lost", Account{Ledger: &drops.Ledger{Sent: 9, Taken: 8, Lost: 1}}, SomeLost},
		{"some lost, some in doubt", Account{Ledger: &drops.Ledger{Sent: 9, Taken: 8, Lost: 1, Doubt: 2}}, SomeLost},
		{"dropped though as many were taken", Account{Ledger: &drops.Ledger{Sent: 9, Taken: 9, Lost: 1}}, SomeLost},
		{"a stretch of which nothing is known", Account{Ledger: &drops.Ledger{Sent: 9, Taken: 9}, Blind: 1}, OnlySent},
		{"two stretches", Join([]Account{{Ledger: &drops.Ledger{Sent: 9, Taken: 9}}, {Ledger: &drops.Ledger{Sent: 9, Taken: 9}}}), AllTaken},
		{"two stretches, one of them blind", Join([]Account{{Reason: "none"}, {Ledger: &drops.Ledger{Sent: 9, Taken: 9}}}), OnlySent},
		{"two stretches, one of them in doubt", Join([]Account{{Ledger: &drops.Ledger{Sent: 9, Taken: 9, Doubt: 3}}, {Ledger: &drops.Ledger{Sent: 9, Taken: 9}}}), OnlySent},
	} {
		if got := tt.account.Delivery(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// A sensor in doubt is no verdict of a loss.
func TestDoubtIsNoLoss(t *testing.T) {
	joined := Join([]Account{{Ledger: &drops.Ledger{Sent: 9, Taken: 9, Doubt: 3}}, {Ledger: &drops.Ledger{Sent: 9, Taken: 9}}})
	if err := joined.Result(); err != nil || !strings.Contains(joined.Ledger.Verdict, "at least 15 of 18 packets") {
		t.Errorf("%v, %s", err, joined.Ledger.Verdict)
	}
}

// A sensor is asked for its own count by its page of metrics.
func TestZeekAsWitness(t *testing.T) {
	pages := map[string]string{
		"/one": "# HELP zeek_net_received_packets_total Total number of packets received\n# TYPE zeek_net_received_packets_total counter\nzeek_net_received_packets_total 17557\n",
		"/several": "# TYPE zeek_net_received_packets_total counter\nzeek_net_received_packets_total{node=\"worker-1\"} 240\n" +
			"zeek_net_received_packets_total{node=\"worker-2\"} 632\n",
		"/without": "# TYPE zeek_net_dropped_packets_total counter\nzeek_net_dropped_packets_total 0\n",
		"/broken":  "zeek_net_received_packets_total x\n",
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(page))
	}))
	defer server.Close()
	for paths, want := range map[string]uint64{"/one": 17557, "/several": 872, "/without": 0, "/broken": 0, "/none": 0, "/one /several": 18429, "/one /none": 0} {
		z := &zeek{client: orchestrate.NewQueryClient(time.Minute)}
		for path := range strings.FieldsSeq(paths) {
			z.pages = append(z.pages, server.URL+path)
		}
		if got, err := z.Received(t.Context()); got != want || (err == nil) != (want > 0) {
			t.Errorf("%s: %d, %v", paths, got, err)
		}
	}
}

// What a run says while it waits, and what it ends with, name the socket, the time
// and the limit.
func TestStalls(t *testing.T) {
	const name = "0.0.0.0:4789 of the sensor"
	for want, s := range map[string]pace.Stall{
		name + " has taken nothing for 3s; waiting up to 1m0s":    {Socket: name, For: 3*time.Second + 20*time.Millisecond, Limit: time.Minute},
		name + " has taken nothing for 3s; waiting until it does": {Socket: name, For: 3 * time.Second},
		name + " takes packets again, after 12.3s":                {Socket: name, For: 12300 * time.Millisecond, Over: true, Limit: time.Minute},
	} {
		if got := stalled(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	err := GaveUp(errors.Join(&pace.StuckError{Stall: pace.Stall{Socket: name, For: time.Minute}, Taken: 5, Granted: 9}))
	var loss *LossError
	if !errors.As(err, &loss) || !strings.Contains(err.Error(), name+" took nothing for 1m0s, and its queue is full: of 9 packets that were sent 5 had been taken") {
		t.Error(err)
	}
	if other := errors.New("other"); !errors.Is(GaveUp(other), other) || errors.As(GaveUp(other), &loss) || GaveUp(nil) != nil {
		t.Error(GaveUp(other))
	}
}
