package forward

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

// The reports of pipelines that ran side by side add up; nothing of them is lost,
// also when reports learn to count something new.
func TestReportsAddUp(t *testing.T) {
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	a := Report{Finished: true, FramesRead: 10, DatagramsSent: 9, InnerBytes: 900, LateMaxNS: 5, StalledSeconds: 1, CaptureFirst: at.Add(time.Second), CaptureLast: at.Add(2 * time.Second),
		Refused: []RefusedCount{{Reason: "too long", LinkType: "ETHERNET", Frames: 1}}}
	b := a
	b.CaptureFirst, b.CaptureLast, b.Finished, b.LateMaxNS = at, at.Add(3*time.Second), false, 7
	b.Refused = []RefusedCount{{Reason: "too long", LinkType: "ETHERNET", Frames: 2}, {Reason: "malformed", LinkType: "RAW", Frames: 3}}
	sum := JoinReports([]Report{a, b})
	if sum.Finished || sum.FramesRead != 20 || sum.DatagramsSent != 18 || sum.InnerBytes != 1800 || sum.StalledSeconds != 2 || sum.LateMaxNS != 7 ||
		!sum.CaptureFirst.Equal(at) || !sum.CaptureLast.Equal(at.Add(3*time.Second)) {
		t.Errorf("%+v", sum)
	}
	if want := []RefusedCount{{Reason: "too long", LinkType: "ETHERNET", Frames: 3}, {Reason: "malformed", LinkType: "RAW", Frames: 3}}; !slices.Equal(sum.Refused, want) {
		t.Errorf("%+v", sum.Refused)
	}
	if len(a.Refused) != 1 || a.Refused[0].Frames != 1 {
		t.Error("a part was changed")
	}
	var one Report // every count is 1
	v := reflect.ValueOf(&one).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Uint64 {
			v.Field(i).SetUint(1)
		}
	}
	v = reflect.ValueOf(JoinReports([]Report{one, one}))
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Uint64 && v.Field(i).Uint() != 2 {
			t.Errorf("%s is not added up", v.Type().Field(i).Name)
		}
	}
	sum = sum.Between(at, at.Add(2*time.Second))
	if sum.ElapsedSeconds != 2 || sum.DatagramsPerSecond != 9 || sum.InnerBitsPerSecond != 7200 {
		t.Errorf("%+v", sum)
	}
}
