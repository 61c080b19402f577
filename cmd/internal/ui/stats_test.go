package ui

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
)

// lines is a writer that tells when there are enough.
type lines struct {
	mu     sync.Mutex
	text   strings.Builder
	enough chan struct{}
	left   int
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left--; l.left == 0 {
		close(l.enough)
	}
	return l.text.Write(p)
}

// A line comes again and again, and a last one at the end; for programs each is a
// document, news as well.
func TestStats(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		w := &lines{enough: make(chan struct{}), left: 4}
		s := NewStats(w, Terminal{Live: true}, time.Millisecond, asJSON)
		s.Say("begin")
		var packets uint64
		end := s.Meter(func() delivery.Reading {
			packets += 1000
			return delivery.Reading{Packets: packets, Bytes: 5, Elapsed: time.Minute, Mean: 7, Done: 1, Total: 2}
		})
		<-w.enough
		end()
		got := strings.Split(strings.TrimSpace(w.text.String()), "\n")
		for i, line := range got {
			var doc map[string]any
			err := json.Unmarshal([]byte(line), &doc)
			switch {
			case asJSON != (err == nil):
				t.Errorf("JSON %v: line %q", asJSON, line)
			case asJSON && i == 0 && doc["news"] != "begin":
				t.Errorf("news are %q", line)
			case asJSON && i > 0 && (doc["packets"] != float64(1000*i) || doc["elapsed_seconds"] != 60.0 || doc["input_total_bytes"] != 2.0):
				t.Errorf("line %d is %q", i, line)
			case !asJSON && i > 0 && !strings.HasPrefix(line, "1m0s:  50 %  "):
				t.Errorf("line %d is %q", i, line)
			}
		}
		if w.mu.Lock(); uint64(len(got)-1) != packets/1000 {
			t.Errorf("%d lines, %d readings", len(got), packets/1000)
		}
		w.mu.Unlock()
	}
}
