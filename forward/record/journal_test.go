package record

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
)

var vxlan = encap.Config{Kind: encap.VXLAN, VNI: 7}

// source yields frames of Ethernet.
type source struct{ list [][]byte }

func (s *source) Next(f *forward.Frame) error {
	if len(s.list) == 0 {
		return io.EOF
	}
	*f = forward.Frame{Data: s.list[0], Length: len(s.list[0]), LinkType: forward.LinkEthernet}
	s.list = s.list[1:]
	return nil
}

func (s *source) Close() error { return nil }

// clock goes on by a while at each look, and once back.
func clock() func() time.Time {
	n := 0
	return func() time.Time {
		n++
		if n == 6 {
			return time.Unix(0, 1)
		}
		return time.Unix(1_700_000_000, int64(n*n)*12_345)
	}
}

// send sends the frames in batches of one, two, three...
func send(t *testing.T, r *Recorder, list [][]byte) {
	t.Helper()
	r.now = clock()
	for size := 1; len(list) > 0; size++ {
		n := min(size, len(list))
		if _, err := r.Send(encapsulated(t, vxlan, list[:n]...)); err != nil && !errors.Is(err, errFull) {
			t.Fatal(err)
		}
		list = list[n:]
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// numbered returns n frames that differ.
func numbered(n int) (list [][]byte) {
	for i := range n {
		list = append(list, frame(i))
	}
	return list
}

// journalOf is the journal of a run in which the sink took the first datagrams.
func journalOf(t *testing.T, list [][]byte, room int) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	send(t, NewJournal(&taker{room: room}, &b), list)
	return &b
}

func rebuilt(t *testing.T, journal io.Reader, from [][]byte) ([]byte, error) {
	t.Helper()
	e, err := encap.New(vxlan)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	n, _, err := Rebuild(t.Context(), journal, &source{from}, e, vxlan.Kind, &out, "test")
	if frames := out.Len() / (16 + 60); err == nil && n > uint64(frames) {
		t.Errorf("%d datagrams in %d bytes", n, out.Len())
	}
	return out.Bytes(), err
}

// What is rebuilt from a journal is what would have been recorded, byte for
// byte, also where the run ended early.
func TestRebuild(t *testing.T) {
	for name, room := range map[string]int{"all": 100, "some": 7, "none": 0} {
		t.Run(name, func(t *testing.T) {
			list := numbered(40)
			var want bytes.Buffer
			r, err := New(&taker{room: room}, vxlan.Kind, &want, "test")
			if err != nil {
				t.Fatal(err)
			}
			send(t, r, list)
			n, _ := r.Sent()
			journal := journalOf(t, list, room)
			if journal.Len() > int(n)*16 {
				t.Errorf("the journal of %d datagrams has %d bytes", n, journal.Len())
			}
			got, err := rebuilt(t, journal, list)
			if err != nil || !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%d bytes, want %d: %v", len(got), want.Len(), err)
			}
		})
	}
}

// Whatever happened to the frames between here and the sender is found.
func TestRebuildFindsWhatWasAltered(t *testing.T) {
	for name, change := range map[string]func(list [][]byte) [][]byte{
		"lost":    func(l [][]byte) [][]byte { return append(l[:4:4], l[5:]...) },
		"doubled": func(l [][]byte) [][]byte { return append(l[:5:5], l[4:]...) },
		"swapped": func(l [][]byte) [][]byte { l[4], l[5] = l[5], l[4]; return l },
		"cut":     func(l [][]byte) [][]byte { l[4] = l[4][:20]; return l },
		"altered": func(l [][]byte) [][]byte { l[4] = bytes.Clone(l[4]); l[4][30]++; return l },
		"ended":   func(l [][]byte) [][]byte { return l[:4] },
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := rebuilt(t, journalOf(t, numbered(10), 100), change(numbered(10))); !errors.Is(err, ErrAltered) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestADamagedJournal(t *testing.T) {
	whole := journalOf(t, numbered(1), 1).Bytes()
	for n := 1; n < len(whole); n++ {
		if _, err := rebuilt(t, bytes.NewReader(whole[:n]), numbered(1)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	if _, err := rebuilt(t, strings.NewReader("\x00\x00\x00\x00\x00\x00\x00\x00"), nil); err == nil || !strings.Contains(err.Error(), "makes no sense") {
		t.Errorf("no datagrams: %v", err)
	}
}

// Whatever comes, nothing is written that was not there.
func FuzzRebuild(f *testing.F) {
	var b bytes.Buffer
	j := &journal{out: &b}
	e, err := encap.New(vxlan)
	if err != nil {
		f.Fatal(err)
	}
	batch := &forward.Batch{}
	for _, data := range numbered(3) {
		e.Encapsulate(batch, &forward.Frame{Data: data, Length: len(data), LinkType: forward.LinkEthernet})
	}
	if err := j.enter(batch, 3, 5, 9); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 1, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if out, err := rebuilt(t, bytes.NewReader(data), numbered(20)); err == nil && len(out) > 24+20*(16+80) {
			t.Errorf("%d bytes", len(out))
		}
	})
}
