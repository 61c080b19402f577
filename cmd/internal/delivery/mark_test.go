package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/assets"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

// sayer is an observer that writes down what it is told.
type sayer struct{ said *strings.Builder }

func (s sayer) Say(line string)           { fmt.Fprintln(s.said, line) }
func (sayer) Meter(func() Reading) func() { return func() {} }
func (sayer) Flows(func() []Flow) func()  { return func() {} }
func (sayer) Step(Step)                   {}

// A Grafana that takes the question and never answers costs a run two seconds
// after its report, and no more; one that cannot be meant costs none.
func TestAnnotatingNeverHoldsARunUp(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, tc := range []struct {
		name    string
		grafana orchestrate.Grafana
		limit   time.Duration
		want    string
	}{
		{"no stack", orchestrate.Grafana{}, time.Second, ""},
		{"it never answers", orchestrate.Grafana{URL: "http://" + silent.Addr().String()}, markEnd + time.Second, "no answer from http://127.0.0.1:"},
		{"another machine's loopback", orchestrate.Grafana{URL: "http://" + silent.Addr().String(), Away: true}, time.Second, "on the engine's machine only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var said strings.Builder
			r := &Run{Replay: &Replay{Captures: &Captures{}, Observer: sayer{&said}}, sender: &fromHere{to: way.Target{Grafana: tc.grafana}}}
			start := time.Now()
			r.Mark(t.Context())(nil)
			if took := time.Since(start); took > tc.limit {
				t.Errorf("took %s, want at most %s", took, tc.limit)
			}
			if got := said.String(); strings.Contains(got, tc.want) != true || (tc.want == "") != (got == "") || strings.Count(got, "\n") > 1 {
				t.Errorf("said %q, want one line with %q", got, tc.want)
			}
		})
	}
}

// What Grafana shows is HTML, and names of captures are not.
func TestAnnotationsAreEscaped(t *testing.T) {
	m := Marked{Kind: "mirror", What: "<img src=x>"}
	doc := &Document{Verdict: Failed, Error: "<script>"}
	if text := m.ended(time.Now(), doc, encap.Config{}).Text; strings.Contains(text, "<img") || strings.Contains(text, "<script") || !strings.Contains(text, "&lt;img") {
		t.Errorf("text %s", text)
	}
}

// The columns of the dashboard Runs are what a run's data has: each shows, and none
// stays empty.
func TestRunsShowsWhatIsMarked(t *testing.T) {
	m := regexp.MustCompile(`"names":\["time","timeEnd",([^\]]+)\]`).FindSubmatch(assets.Compose())
	if m == nil {
		t.Fatal("no table in the dashboard begins with the times of runs")
	}
	shown := strings.Split(strings.ReplaceAll(string(m[1]), `"`, ""), ",")
	var marked []string
	for field := range reflect.TypeFor[Marked]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		marked = append(marked, name)
	}
	slices.Sort(shown)
	slices.Sort(marked)
	if !slices.Equal(shown, marked) {
		t.Errorf("shown are %q, marked %q", shown, marked)
	}
}

// annotations is a Grafana that keeps what it is told.
type annotations struct {
	mu     sync.Mutex
	status int // of its answers
	told   []string
	data   string // the last one's
}

func (a *annotations) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var document struct {
		Tags    []string
		Text    string
		TimeEnd int64
		Data    json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&document); err != nil {
		document.Text = err.Error()
	}
	user, password, _ := r.BasicAuth()
	a.told = append(a.told, fmt.Sprintf("%s %s %s:%s %v ended:%v %s", r.Method, r.URL.Path, user, password, document.Tags, document.TimeEnd > 0, document.Text))
	a.data = string(document.Data)
	w.WriteHeader(a.status)
	fmt.Fprintln(w, `{"id": 5, "message": "no more disk"}`)
}

func ledger(lost uint64) *Account { return &Account{Ledger: &drops.Ledger{Lost: lost}} }

// A run is a moment in Grafana while it lasts and a region when it is over, with
// what became of it; where that fails a line says so, and the run does not.
func TestARunIsMarked(t *testing.T) {
	const begun, tags = "Run 7: the embedded sample to zeek, published", "admin:secret [zeekdemo run:7]"
	rep := forward.Report{DatagramsSent: 120, ElapsedSeconds: 2, Start: time.UnixMilli(5000), End: time.UnixMilli(7000)}
	for name, tt := range map[string]struct {
		status int
		doc    *Document
		end    string // what the region says more
		said   string
		data   string
	}{
		"complete":    {200, &Document{Verdict: Complete, Report: rep, Delivery: watch.AllTaken, Lossless: ledger(0)}, "<br>complete: 120 packets in 2s<br><a href=\"/d/zeekdemo-logs?from=", "", `"packets":120,"lost":0,"verdict":"complete","delivery":"taken"}`},
		"nobody saw":  {200, &Document{Verdict: Complete, Report: rep, Delivery: watch.OnlySent, Lossless: ledger(0)}, "<br>complete: 120 packets in 2s", "", `"packets":120,"verdict":"complete","delivery":"sent"}`},
		"it lost":     {200, &Document{Verdict: Incomplete, Report: rep, Error: "3 lost", Delivery: watch.SomeLost, Lossless: ledger(3)}, "<br>incomplete: 120 packets in 2s<br>3 lost<br><a ", "", `"packets":120,"lost":3,"verdict":"incomplete","delivery":"lost"}`},
		"interrupted": {200, &Document{Verdict: Interrupted, Report: rep, Error: "interrupted after 120"}, "<br>interrupted: 120 packets in 2s<br><a ", "", `"packets":120,"verdict":"interrupted"}`},
		"it goes on":  {200, &Document{}, "", "", `"packets":0,"verdict":"under way"}`},
		"never begun": {200, nil, "<br>failed", "", `"packets":0,"verdict":"failed"}`},
		"refused":     {500, nil, "", "The run is not marked in the dashboards: annotate in Grafana: answers 500 no more disk\n", `"packets":0,"verdict":"under way"}`},
	} {
		t.Run(name, func(t *testing.T) {
			a := &annotations{status: tt.status}
			server := httptest.NewServer(a)
			defer server.Close()
			var said strings.Builder
			sensor := orchestrate.Sensor{Service: orchestrate.Service{Name: "zeek"}}
			target := way.Target{Choice: way.Choice{Kind: way.Published}, Sensor: sensor, Grafana: orchestrate.Grafana{URL: server.URL, User: "admin", Password: "secret"}}
			r := &Run{Replay: &Replay{Captures: &Captures{}, Observer: sayer{&said}, Config: encap.Config{VNI: 7}}, sender: &fromHere{to: target}}
			ctx, interrupt := context.WithCancel(t.Context())
			end := r.Mark(ctx)
			interrupt() // an interrupted run is marked as well
			end(tt.doc)
			a.mu.Lock()
			defer a.mu.Unlock()
			want := []string{"POST /api/annotations " + tags + " ended:false " + begun}
			if tt.doc != nil || tt.end != "" {
				want = append(want, fmt.Sprintf("PATCH /api/annotations/5 %s ended:%v %s", tags, tt.end != "", begun+tt.end))
			}
			if data := `{"kind":"replay","run":7,"what":"the embedded sample","sensor":"zeek","way":"published",` + tt.data; a.data != data {
				t.Errorf("data %s, want %s", a.data, data)
			}
			if len(a.told) != len(want) || said.String() != tt.said {
				t.Fatalf("told %q, said %q", a.told, said.String())
			}
			for i := range want {
				if !strings.HasPrefix(a.told[i], want[i]) {
					t.Errorf("told %q, want %q", a.told[i], want[i])
				}
			}
		})
	}
}
