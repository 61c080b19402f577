package forward

import (
	"encoding/json"
	"math"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestHistogramIsRightToAnEighth(t *testing.T) {
	values := []int64{0, 1, 7, 8, 9, 15, 16, 17, 1000, 123_456, 1e9, 1 << 40, math.MaxInt64 - 1, math.MaxInt64}
	last := -1
	for _, v := range values {
		i := bucket(v)
		if i < last || i >= histogramBuckets {
			t.Errorf("bucket of %d is %d", v, i)
		}
		last = i
		if up := upper(i); up < v || float64(up) > float64(v)*9/8 {
			t.Errorf("value %d lies in a bucket up to %d", v, up)
		}
		if i > 0 && upper(i-1) >= v {
			t.Errorf("value %d belongs into the bucket before", v)
		}
	}
}

func TestPercentiles(t *testing.T) {
	var h histogram
	if h.percentile(99) != 0 {
		t.Error("an empty histogram has no percentile")
	}
	for i := range int64(1000) {
		h.record(i * 1000)
	}
	h.record(-5) // early by clock granularity: counts as on time
	for _, tt := range []struct {
		p    float64
		want int64
	}{{50, 500_000}, {99, 990_000}, {100, 999_000}} {
		got := h.percentile(tt.p)
		if got < tt.want-1000 || float64(got) > float64(tt.want)*9/8 {
			t.Errorf("percentile %v is %d, want %d to an eighth", tt.p, got, tt.want)
		}
	}
	if h.max != 999_000 || h.percentile(100) > h.max {
		t.Errorf("maximum %d", h.max)
	}
}

func TestTally(t *testing.T) {
	var now, total tally
	frame := func(at int64, lt LinkType, out Outcome, n int) {
		now.frame(&Frame{Time: at, LinkType: lt}, out, n)
	}
	frame(50, LinkEthernet, Outcome{}, 1)
	frame(10, LinkRaw, Outcome{Flags: Normalised | CutBySnap}, 1)
	frame(90, LinkEthernet, Outcome{Flags: Resegmented}, 45)
	frame(20, LinkEthernet, Outcome{Flags: CutBySnap | Padded}, 1)
	frame(60, LinkIEEE802154, Outcome{Refusal: RefusedLinkType}, 0)
	total.merge(&now)
	frame(5, LinkIEEE802154, Outcome{Refusal: RefusedLinkType}, 0)
	frame(60, LinkEthernet, Outcome{Refusal: RefusedTooLong}, 0)
	now.send([]Datagram{{Len: 100}, {Len: ZeekDefaultDatagram}, {Len: ZeekDefaultDatagram + 1}}, []slot{{inner: 92}, {inner: 1}, {inner: 2}})
	total.merge(&now)

	s := Stats{total: total}
	rep := s.Snapshot()
	want := Report{
		FramesRead: 7, FramesNormalised: 1, FramesResegmented: 1, Segments: 45, FramesCut: 2, FramesPadded: 1, FramesRefused: 3,
		Refused:       []RefusedCount{{"unsupported link type", "IEEE802_15_4_WITHFCS", 2}, {"too long", "ETHERNET", 1}},
		DatagramsSent: 3, DatagramsOver9248: 1, InnerBytes: 95, PayloadBytes: 100 + 2*ZeekDefaultDatagram + 1,
		CaptureFirst: time.Unix(0, 5).UTC(), CaptureLast: time.Unix(0, 90).UTC(),
	}
	got, _ := json.Marshal(rep)
	wanted, _ := json.Marshal(want)
	if string(got) != string(wanted) {
		t.Errorf("got  %s\nwant %s", got, wanted)
	}
}

// Frames without a time are counted, the first is named, and their times are not
// the capture's.
func TestTallyOfBadTimes(t *testing.T) {
	var now, total tally
	now.frame(&Frame{Retimed: true}, Outcome{}, 1)
	now.firstRetimed = 1
	total.merge(&now)
	now.frame(&Frame{Time: 70}, Outcome{}, 1)
	now.frame(&Frame{Time: 80}, Outcome{}, 1)
	now.frame(&Frame{Time: 80, Retimed: true}, Outcome{}, 1)
	now.firstRetimed = 4
	total.merge(&now)
	s := Stats{total: total}
	rep := s.Snapshot()
	if rep.FramesRead != 4 || rep.FramesRetimed != 2 || rep.FirstRetimed != 1 || rep.CaptureFirst.UnixNano() != 70 || rep.CaptureLast.UnixNano() != 80 {
		t.Errorf("%+v", rep)
	}
}

// The names are what scripts rely on.
func TestReportAsJSON(t *testing.T) {
	var s Stats
	got, err := json.Marshal(s.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"finished":false,"elapsed_seconds":0,` +
		`"frames_read":0,"frames_filtered":0,"frames_normalised":0,"frames_resegmented":0,"segments":0,` +
		`"frames_cut_by_snap_length":0,"frames_padded":0,"frames_refused":0,"refused":[],` +
		`"datagrams_sent":0,"datagrams_unsent":0,"datagrams_over_9248_bytes":0,"inner_bytes":0,"payload_bytes":0,` +
		`"datagrams_per_second":0,"inner_bits_per_second":0,"payload_bits_per_second":0,` +
		`"late_max_ns":0,"late_p99_ns":0,"late_p50_ns":0,"stalls":0,"stalled_seconds":0}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

type stillClock struct{ Clock }

func (stillClock) Now() int64 { return 3e9 }

func TestRatesWhileRunningAndAfter(t *testing.T) {
	var s Stats
	s.begin(stillClock{}, 1e9)
	s.add(&tally{datagrams: 100, inner: 1000, payload: 1800}, nil, 0)
	if rep := s.Snapshot(); rep.ElapsedSeconds != 2 || rep.DatagramsPerSecond != 50 || rep.InnerBitsPerSecond != 4000 || rep.PayloadBitsPerSecond != 7200 {
		t.Errorf("while running: %+v", rep)
	}
	s.finish(4e9)
	rep := s.Snapshot()
	if rep.ElapsedSeconds != 4 || rep.DatagramsPerSecond != 25 || !rep.Finished || rep.End.Sub(rep.Start) != 4*time.Second {
		t.Errorf("afterwards: %+v", rep)
	}
}

// Run with -race: a progress display reads while the loop writes.
func TestSnapshotWhileRunning(t *testing.T) {
	var s Stats
	s.begin(stillClock{}, 0)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 1000 {
			s.add(&tally{datagrams: 1, frames: 1, refused: []refusedFrames{{RefusedTooLong, LinkRaw, 1}}}, []slot{{due: 1}}, 5)
		}
	})
	var last uint64
	for last < 1000 {
		rep := s.Snapshot()
		if rep.DatagramsSent < last || rep.FramesRefused != rep.DatagramsSent {
			t.Fatalf("snapshot %+v after %d datagrams", rep, last)
		}
		last = rep.DatagramsSent
	}
	wg.Wait()
}

func TestLinkTypeNames(t *testing.T) {
	names := map[string]LinkType{}
	for i := range 400 {
		lt := LinkType(i)
		name := lt.String()
		if other, taken := names[name]; taken && name != "RAW" {
			t.Errorf("link types %d and %d are both %q", other, lt, name)
		}
		names[name] = lt
	}
	for lt, want := range map[LinkType]string{1: "ETHERNET", 276: "LINUX_SLL2", 14: "RAW", 9999: "link type 9999"} {
		if got := lt.String(); got != want {
			t.Errorf("link type %d is %q, want %q", uint16(lt), got, want)
		}
	}
}

func TestRefusalNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range NumRefusals {
		if name := r.String(); seen[name] || strings.HasPrefix(name, "refusal ") {
			t.Errorf("refusal %d has no name of its own: %q", r, name)
		}
		seen[r.String()] = true
	}
}
