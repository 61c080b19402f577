package sidecar

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// nothing is a source at its end.
type nothing struct{}

func (nothing) Next(*forward.Frame) error { return io.EOF }
func (nothing) Close() error              { return nil }

// discard is a standard input that takes all.
type discard struct{ io.Writer }

func (discard) Close() error { return nil }

// What the sidecar says reaches who watches the run, and a loss over there is a
// loss here; another failure is none.
func TestNewsOfASidecar(t *testing.T) {
	for _, loss := range []bool{true, false} {
		var out bytes.Buffer
		for _, m := range []Message{
			{News: []string{"it has taken nothing for 3s", "it takes packets again"}},
			{Final: true, Error: "wait for the sensor", Loss: loss, News: []string{"it has taken nothing for 4s"}},
		} {
			if err := m.write(&out); err != nil {
				t.Fatal(err)
			}
		}
		c := NewClient(nil, netip.MustParseAddrPort("127.0.0.1:9"), orchestrate.SidecarStreams{Stdin: discard{io.Discard}, Stdout: &out, Stderr: strings.NewReader(""),
			Close: func() error { return nil }, Wait: func(context.Context) (int, error) { return 0, nil }})
		var said []string
		c.Say = func(line string) { said = append(said, line) }
		_, err := c.Run(t.Context(), Job{}, nothing{})
		var lost *watch.LossError
		if err == nil || err.Error() != "wait for the sensor" || errors.As(err, &lost) != loss {
			t.Errorf("loss %t: %v", loss, err)
		}
		if want := []string{"it has taken nothing for 3s", "it takes packets again", "it has taken nothing for 4s"}; !slices.Equal(said, want) {
			t.Errorf("said %q", said)
		}
	}
}
