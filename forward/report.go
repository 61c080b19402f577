package forward

import (
	"slices"
	"time"
)

// JoinReports adds up what several pipelines did, which ran at the same time or
// one after the other. Times and rates are those of the first; see
// [Report.Between].
func JoinReports(list []Report) Report {
	if len(list) == 0 {
		return Report{Finished: true, Refused: []RefusedCount{}}
	}
	sum := list[0]
	sum.Refused = slices.Clone(sum.Refused)
	for _, r := range list[1:] {
		sum.add(&r)
	}
	return sum
}

// add adds what another pipeline did.
func (r *Report) add(o *Report) {
	r.span(o)
	r.Finished = r.Finished && o.Finished
	for _, n := range []struct {
		to   *uint64
		more uint64
	}{
		{&r.FramesRead, o.FramesRead}, {&r.FramesFiltered, o.FramesFiltered}, {&r.FramesNormalised, o.FramesNormalised},
		{&r.FramesResegmented, o.FramesResegmented}, {&r.Segments, o.Segments}, {&r.FramesCut, o.FramesCut}, {&r.FramesPadded, o.FramesPadded},
		{&r.FramesLengthRepaired, o.FramesLengthRepaired}, {&r.FramesChecksumsOpen, o.FramesChecksumsOpen}, {&r.FramesChecksumsFixed, o.FramesChecksumsFixed},
		{&r.FramesRetimed, o.FramesRetimed}, {&r.FramesRefused, o.FramesRefused}, {&r.DatagramsSent, o.DatagramsSent}, {&r.DatagramsUnsent, o.DatagramsUnsent},
		{&r.DatagramsOver9248, o.DatagramsOver9248}, {&r.InnerBytes, o.InnerBytes}, {&r.PayloadBytes, o.PayloadBytes}, {&r.Stalls, o.Stalls},
	} {
		*n.to += n.more
	}
	r.StalledSeconds += o.StalledSeconds
	r.LateMaxNS, r.LateP99NS, r.LateP50NS = max(r.LateMaxNS, o.LateMaxNS), max(r.LateP99NS, o.LateP99NS), max(r.LateP50NS, o.LateP50NS)
	r.Damages = append(slices.Clip(r.Damages), o.Damages...)
	for _, refused := range o.Refused {
		r.refuse(refused)
	}
}

// span makes the capture times span another's as well.
func (r *Report) span(o *Report) {
	if r.CaptureFirst.IsZero() || !o.CaptureFirst.IsZero() && o.CaptureFirst.Before(r.CaptureFirst) {
		r.CaptureFirst = o.CaptureFirst
	}
	if o.CaptureLast.After(r.CaptureLast) {
		r.CaptureLast = o.CaptureLast
	}
}

func (r *Report) refuse(o RefusedCount) {
	i := slices.IndexFunc(r.Refused, func(have RefusedCount) bool { return have.Reason == o.Reason && have.LinkType == o.LinkType })
	if i < 0 {
		r.Refused = append(r.Refused, o)
		return
	}
	r.Refused[i].Frames += o.Frames
}

// Between returns the report of a run that lasted from one time to another, with
// the rates that follow from that.
func (r Report) Between(from, to time.Time) Report {
	r.Start, r.End, r.ElapsedSeconds = from.Round(0), to.Round(0), to.Sub(from).Seconds()
	r.DatagramsPerSecond, r.InnerBitsPerSecond, r.PayloadBitsPerSecond = 0, 0, 0
	if s := r.ElapsedSeconds; s > 0 {
		r.DatagramsPerSecond = float64(r.DatagramsSent) / s
		r.InnerBitsPerSecond, r.PayloadBitsPerSecond = 8*float64(r.InnerBytes)/s, 8*float64(r.PayloadBytes)/s
	}
	return r
}
