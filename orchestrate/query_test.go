package orchestrate

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestQueryClientUnderstandsAVector(t *testing.T) {
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/query" || r.URL.Query().Get("query") != `up{job="zeek"}` || r.URL.Query().Get("time") != "7" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, `{"data":{"result":[{"metric":{"__name__":"up","sensor":"zeek"},"value":[7,"1"]},{"metric":{},"value":[7,"NaN"]}]}}`)
	})
	list, err := NewQueryClient(probeTimeout).Instant(t.Context(), "http://"+at.String()+"/api/v1/query", url.Values{"query": {`up{job="zeek"}`}, "time": {"7"}})
	if err != nil || len(list) != 2 || list[0].Labels["sensor"] != "zeek" || list[0].Value != 1 || list[1].Value == list[1].Value {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestQueryClientTakesNothingElseForAnAnswer(t *testing.T) {
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"a status of its own": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "starting\nup", http.StatusServiceUnavailable)
		}, "answers 503 starting"},
		"a status without a word": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, "answers 404"},
		"no document":             {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, "read the answer: invalid character"},
		"a value that is none": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"data":{"result":[{"value":[1,2]}]}}`)
		}, "read the answer: strconv.ParseFloat"},
		"an answer without end": {func(w http.ResponseWriter, _ *http.Request) {
			for line := strings.Repeat("x", 1<<20); ; {
				if _, err := io.WriteString(w, line); err != nil {
					return
				}
			}
		}, "it has more than 8388608 bytes"},
		"an answer that is cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
		}, "read the answer: unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			at := serve(t, tc.answer)
			list, err := NewQueryClient(10*time.Second).Instant(t.Context(), "http://"+at.String()+"/", nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) || list != nil {
				t.Errorf("%v, %v; want %q", list, err, tc.want)
			}
		})
	}
}

func TestQueryClientLosesPatience(t *testing.T) {
	over := make(chan struct{})
	at := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(over) }) // before the server waits for its handlers
	_, err := NewQueryClient(time.Millisecond).Get(t.Context(), "http://"+at.String()+"/")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want a deadline", err)
	}
}
