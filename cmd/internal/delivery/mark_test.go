package delivery

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/orchestrate"
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
	r := &Run{Replay: &Replay{Captures: &Captures{Names: []string{"<img src=x>.pcap"}}}, sender: &fromHere{}}
	doc := &Document{Verdict: Failed, Error: "<script>"}
	if text := r.endAnnotation(time.Now(), doc).Text; strings.Contains(text, "<img") || strings.Contains(text, "<script") || !strings.Contains(text, "&lt;img") {
		t.Errorf("text %s", text)
	}
}
