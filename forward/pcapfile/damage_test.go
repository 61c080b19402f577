package pcapfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// TestTheNextCaptureIsReadAfterADamagedOne: what is sound of a damaged capture is
// read, then the others, in every pass; the damage is noted once.
func TestTheNextCaptureIsReadAfterADamagedOne(t *testing.T) {
	sound := newPcapSpec().file(packet(60, 1), packet(61, 2))
	for name, damaged := range map[string][]byte{
		"pcap": sound[:len(sound)-5], "gzip": gzipped(sound)[:len(gzipped(sound))-3], "zstd": zstded(t, append(sound, 1, 2, 3)),
	} {
		for _, loop := range []int{1, 3} {
			names := []string{writeFile(t, "cut.pcap", damaged), writeFile(t, "good.pcap", sound)}
			src, err := OpenAll(names, Options{Loop: loop, SkipDamage: true})
			if err != nil {
				t.Fatal(err)
			}
			got, err := readAll(src)
			sum := 3 // of the frames that are whole in a pass
			if name != "pcap" {
				sum = 4
			}
			if err != nil || len(got) != loop*sum {
				t.Errorf("%s, %d passes: %d frames: %v", name, loop, len(got), err)
			}
			list := src.Damages()
			if len(list) != 1 || list[0].Name != names[0] || list[0].Packet != int64(sum-1) {
				t.Errorf("%s, %d passes: damages %v", name, loop, list)
			}
			src.Close()
		}
	}
}

// TestDamageEndsTheReadingUnlessSkipped is for who wants to know at once.
func TestDamageEndsTheReadingUnlessSkipped(t *testing.T) {
	field := testenv.Shared(t, "field")
	src, err := OpenAll([]string{field + "/cut.pcap", field + "/good.pcap"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	got, err := readAll(src)
	var damage *DamageError
	if len(got) != 1 || !errors.As(err, &damage) || damage.Packet != 2 || len(src.Damages()) != 0 {
		t.Errorf("%d frames: %v", len(got), err)
	}
}

// TestAStoppedWaitIsNoDamage though it ends within a packet.
func TestAStoppedWaitIsNoDamage(t *testing.T) {
	sound := newPcapSpec().file(packet(60, 1))
	r, w := io.Pipe()
	defer w.Close()
	stop := make(chan struct{})
	go func() { _, _ = io.Copy(w, bytes.NewReader(sound[:len(sound)-5])) }()
	src, err := OpenAll([]string{"-"}, Options{Stdin: r, Stop: stop, SkipDamage: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	close(stop)
	if _, err := readAll(src); !errors.Is(err, context.Canceled) || len(src.Damages()) != 0 {
		t.Errorf("%v; damages %v", err, src.Damages())
	}
}
