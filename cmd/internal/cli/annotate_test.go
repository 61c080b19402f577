package cli

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

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
			r := &replay{app: &App{Streams: ui.Streams{Err: &said, Out: io.Discard}}, target: target{Grafana: tc.grafana}}
			start := time.Now()
			r.mark(t.Context())()
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
	r := &replay{o: replayOptions{files: []string{"<img src=x>.pcap"}}}
	r.done = &replayDocument{Verdict: "failed", Error: "<script>"}
	if text := r.endAnnotation(time.Now()).Text; strings.Contains(text, "<img") || strings.Contains(text, "<script") || !strings.Contains(text, "&lt;img") {
		t.Errorf("text %s", text)
	}
}
