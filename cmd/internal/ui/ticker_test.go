package ui

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// locked is a buffer that a test may read while it is written.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// tickFor shows lines until want is there, and returns what was written in all.
func tickFor(t *testing.T, term Terminal, want string) string {
	t.Helper()
	var out locked
	ticker := NewTicker(&out, term, func() []string { return []string{"eth0: 1 packet", "eth1: a line that is longer than the terminal"} })
	ticker.Say("news")
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), want); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %q", want, out.String())
		}
	}
	ticker.Say("more news")
	ticker.Close()
	return out.String()
}

func TestATickerShowsPlainLines(t *testing.T) {
	t.Parallel()
	if got, want := tickFor(t, Terminal{}, "terminal\n"), "news\neth0: 1 packet\neth1: a line that is longer than the terminal\nmore news\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestATickerReplacesLinesOnATerminal(t *testing.T) {
	t.Parallel()
	term := Terminal{Live: true, Size: func() (int, int) { return 20, 10 }}
	want := "news\neth0: 1 packet\neth1: a line that …\n\x1b[A\x1b[A\r\x1b[Jmore news\n"
	if got := tickFor(t, term, "that …\n"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
