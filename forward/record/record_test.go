package record

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
)

// taker takes a fixed number of datagrams, then fails.
type taker struct {
	room   int
	closed bool
}

var errFull = errors.New("full")

func (s *taker) Send(b *forward.Batch) (int, error) {
	n := min(s.room, len(b.Datagrams))
	s.room -= n
	if n < len(b.Datagrams) {
		return n, errFull
	}
	return n, nil
}

func (s *taker) Close() error { s.closed = true; return nil }

// encapsulated returns frames as one batch.
func encapsulated(t *testing.T, c encap.Config, frames ...[]byte) *forward.Batch {
	t.Helper()
	e, err := encap.New(c)
	if err != nil {
		t.Fatal(err)
	}
	b := &forward.Batch{}
	for _, data := range frames {
		out := e.Encapsulate(b, &forward.Frame{Data: data, Length: len(data), LinkType: forward.LinkEthernet, Time: 1})
		if out.Refusal != forward.RefusedNot {
			t.Fatalf("refused: %v", out.Refusal)
		}
	}
	return b
}

func frame(n int) []byte {
	f := bytes.Repeat([]byte{byte(n)}, 60+n)
	copy(f[12:], []byte{0x88, 0xb5}) // local experimental: no network header to look at
	return f
}

func options(t *testing.T) []encap.Option {
	t.Helper()
	o, err := encap.ParseOption("0108:01:0000000000000001")
	if err != nil {
		t.Fatal(err)
	}
	return []encap.Option{o}
}

// The file holds the inner frames as they were, with the times of sending in
// order, whatever the header before them.
func TestRecordsInnerFrames(t *testing.T) {
	withOption := encap.Config{Kind: encap.GENEVE, VNI: 7}
	for _, o := range options(t) {
		withOption.SetOption(o)
	}
	for name, config := range map[string]encap.Config{
		"vxlan": {Kind: encap.VXLAN, VNI: 7}, "geneve": {Kind: encap.GENEVE, VNI: 7}, "geneve with an option": withOption,
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			sink := &taker{room: 100}
			r, err := New(sink, config.Kind, &out, "test")
			if err != nil {
				t.Fatal(err)
			}
			times := []int64{1000, 1300, 900, 1200} // the clock goes back between the batches
			r.now = func() time.Time { now := times[0]; times = times[1:]; return time.Unix(0, now) }
			b := encapsulated(t, config, frame(1), frame(2), frame(3))
			for range 2 {
				if n, err := r.Send(b); n != 3 || err != nil {
					t.Fatalf("Send: %d, %v", n, err)
				}
			}
			if err := r.Close(); err != nil || !sink.closed {
				t.Fatalf("Close: %v, sink closed: %v", err, sink.closed)
			}
			checkRecorded(t, &out, 1000, 1100, 1200, 1300, 1300, 1300)
			if n, size := r.Sent(); n != 6 || size != 2*uint64(len(b.Buf)) {
				t.Errorf("Sent: %d datagrams, %d bytes, want 6 and %d", n, size, 2*len(b.Buf))
			}
		})
	}
}

// checkRecorded reads frames 1 to 3, over and over, one for each time.
func checkRecorded(t *testing.T, file io.Reader, times ...int64) {
	t.Helper()
	in, err := pcapfile.NewReader(file, "test")
	if err != nil {
		t.Fatal(err)
	}
	var f forward.Frame
	for i, want := range times {
		if err := in.Next(&f); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if !bytes.Equal(f.Data, frame(i%3+1)) || f.Length != len(f.Data) || f.Time != want {
			t.Errorf("frame %d: %d bytes of %d at %d, want %d bytes at %d", i, len(f.Data), f.Length, f.Time, len(frame(i%3+1)), want)
		}
	}
	if err := in.Next(&f); err != io.EOF {
		t.Errorf("after the last frame: %v", err)
	}
}

// What the sink did not take was not sent and is not recorded.
func TestRecordsOnlyWhatWasTaken(t *testing.T) {
	var out bytes.Buffer
	config := encap.Config{Kind: encap.VXLAN}
	r, err := New(&taker{room: 2}, config.Kind, &out, "test")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.Send(encapsulated(t, config, frame(1), frame(2), frame(3))); n != 2 || !errors.Is(err, errFull) {
		t.Fatalf("Send: %d, %v; want 2 and the sink's error", n, err)
	}
	if n, _ := r.Sent(); n != 2 {
		t.Errorf("Sent: %d, want 2", n)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if want := 24 + 16 + len(frame(1)) + 16 + len(frame(2)); out.Len() != want {
		t.Errorf("the file has %d bytes, want %d", out.Len(), want)
	}
}
