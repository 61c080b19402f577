package transmit

import "testing"

func TestTransmissionsAddUp(t *testing.T) {
	fallback := Fallback{Path: "segmentation offload", Cause: "EIO"}
	a := Stats{Datagrams: 1, Bytes: 2, Waits: 3, Fallbacks: []Fallback{fallback}}
	sum := Stats{}.Add(a).Add(a)
	if sum.Datagrams != 2 || sum.Bytes != 4 || sum.Waits != 6 || len(sum.Fallbacks) != 1 {
		t.Errorf("%+v", sum)
	}
}
