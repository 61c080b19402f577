package drops

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// stack serves what the services of a stack say.
type stack struct {
	*httptest.Server
	zeek, collector, loki string                // metrics; empty: no answer
	prometheus            map[string]string     // JSON answers by job
	missed                func(q string) string // the number that Loki answers a query with; empty: none
	queries               []string
}

func newStack(t *testing.T) *stack {
	t.Helper()
	s := &stack{prometheus: map[string]string{}}
	mux := http.NewServeMux()
	page := func(text *string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if *text == "" {
				http.Error(w, "starting", http.StatusServiceUnavailable)
				return
			}
			fmt.Fprint(w, *text)
		}
	}
	mux.HandleFunc("/zeek/metrics", page(&s.zeek))
	mux.HandleFunc("/collector/metrics", page(&s.collector))
	mux.HandleFunc("/loki/metrics", page(&s.loki))
	mux.HandleFunc("/loki/loki/api/v1/query", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query().Get("query")
		s.queries = append(s.queries, q)
		result := ""
		if n := s.missed(q); n != "" {
			result = `{"metric":{},"value":[1,"` + n + `"]}`
		}
		fmt.Fprintf(w, `{"data":{"result":[%s]}}`, result)
	})
	mux.HandleFunc("/prometheus/api/v1/query", func(w http.ResponseWriter, r *http.Request) {
		for job, answer := range s.prometheus {
			if strings.Contains(r.URL.Query().Get("query"), `job="`+job+`"`) {
				fmt.Fprint(w, answer)
				return
			}
		}
		fmt.Fprint(w, `{"data":{"result":[]}}`)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	s.missed = func(string) string { return "" }
	return s
}

// states reads what the services say as a picture has it.
func (s *stack) states(t *testing.T) Picture {
	t.Helper()
	r := NewReader(Dir(t.TempDir()), Host{}, nil)
	r.path = Path{Sensors: []SensorAt{{Name: "zeek"}}, Services: Services{Zeek: map[string][]string{"zeek": {s.URL + "/zeek"}},
		Collector: s.URL + "/collector", Loki: s.URL + "/loki", Prometheus: s.URL + "/prometheus"}}
	p := Picture{At: time.Now()}
	r.services(&p, r.ask.begin(t.Context(), r.path, time.Now().Add(-time.Minute), time.Now())())
	return p
}

func values(p Picture, hop Hop) map[string]uint64 {
	m := map[string]uint64{}
	for _, s := range p.States {
		if s.Hop == hop {
			for _, v := range s.Values {
				m[v.Name] = v.N
			}
		}
	}
	return m
}

// What real services say is understood.
func TestRealMetrics(t *testing.T) {
	s := newStack(t)
	s.collector, s.loki = readText(t, "testdata/collector.metrics"), readText(t, "testdata/loki.metrics")
	s.zeek = readText(t, testenv.Shared(t, "zeek9", "live", "vxlan", "metrics.txt"))
	s.missed = func(q string) string {
		switch {
		case strings.Contains(q, "percent_lost"):
			return "0.104"
		case strings.Contains(q, "unwrap"):
			return "14713"
		}
		return "3"
	}
	p := s.states(t)
	if r := Compare(Origin(p), p); r.Missed == nil || r.Missed.Weird != 3 || r.Missed.CaptureLoss == nil || *r.Missed.CaptureLoss != 0.104 {
		t.Errorf("missed: %+v", r.Missed)
	}
	for hop, want := range map[Hop]map[string]uint64{
		HopZeek: {"zeek_net_received_packets_total": 17557, "zeek_net_dropped_packets_total": 0},
		HopCollector: {"otelcol_receiver_accepted_log_records": 62, "otelcol_exporter_send_failed_log_records": 0,
			"otelcol_exporter_enqueue_failed_log_records": 0, "otelcol_exporter_sent_log_records": 62, vanishedLines: 0, "otelcol_receiver_refused_log_records": 0, "otelcol_receiver_failed_log_records": 0},
		HopLoki: {"loki_distributor_lines_received_total": 62, "loki_discarded_samples_total": 0},
		HopLogs: {"connections with missed bytes": 3, "missed bytes": 14713, "connections with missed bytes, begun since the first look": 3, "lines of weird.log": 3},
	} {
		if got := values(p, hop); !maps.Equal(got, want) {
			t.Errorf("%s: %v\nwant %v", hop, got, want)
		}
	}
	for _, st := range p.States {
		if st.Hop == HopCollector && (len(st.Queues) != 1 || st.Queues[0].Size != 5000) {
			t.Errorf("the collector's queue: %+v", st.Queues)
		}
		if len(st.Unknown) > 0 {
			t.Errorf("%s: %v", st.Name, st.Unknown)
		}
	}
}

// Lines that Loki refuses for good cannot be delivered: the same lines, lost
// once.
func TestLostLines(t *testing.T) {
	s := newStack(t)
	s.collector, s.loki = readText(t, "testdata/collector.metrics"), readText(t, "testdata/loki.metrics")
	before := s.states(t)
	s.loki += `loki_discarded_samples_total{policy="",reason="line_too_long",retention_hours="",tenant="fake"} 3` + "\n" +
		`loki_discarded_samples_total{policy="",reason="rate_limited",retention_hours="",tenant="fake"} 2` + "\n"
	// What it refuses until it has room is offered again.
	s.loki += `loki_discarded_samples_total{policy="",reason="blocked_ingestion",retention_hours="",tenant="fake"} 900` + "\n"
	s.collector += `otelcol_exporter_send_failed_log_records{exporter="otlp_http"} 5` + "\n"
	refused := s.states(t)
	r := Compare(before, refused)
	if r.LostLines != 5 || r.Lost != 0 || r.Culprit.Hop != HopLoki || !strings.Contains(r.Culprit.Reason, "line_too_long (3), rate_limited (2)") ||
		!strings.HasPrefix(r.Sentence, "5 log lines lost") {
		t.Errorf("%s\n%+v", r.Sentence, r.Culprit)
	}
	s.collector += `otelcol_exporter_send_failed_log_records{exporter="otlp_grpc"} 7` + "\n"
	r = Compare(refused, s.states(t))
	if r.LostLines != 7 || r.Culprit.Hop != HopCollector || r.Culprit.Cure != "zeekdemo logs collector --tail 20" {
		t.Errorf("%s\n%+v", r.Sentence, r.Culprit)
	}
	// One that was restarted counts anew.
	s.loki = strings.ReplaceAll(s.loki, "process_start_time_seconds 1.7954", "process_start_time_seconds 1.8")
	r = Compare(refused, s.states(t))
	if h := r.hop(HopLoki, ""); *h.Lost != 5 || len(h.Notes) != 1 {
		t.Errorf("%+v", h)
	}
}

// A collector that can take no more, or whose Loki is away, loses nothing: it reads
// the files again. That nothing arrives is named.
func TestLinesThatWait(t *testing.T) {
	s := newStack(t)
	s.loki, s.collector = readText(t, "testdata/loki.metrics"), readText(t, "testdata/collector_full.metrics")
	full := s.states(t)
	s.collector = strings.Replace(s.collector, `enqueue_failed_log_records{exporter="otlp_http"} 1000`, `enqueue_failed_log_records{exporter="otlp_http"} 1200`, 1)
	r := Compare(full, s.states(t))
	if r.Verdict != VerdictHeld || r.LostLines != 0 || r.Culprit.Hop != HopCollector || r.Culprit.Held != 200 || !strings.Contains(r.Culprit.Reason, "its queue is full") ||
		!strings.Contains(r.Sentence, "the collector refused 200 lines") {
		t.Errorf("%s: %s\n%+v", r.Verdict, r.Sentence, r.Culprit)
	}
	full = s.states(t)
	s.collector = strings.Replace(s.collector, "exporter_queue_size{data_type=\"logs\",exporter=\"otlp_http\"} 18", "exporter_queue_size{data_type=\"logs\",exporter=\"otlp_http\"} 0", 1)
	idle := s.states(t)
	s.collector = strings.Replace(s.collector, "exporter_queue_size{data_type=\"logs\",exporter=\"otlp_http\"} 0", "exporter_queue_size{data_type=\"logs\",exporter=\"otlp_http\"} 1", 1)
	if r = Compare(idle, s.states(t)); r.Verdict == VerdictHeld {
		t.Errorf("a request that is under way: %s", r.Sentence)
	}
	r = Compare(full, s.states(t)) // one request waits, as before, and nothing is sent
	if r.Verdict != VerdictHeld || r.Culprit.Held != 0 || !strings.Contains(r.Culprit.Reason, "Loki does not answer") {
		t.Errorf("%s: %s\n%+v", r.Verdict, r.Sentence, r.Culprit)
	}
}

// A queue that loses what it had accepted does not say so; the account does, when
// nothing has moved for a while.
func TestLinesThatVanish(t *testing.T) {
	const page = "otelcol_receiver_accepted_log_records %d\notelcol_exporter_sent_log_records %d\notelcol_exporter_send_failed_log_records 5\notelcol_exporter_queue_size %d\n"
	b, start := balance{}, time.Unix(1000, 0)
	for _, look := range []struct {
		second, accepted, sent, waiting, vanished int // -1: not known
	}{
		{0, 100, 90, 2, -1}, {1, 100, 95, 0, -1}, {2, 200, 150, 1, -1}, {3, 200, 195, 0, -1}, {6, 200, 195, 0, 0},
		{7, 500, 200, 3, 0}, {8, 500, 450, 0, 0}, {9, 500, 450, 0, 0}, {10, 500, 450, 0, 45}, {11, 600, 450, 0, 45}, {12, 600, 550, 0, 45}, {20, 600, 550, 0, 45},
	} {
		list, err := parseMetrics(fmt.Appendf(nil, page, look.accepted, look.sent, look.waiting), collectorNames())
		if err != nil {
			t.Fatal(err)
		}
		s := collectorState(answer{metrics: list})
		b.add(&s, answer{metrics: list}, start.Add(time.Duration(look.second)*time.Second))
		if v := s.value(vanishedLines); (v == nil) != (look.vanished < 0) || v != nil && v.N != uint64(look.vanished) {
			t.Errorf("%+v: %+v", look, v)
		}
	}
}

// A service that cannot be asked is asked by way of Prometheus, and one that
// nobody reaches is not known; that takes no time twice.
func TestServicesThatDoNotAnswer(t *testing.T) {
	s := newStack(t)
	s.prometheus["zeek"] = `{"data":{"result":[{"metric":{"__name__":"zeek_net_received_packets_total","sensor":"zeek"},"value":[1,"77"]}]}}`
	p := s.states(t)
	if got := values(p, HopZeek)["zeek_net_received_packets_total"]; got != 77 {
		t.Errorf("%d packets by way of Prometheus", got)
	}
	for _, st := range p.States {
		if st.Hop == HopZeek && (len(st.Unknown) != 1 || !strings.Contains(st.Unknown[0].Why, "Prometheus")) {
			t.Errorf("%s: %v", st.Name, st.Unknown)
		}
		if st.Hop == HopLoki && (len(st.Values) != 0 || !strings.Contains(st.Unknown[0].Why, "503")) {
			t.Errorf("%s: %v, %v", st.Name, st.Values, st.Unknown)
		}
	}
	a := newAsker()
	a.rest("x")
	skipped := 0
	for a.skip("x") {
		skipped++
	}
	if skipped != 10 {
		t.Errorf("left in peace for %d looks", skipped)
	}
}

// The window of the logs begins at one instant, however often it is asked.
func TestWindowOfTheLogs(t *testing.T) {
	s := newStack(t)
	var times []string
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, _ := url.ParseQuery(r.URL.RawQuery)
		times = append(times, q.Get("time"), q.Get("query"))
		fmt.Fprint(w, `{"data":{"result":[]}}`)
	})
	since := time.Now().Add(-90*time.Second - 300*time.Millisecond)
	if _, err := newAsker().over(t.Context(), s.URL, "%s", since); err != nil {
		t.Fatal(err)
	}
	if want := []string{fmt.Sprint(since.Add(91 * time.Second).UnixNano()), "[91s]"}; !slices.Equal(times, want) {
		t.Errorf("%q, want %q", times, want)
	}
}

func TestParseMetrics(t *testing.T) {
	const text = "# HELP a_total x\n# TYPE a_total counter\na_total{l=\"x\\\"},\",m=\"\"} 5 1700000000\na 6\nab 7\nb{} NaN\n"
	got, err := parseMetrics([]byte(text), []string{"a", "b"})
	if err != nil || len(got) != 3 || got[0].value != 6 || got[1].labels["l"] != `x"},` || got[1].value != 5 || got[1].name != "a" || got[2].name != "b" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"a{l=5} 1\n", "a{l=\"x\n", "a x\n"} {
		if got, err := parseMetrics([]byte(bad), []string{"a"}); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newAsker().scrape(ctx, "http://127.0.0.1:9/metrics", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
