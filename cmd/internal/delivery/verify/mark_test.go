package verify

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// heard is an observer that keeps what it is told.
type heard struct {
	quiet
	lines bytes.Buffer
}

func (h *heard) Say(line string) { h.lines.WriteString(line + "\n") }

// A verification is one of the runs that the stack's dashboards list, though its
// sensor is none of the stack's; where it cannot be listed, that is all there is to
// it, and where there is no stack, not even that.
func TestAVerificationIsMarked(t *testing.T) {
	temporary(t)
	for name, tt := range map[string]struct {
		stack  bool
		status int
		fail   error
		want   string // of what Grafana is told
		said   string
	}{
		"equal":            {stack: true, status: 200, want: `^\{"data":\{"kind":"verify","what":"sample.pcap","sensor":"zeek","way":"(sidecar|published)","packets":432,("lost":0,)?"verdict":"equal","delivery":"(taken|sent)"\},"tags":\["zeekdemo","verify"\],"text":"verify sample.pcap: equal","time":\d+,"timeEnd":\d+\}$`},
		"refused":          {stack: true, status: 500, want: `.`, said: "Not marked in the dashboards: annotate in Grafana: answers 500 no disk\n"},
		"no stack":         {want: `^$`},
		"nothing was sent": {stack: true, status: 200, fail: errors.New("no image"), want: `^$`},
	} {
		t.Run(name, func(t *testing.T) {
			var told string
			grafana := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				told += string(body)
				w.WriteHeader(tt.status)
				io.WriteString(w, `{"id":7,"message":"no disk"}`)
			}))
			defer grafana.Close()
			e, o, h := newFake(t), options(), &heard{}
			o.Observer = h
			if tt.fail != nil {
				e.fail["start live"] = tt.fail
			}
			if tt.stack {
				at := netip.MustParseAddrPort(strings.TrimPrefix(grafana.URL, "http://"))
				e.stack = []orchestrate.Container{{Service: "grafana", State: "running",
					Ports: []orchestrate.PublishedPort{{HostIP: at.Addr(), HostPort: at.Port(), ContainerPort: 3000, Protocol: "tcp"}}}}
			}
			verified(t, t.Context(), e, e, sample(t), o)
			if !regexp.MustCompile(tt.want).MatchString(told) {
				t.Errorf("told %s, want %s", told, tt.want)
			}
			if said := h.lines.String(); !strings.HasSuffix(said, tt.said) || tt.said == "" && strings.Contains(said, "marked") {
				t.Errorf("said %q, want %q", said, tt.said)
			}
		})
	}
}

var _ delivery.Observer = (*heard)(nil)
