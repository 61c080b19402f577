package encap

import (
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
)

// In the steady state no frame of any kind costs an allocation, refused ones
// included.
func TestNoAllocations(t *testing.T) {
	gwlb, err := Preset("aws-gwlb")
	if err != nil {
		t.Fatal(err)
	}
	raw := gwlb
	mirror, err := Preset("aws-mirror-gwlb")
	if err != nil {
		t.Fatal(err)
	}
	gwlb.RawIP = false
	var frames []forward.Frame
	for _, tt := range normaliseCases() {
		frames = append(frames, forward.Frame{Data: tt.data, Length: len(tt.data) + len(frames)%2, LinkType: tt.lt, Loop: len(frames) % 3})
	}
	for _, data := range [][]byte{tcp4Frame(300, 1), tcp6Frame(300, 1), superFrame4(64000, 0x18), superFrame6(64000, 0x18)} {
		frames = append(frames, forward.Frame{Data: data, Length: len(data), LinkType: forward.LinkEthernet})
	}
	for _, u := range unfinishedFrames() {
		frames = append(frames, forward.Frame{Data: u.frame, Length: len(u.frame), LinkType: forward.LinkEthernet})
	}
	for _, c := range []Config{{VNI: 1, VNIPerLoop: true}, {FixChecksums: true}, {PadCut: true, ResegmentAll: true}, gwlb, raw, mirror} {
		e, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		batch := forward.Batch{Buf: make([]byte, 0, 1<<20), Datagrams: make([]forward.Datagram, 0, 1024)}
		all := func() {
			batch.Reset()
			for i := range frames {
				e.Encapsulate(&batch, &frames[i])
			}
		}
		if n := testing.AllocsPerRun(10, all); n != 0 {
			t.Errorf("%+v: %v allocations in %d frames", c, n, len(frames))
		}
	}
}

func TestOuterNoAllocations(t *testing.T) {
	payload, hdr := make([]byte, 400), make([]byte, OuterLen6)
	for _, v6 := range []bool{false, true} {
		o, err := NewOuter(outerConfig(GENEVE, v6))
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(10, func() { o.Put(hdr, payload, 1); o.PutPartial(hdr, 400, 1) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
