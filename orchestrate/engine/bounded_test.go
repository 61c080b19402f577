package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWithin(t *testing.T) {
	hangs := func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }
	cause, stopped := errors.New("refused"), errors.New("stopped")
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	for name, tt := range map[string]struct {
		ctx   context.Context
		call  func(context.Context) (int, error)
		is    error
		value int
	}{
		"an answer":          {t.Context(), func(context.Context) (int, error) { return 7, nil }, nil, 7},
		"a refusal":          {t.Context(), func(context.Context) (int, error) { return 0, cause }, cause, 0},
		"no answer":          {t.Context(), hangs, errNoAnswer, 0},
		"interrupted before": {ended, hangs, context.Canceled, 0},
	} {
		if got, err := within(tt.ctx, 50*time.Millisecond, func(ctx context.Context, _ struct{}) (int, error) { return tt.call(ctx) }, struct{}{}); got != tt.value || !errors.Is(err, tt.is) || tt.is == nil && err != nil {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}

// A daemon that accepts and says nothing is told in seconds, and what to do.
func TestAnEngineThatHangs(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	t.Setenv("DOCKER_CONTEXT", "")
	begun := time.Now()
	e, err := Connect(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	_, err = e.Info(t.Context())
	var advice interface{ Hint() string }
	if !errors.Is(err, errNoAnswer) || !strings.Contains(err.Error(), socket) || !errors.As(err, &advice) || !strings.Contains(advice.Hint(), "says nothing") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begun); took > 3*reachLimit {
		t.Errorf("it took %s", took)
	}
}
