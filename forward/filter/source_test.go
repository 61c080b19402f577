package filter

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// list is a Source of given frames. wait holds those before which it would
// have to wait.
type list struct {
	frames []forward.Frame
	next   int
	wait   map[int]bool
	links  []forward.LinkType
	err    error
	closed bool
}

func (l *list) Next(f *forward.Frame) error {
	if l.next == len(l.frames) {
		if l.err != nil {
			return l.err
		}
		return io.EOF
	}
	*f = l.frames[l.next]
	l.next++
	return nil
}

func (l *list) Close() error                  { l.closed = true; return nil }
func (l *list) LinkTypes() []forward.LinkType { return l.links }
func (l *list) Progress() (int64, int64)      { return int64(l.next), int64(len(l.frames)) }

func (l *list) Ready() bool {
	waits := l.wait[l.next]
	delete(l.wait, l.next)
	return !waits
}

// Frames of two link types; the number is the IP version.
func raw4() forward.Frame { return rawFrame(forward.LinkRaw, 0x45) }
func raw6() forward.Frame { return rawFrame(forward.LinkRaw, 0x60) }
func only4() forward.Frame {
	return rawFrame(forward.LinkIPv4, 0x45)
}

func rawFrame(lt forward.LinkType, first byte) forward.Frame {
	data := make([]byte, 60)
	data[0] = first
	return forward.Frame{Data: data, Length: 60, LinkType: lt}
}

func yielded(t *testing.T, f *Filter) (versions string, err error) {
	t.Helper()
	for {
		var frame forward.Frame
		if err := f.Next(&frame); errors.Is(err, io.EOF) {
			return versions, nil
		} else if err != nil {
			return versions, err
		}
		versions += string('0' + rune(frame.Data[0]>>4))
	}
}

// TestSource filters by the program of each frame's own link type.
func TestSource(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	frames := []forward.Frame{raw4(), raw6(), only4(), raw6(), raw4(), only4()}
	tests := []struct {
		expr     string
		links    []forward.LinkType
		want     string
		filtered uint64
	}{
		{"ip", []forward.LinkType{forward.LinkRaw, forward.LinkIPv4}, "4444", 2},
		{"ip6", []forward.LinkType{forward.LinkRaw, forward.LinkIPv4}, "66", 4},
		{"ip6", []forward.LinkType{forward.LinkRaw}, "66", 4}, // the other is met later
		{"ip6", nil, "66", 4},
		{"", nil, "464644", 0},
		{"greater 61", nil, "", 6},
	}
	for _, test := range tests {
		t.Run(test.expr, func(t *testing.T) {
			src := &list{frames: frames, links: test.links}
			f, err := Source(t.Context(), src, test.expr)
			if err != nil {
				t.Fatal(err)
			}
			got, err := yielded(t, f)
			if err != nil || got != test.want || f.Filtered() != test.filtered {
				t.Errorf("%q, %d filtered, %v, want %q, %d", got, f.Filtered(), err, test.want, test.filtered)
			}
			if done, total := f.Progress(); done != 6 || total != 6 {
				t.Errorf("progress %d of %d", done, total)
			}
			if err := f.Close(); err != nil || !src.closed {
				t.Errorf("closed: %v, %v", src.closed, err)
			}
		})
	}
}

// TestSourceRefusesEarly finds a wrong expression before any frame is taken,
// where the link types are known, and with the first frame elsewhere.
func TestSourceRefusesEarly(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	src := &list{frames: []forward.Frame{only4()}, links: []forward.LinkType{forward.LinkIPv4}}
	var refused *Error
	if _, err := Source(t.Context(), src, "tcp prt 80"); !errors.As(err, &refused) || src.next > 0 || src.closed {
		t.Errorf("%v, %d frames taken, closed %v", err, src.next, src.closed)
	}
	if _, err := Source(t.Context(), src, "ip6"); !errors.As(err, &refused) || !refused.RejectsAll() {
		t.Errorf("an expression that can match nothing: %v", err)
	}
	src.links = nil
	f, err := Source(t.Context(), src, "tcp prt 80")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := yielded(t, f); got != "" || err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSourceReady says no only where the next matching frame is still to come,
// and loses nothing by looking.
func TestSourceReady(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	broken := errors.New("capture is damaged")
	src := &list{
		frames: []forward.Frame{raw4(), raw6(), raw6(), raw4(), raw6()},
		wait:   map[int]bool{2: true}, err: broken,
	}
	f, err := Source(t.Context(), src, "ip")
	if err != nil {
		t.Fatal(err)
	}
	var frame forward.Frame
	for _, step := range []struct {
		ready bool
		next  bool
		err   error
	}{
		{true, true, nil},     // the first frame
		{false, false, nil},   // the second does not match, the third is not there
		{true, true, nil},     // it does not match either, the fourth does
		{true, true, broken},  // the fifth does not match, then there is damage
		{true, false, broken}, // for good
	} {
		if got := f.Ready(); got != step.ready {
			t.Errorf("before frame %d: ready %v", src.next, got)
		}
		if f.Ready() != step.ready && step.ready {
			t.Error("asked twice, another answer")
		}
		if !step.next {
			continue
		}
		if err := f.Next(&frame); !errors.Is(err, step.err) || err == nil && frame.Data[0] != 0x45 {
			t.Errorf("frame %d: %x, %v", src.next, frame.Data[0], err)
		}
	}
	if f.Filtered() != 3 {
		t.Errorf("%d filtered, want 3", f.Filtered())
	}
}

// TestSourceNoAllocations filters without allocating per frame.
func TestSourceNoAllocations(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	src := &list{frames: []forward.Frame{raw4(), raw6(), raw4()}, links: []forward.LinkType{forward.LinkRaw}}
	f, err := Source(t.Context(), src, "ip")
	if err != nil {
		t.Fatal(err)
	}
	var frame forward.Frame
	if allocs := testing.AllocsPerRun(100, func() {
		src.next = 0
		f.Ready()
		f.Next(&frame)
		f.Next(&frame)
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
