package forward

import (
	"math"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// ZeekDefaultDatagram is the size in bytes of the longest datagram that Zeek's
// UDP packet source takes whole unless its option
// PacketSource::UDP::recvmmsg_buffer_size is raised. It cuts longer ones.
const ZeekDefaultDatagram = 9248

// Stats counts one run. Its zero value is ready. The Pipeline writes it once
// per batch; Snapshot may be called from any goroutine at any time.
type Stats struct {
	mu       sync.Mutex
	clock    Clock // nil before the start
	origin   int64 // clock's time at the start
	start    time.Time
	elapsed  int64 // of a finished run, nanoseconds
	finished bool

	total tally
	late  histogram
}

// tally holds the sums: in the loop those since the last publication, in Stats
// those since the start. The loop's belongs to the loop alone, so counting a
// frame takes no lock and no atomic operation.
type tally struct {
	frames, normalised, resegmented, segments, cut, padded uint64
	repaired, sumsOpen, sumsFixed                          uint64
	filtered                                               uint64 // always since the start

	datagrams, oversize, unsent, inner, payload uint64

	stalls  uint64
	stalled time.Duration

	first, last  int64  // earliest and latest capture time, if any frame has one
	timed        uint64 // frames that have one
	retimed      uint64 // frames that have none
	firstRetimed uint64 // number of the first of those in the input, from 1
	refused      []refusedFrames
}

// refusedFrames counts frames that could not pass, for one reason and of one
// link type.
type refusedFrames struct {
	Reason   Refusal
	LinkType LinkType
	Frames   uint64
}

// frame counts one frame and what became of it.
func (t *tally) frame(f *Frame, out Outcome, datagrams int) {
	t.frames++
	if f.Retimed {
		t.retimed++
	} else {
		t.time(f.Time)
	}
	if out.Refusal != RefusedNot {
		t.refuse(refusedFrames{out.Refusal, f.LinkType, 1})
		return
	}
	if out.Flags != 0 {
		t.flags(out.Flags, datagrams)
	}
}

// time notes the capture time of a frame.
func (t *tally) time(at int64) {
	if t.timed == 0 {
		t.first, t.last = at, at
	}
	t.first, t.last = min(t.first, at), max(t.last, at)
	t.timed++
}

func (t *tally) flags(flags OutcomeFlags, datagrams int) {
	if flags&Normalised != 0 {
		t.normalised++
	}
	if flags&Resegmented != 0 {
		t.resegmented++
		t.segments += uint64(datagrams)
	}
	if flags&CutBySnap != 0 {
		t.cut++
	}
	if flags&Padded != 0 {
		t.padded++
	}
	if flags&LengthRepaired != 0 {
		t.repaired++
	}
	if flags&ChecksumsOpen != 0 {
		t.sumsOpen++
	}
	if flags&ChecksumsFixed != 0 {
		t.sumsFixed++
	}
}

func (t *tally) refuse(r refusedFrames) {
	for i := range t.refused {
		if t.refused[i].Reason == r.Reason && t.refused[i].LinkType == r.LinkType {
			t.refused[i].Frames += r.Frames
			return
		}
	}
	t.refused = append(t.refused, r)
}

// send counts datagrams that were handed over.
func (t *tally) send(sent []Datagram, slots []slot) {
	t.datagrams += uint64(len(sent))
	for i := range sent {
		t.payload += uint64(sent[i].Len)
		t.inner += uint64(slots[i].inner)
		if sent[i].Len > ZeekDefaultDatagram {
			t.oversize++
		}
	}
}

// merge adds o, which came later, and empties it.
func (t *tally) merge(o *tally) {
	if o.timed > 0 {
		if t.timed == 0 {
			t.first, t.last = o.first, o.last
		}
		t.first, t.last = min(t.first, o.first), max(t.last, o.last)
	}
	if t.retimed == 0 {
		t.firstRetimed = o.firstRetimed
	}
	t.timed += o.timed
	t.retimed += o.retimed
	t.frames += o.frames
	t.normalised += o.normalised
	t.resegmented += o.resegmented
	t.segments += o.segments
	t.cut += o.cut
	t.padded += o.padded
	t.repaired += o.repaired
	t.sumsOpen += o.sumsOpen
	t.sumsFixed += o.sumsFixed
	t.filtered = max(t.filtered, o.filtered)
	t.datagrams += o.datagrams
	t.oversize += o.oversize
	t.unsent += o.unsent
	t.inner += o.inner
	t.payload += o.payload
	t.stalls += o.stalls
	t.stalled += o.stalled
	for _, r := range o.refused {
		t.refuse(r)
	}
	*o = tally{refused: o.refused[:0]}
}

// begin notes the start of a run.
func (s *Stats) begin(clock Clock, origin int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock, s.origin, s.start = clock, origin, time.Now()
}

// add merges and empties t. The datagrams of slots left at time left.
func (s *Stats) add(t *tally, slots []slot, left int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total.merge(t)
	for i := range slots {
		if slots[i].due != AtOnce {
			s.late.record(left - slots[i].due)
		}
	}
}

// finish notes the end of a run, elapsed nanoseconds after its start.
func (s *Stats) finish(elapsed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	if s.clock != nil {
		s.elapsed = elapsed
	}
}

// sent returns the number of datagrams sent.
func (s *Stats) sent() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total.datagrams
}

// Report is what a run did, as a document: the JSON names are stable. Counts of
// frames are of frames in the capture, counts of datagrams of what was sent for
// them. Bytes are inner (Ethernet frames, after normalisation, without
// preamble and checksum) or payload (of the outer UDP datagrams: tunnel header
// and inner frame).
type Report struct {
	Finished       bool      `json:"finished"` // false: taken while it ran
	Start          time.Time `json:"start,omitzero"`
	End            time.Time `json:"end,omitzero"` // or the time of the snapshot
	ElapsedSeconds float64   `json:"elapsed_seconds"`

	FramesRead        uint64 `json:"frames_read"` // in all; filtered ones too
	FramesFiltered    uint64 `json:"frames_filtered"`
	FramesNormalised  uint64 `json:"frames_normalised"`
	FramesResegmented uint64 `json:"frames_resegmented"` // TCP super-frames
	Segments          uint64 `json:"segments"`           // datagrams they became
	FramesCut         uint64 `json:"frames_cut_by_snap_length"`
	FramesPadded      uint64 `json:"frames_padded"` // of those, filled up with zeros
	// What a capturing host had left to its network card, so that the capture does
	// not have it: IP headers without a length, which were given one, and checksums
	// (of the frame's own packet or of one within a tunnel in it),
	// which stay open unless they were to be computed.
	FramesLengthRepaired uint64 `json:"frames_length_repaired,omitempty"`
	FramesChecksumsOpen  uint64 `json:"frames_checksums_open,omitempty"`
	FramesChecksumsFixed uint64 `json:"frames_checksums_fixed,omitempty"`
	// FramesRetimed have no time in the capture, or none that a pcap file can hold
	// (from 1970 to February 2106): they are paced and written at the time of the
	// frame before. FirstRetimed is the number of the first of them among all
	// frames read, from 1; 0 where there is none.
	FramesRetimed uint64         `json:"frames_retimed,omitempty"`
	FirstRetimed  int64          `json:"first_frame_retimed,omitempty"`
	FramesRefused uint64         `json:"frames_refused"`
	Refused       []RefusedCount `json:"refused"`                // most frames first
	CaptureFirst  time.Time      `json:"capture_first,omitzero"` // earliest capture time of a frame
	CaptureLast   time.Time      `json:"capture_last,omitzero"`

	// Damages are the places where captures could not be read any further, each
	// once. What was before them is counted above.
	Damages []Damage `json:"damages,omitempty"`

	DatagramsSent     uint64 `json:"datagrams_sent"`
	DatagramsUnsent   uint64 `json:"datagrams_unsent"`          // ready when the run failed or was interrupted
	DatagramsOver9248 uint64 `json:"datagrams_over_9248_bytes"` // longer than ZeekDefaultDatagram
	InnerBytes        uint64 `json:"inner_bytes"`
	PayloadBytes      uint64 `json:"payload_bytes"`

	DatagramsPerSecond   float64 `json:"datagrams_per_second"` // mean
	InnerBitsPerSecond   float64 `json:"inner_bits_per_second"`
	PayloadBitsPerSecond float64 `json:"payload_bits_per_second"`

	// How much later than due datagrams were handed to the sink. All zero where
	// there is no schedule. The percentiles are upper bounds, at most an eighth
	// above the true value.
	LateMaxNS int64 `json:"late_max_ns"`
	LateP99NS int64 `json:"late_p99_ns"`
	LateP50NS int64 `json:"late_p50_ns"`

	Stalls         uint64  `json:"stalls"`          // how often the gate waited for the receiver
	StalledSeconds float64 `json:"stalled_seconds"` // how long in all
}

// RefusedCount is one line of a report's list of what could not pass.
type RefusedCount struct {
	Reason   string `json:"reason"`    // as Refusal.String names it
	LinkType string `json:"link_type"` // as LinkType.String names it
	Frames   uint64 `json:"frames"`
}

// Damage is a place where a capture could not be read any further.
type Damage struct {
	File   string `json:"file"`
	Packet int64  `json:"packet"` // the first that could not be read, from 1
	Offset int64  `json:"offset"` // of its record in the uncompressed capture, in bytes
	What   string `json:"what"`   // the whole of it in a sentence: file, packet, place and cause
}

// Snapshot reports the run as it stands. It lags behind by at most the batch
// that is being filled.
func (s *Stats) Snapshot() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.total
	rep := Report{
		Finished:          s.finished,
		FramesRead:        t.frames + t.filtered,
		FramesFiltered:    t.filtered,
		FramesNormalised:  t.normalised,
		FramesResegmented: t.resegmented,
		Segments:          t.segments,
		FramesCut:         t.cut,
		FramesPadded:      t.padded,
		FramesRetimed:     t.retimed,

		FramesLengthRepaired: t.repaired, FramesChecksumsOpen: t.sumsOpen, FramesChecksumsFixed: t.sumsFixed,

		FirstRetimed:      int64(t.firstRetimed),
		DatagramsSent:     t.datagrams,
		DatagramsUnsent:   t.unsent,
		DatagramsOver9248: t.oversize,
		InnerBytes:        t.inner,
		PayloadBytes:      t.payload,
		LateMaxNS:         s.late.max,
		LateP99NS:         s.late.percentile(99),
		LateP50NS:         s.late.percentile(50),
		Stalls:            t.stalls,
		StalledSeconds:    t.stalled.Seconds(),
	}
	if t.timed > 0 {
		rep.CaptureFirst, rep.CaptureLast = time.Unix(0, t.first).UTC(), time.Unix(0, t.last).UTC()
	}
	rep.Refused, rep.FramesRefused = refusedCounts(t.refused)
	s.times(&rep)
	return rep
}

// times fills in when and how fast.
func (s *Stats) times(rep *Report) {
	if s.clock == nil {
		return
	}
	elapsed := s.elapsed
	if !s.finished {
		elapsed = s.clock.Now() - s.origin
	}
	rep.ElapsedSeconds = time.Duration(elapsed).Seconds()
	rep.Start, rep.End = s.start.Round(0), s.start.Add(time.Duration(elapsed)).Round(0)
	if elapsed > 0 {
		rep.DatagramsPerSecond = float64(rep.DatagramsSent) / rep.ElapsedSeconds
		rep.InnerBitsPerSecond = 8 * float64(rep.InnerBytes) / rep.ElapsedSeconds
		rep.PayloadBitsPerSecond = 8 * float64(rep.PayloadBytes) / rep.ElapsedSeconds
	}
}

// refusedCounts names what was refused. The list is empty, not nil, where
// nothing was: JSON documents show [].
func refusedCounts(refused []refusedFrames) (list []RefusedCount, frames uint64) {
	list = make([]RefusedCount, 0, len(refused))
	for _, r := range refused {
		list = append(list, RefusedCount{r.Reason.String(), r.LinkType.String(), r.Frames})
		frames += r.Frames
	}
	slices.SortStableFunc(list, func(a, b RefusedCount) int {
		switch {
		case a.Frames > b.Frames:
			return -1
		case a.Frames < b.Frames:
			return 1
		}
		return 0
	})
	return list, frames
}

// histogram counts durations in buckets whose width is an eighth of the power
// of two below them, so that a percentile is right to an eighth.
type histogram struct {
	buckets [histogramBuckets]uint64
	count   uint64
	max     int64
}

// A value below 8 has a bucket of its own; above, each of the 60 remaining
// powers of two of an int64 has 8.
const histogramBuckets = 8 + 60*8

func (h *histogram) record(ns int64) {
	ns = max(ns, 0)
	h.buckets[bucket(ns)]++
	h.count++
	h.max = max(h.max, ns)
}

func bucket(ns int64) int {
	if ns < 8 {
		return int(ns)
	}
	shift := bits.Len64(uint64(ns)) - 4 // leaves four bits, the highest of them set
	return 8 + shift*8 + int(ns>>shift) - 8
}

// upper returns the largest value that belongs into bucket i.
func upper(i int) int64 {
	if i < 8 {
		return int64(i)
	}
	shift := (i - 8) / 8
	return int64(uint64((i-8)%8+9)<<shift - 1)
}

// percentile returns a value that p percent of all recorded ones do not exceed.
func (h *histogram) percentile(p float64) int64 {
	need := uint64(math.Ceil(float64(h.count) * p / 100))
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; n > 0 && seen >= need {
			return min(upper(i), h.max)
		}
	}
	return 0
}
