package pcapfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

var _ Header = (*encap.Outer)(nil)

// outer is a header as encap writes it.
func outer(tb testing.TB, src, dst string) *encap.Outer {
	tb.Helper()
	o, err := encap.NewOuter(encap.OuterConfig{
		Kind:   encap.VXLAN,
		SrcMAC: [6]byte{2, 0, 0, 0, 0, 1}, DstMAC: [6]byte{2, 0, 0, 0, 0, 2},
		Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

// batchOf makes a batch of payloads a microsecond and a nanosecond apart, from
// ports 50000 onwards.
func batchOf(payloads ...[]byte) *forward.Batch {
	b := &forward.Batch{}
	for i, p := range payloads {
		b.Datagrams = append(b.Datagrams, forward.Datagram{
			Off: len(b.Buf), Len: len(p), Port: uint16(50000 + i), Time: start + int64(i)*1001,
		})
		b.Buf = append(b.Buf, p...)
	}
	return b
}

// TestWriter writes packets that a peer takes apart again.
func TestWriter(t *testing.T) {
	for _, addresses := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
		t.Run(addresses[0], func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "out.pcap")
			w, err := Create(name, nil, outer(t, addresses[0], addresses[1]), nil)
			if err != nil {
				t.Fatal(err)
			}
			payloads := [][]byte{packet(58, 1), packet(65507, 2), packet(9, 3)}
			for range 2 {
				if n, err := w.Send(batchOf(payloads...)); n != 3 || err != nil {
					t.Fatalf("sent %d, %v", n, err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			checkWritten(t, name, append(payloads, payloads...), addresses)
		})
	}
}

// checkWritten reads name with pcapgo and compares every layer.
func checkWritten(t *testing.T, name string, payloads [][]byte, addresses [2]string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for i, payload := range payloads {
		data, info, err := r.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
		network, ok := p.TransportLayer().(*layers.UDP)
		if !ok || int(network.SrcPort) != 50000+i%3 || network.DstPort != 4789 || int(network.Length) != 8+len(payload) {
			t.Fatalf("packet %d: UDP layer %+v", i, network)
		}
		if src, dst := p.NetworkLayer().NetworkFlow().Endpoints(); src.String() != addresses[0] || dst.String() != addresses[1] {
			t.Errorf("packet %d: from %v to %v", i, src, dst)
		}
		if !bytes.Equal(network.LayerPayload(), payload) {
			t.Errorf("packet %d: payload differs", i)
		}
		if want := start + int64(i%3)*1001; info.Timestamp.UnixNano() != want || info.Length != len(data) {
			t.Errorf("packet %d: time %d, length %d, want %d, %d", i, info.Timestamp.UnixNano(), info.Length, want, len(data))
		}
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// TestWriterStdout writes to the injected output and does not close it.
func TestWriterStdout(t *testing.T) {
	var out bytes.Buffer
	w, err := Create("-", &out, outer(t, "192.0.2.1", "192.0.2.2"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Send(batchOf(packet(60, 1))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := readBytes(t, out.Bytes())
	if err != nil || len(got) != 1 || len(got[0].Data) != encap.OuterLen4+60 || got[0].Time != start {
		t.Errorf("%d frames, %v", len(got), err)
	}
	if _, err := Create("-", nil, outer(t, "192.0.2.1", "192.0.2.2"), nil); err == nil {
		t.Error("wrote to no output")
	}
}

// full takes some bytes and then fails, as a full disk does.
type full struct {
	room int
	kept bytes.Buffer
}

var errFull = errors.New("no space left on device")

func (f *full) Write(p []byte) (int, error) {
	n := min(len(p), f.room)
	f.kept.Write(p[:n])
	if f.room -= n; n < len(p) {
		f.room = 0
		return n, errFull
	}
	return n, nil
}

// packetsIn counts the packets that a peer finds whole in a capture.
func packetsIn(b []byte) (n uint64) {
	r, err := pcapgo.NewReader(bytes.NewReader(b))
	if err != nil {
		return 0
	}
	for {
		if _, _, err := r.ReadPacketData(); err != nil {
			return n
		}
		n++
	}
}

// TestWriterErrors names the file and keeps the cause, whenever the disk fills.
func TestWriterErrors(t *testing.T) {
	header := outer(t, "192.0.2.1", "192.0.2.2")
	for _, room := range []int{0, 100, writeBuffer + 100, 3 * writeBuffer} {
		t.Run(fmt.Sprint(room), func(t *testing.T) {
			disk := &full{room: room}
			w, err := NewWriter(disk, "out.pcap", header)
			if err != nil {
				t.Fatal(err)
			}
			sent, total := 0, 0
			for range 20 {
				var n int
				if n, err = w.Send(batchOf(packet(30_000, 1), packet(30_000, 2))); err != nil {
					if n == 2 {
						t.Error("an error, and nothing is missing")
					}
					sent += n
					break
				}
				sent += n
				total += 2
			}
			closed := w.Close()
			if err == nil || closed == nil {
				t.Fatalf("Send: %v, Close: %v", err, closed)
			}
			if !errors.Is(closed, errFull) || !strings.Contains(closed.Error(), fmt.Sprintf("write out.pcap: packet %d (the file is incomplete)", sent+1)) {
				t.Errorf("after %d packets: %v", sent, closed)
			}
			if held := packetsIn(disk.kept.Bytes()); w.Packets() != held || held > uint64(sent) ||
				!strings.Contains(closed.Error(), fmt.Sprintf("it holds %d packets: ", held)) {
				t.Errorf("the file holds %d packets of %d, the writer says %d: %v", held, sent, w.Packets(), closed)
			}
			if n, again := w.Send(batchOf(packet(60, 1))); n != 0 || !errors.Is(again, errFull) {
				t.Errorf("Send after the error: %d, %v", n, again)
			}
		})
	}
	w, err := NewWriter(&full{room: 30}, "out.pcap", header)
	if err != nil {
		t.Fatal(err)
	}
	w.Send(batchOf(packet(60, 1)))
	if err := w.Close(); !errors.Is(err, errFull) || !strings.Contains(err.Error(), "write out.pcap: the file is incomplete") {
		t.Errorf("Close reports %v", err)
	}
	if _, err := Create(filepath.Join(t.TempDir(), "no", "such.pcap"), nil, header, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Create in a missing folder: %v", err)
	}
}

// TestWriterTimes writes packets whose times the format cannot hold with the time
// of the packet before, and counts them: none is missing in the file.
func TestWriterTimes(t *testing.T) {
	for at, fits := range map[int64]bool{0: true, 1<<32*1e9 - 1: true, 1 << 32 * 1e9: false, -1: false, math.MaxInt64: false, math.MinInt64: false} {
		var out bytes.Buffer
		w, err := NewWriter(&out, "x", outer(t, "192.0.2.1", "192.0.2.2"))
		if err != nil {
			t.Fatal(err)
		}
		b := batchOf(packet(60, 1), packet(60, 2), packet(60, 3))
		b.Datagrams[1].Time = at
		want, counted := at, uint64(0)
		if !fits {
			want, counted = start, 1
		}
		if n, err := w.Send(b); n != 3 || err != nil || w.Retimed() != counted {
			t.Errorf("time %d: sent %d, %v, %d retimed", at, n, err, w.Retimed())
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		got, err := readBytes(t, out.Bytes())
		if err != nil || len(got) != 3 || got[0].Time != start || got[1].Time != want || got[2].Time != start+2*1001 {
			t.Errorf("time %d: %+v, %v", at, got, err)
		}
	}
}

// TestBadTimesInFiles carries the time over from file to file and from pass to pass,
// and keeps it out of the span by which a pass is later than the one before.
func TestBadTimesInFiles(t *testing.T) {
	n := ng{newPcapSpec().order}
	bad := writeFile(t, "bad.pcapng", bytes.Join([][]byte{n.section(), n.iface(1, 0),
		n.enhanced(0, math.MaxUint64, packet(60, 1), 60), n.enhanced(0, uint64(start/1000)+5, packet(60, 2), 60), n.enhanced(0, math.MaxUint64, packet(60, 3), 60)}, nil))
	src, err := OpenAll([]string{writeFile(t, "good.pcap", newPcapSpec().file(packet(60, 4))), bad}, Options{Loop: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	got, err := readAll(src)
	if err != nil {
		t.Fatal(err)
	}
	const span = 5000
	want := []int64{start, start, start + span, start + span, start + span, start + span, start + 2*span, start + 2*span}
	for i, f := range got {
		if f.Time != want[i] || f.Retimed != (i%4 == 1 || i%4 == 3) {
			t.Errorf("frame %d: %+v, want the time %d", i, f, want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d frames, want %d", len(got), len(want))
	}
}

// TestWriterTshark lets an independent decoder confirm headers and checksums.
func TestWriterTshark(t *testing.T) {
	tshark := testenv.NeedTool(t, "tshark")
	for _, addresses := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
		name := filepath.Join(t.TempDir(), "out.pcap")
		w, err := Create(name, nil, outer(t, addresses[0], addresses[1]), nil)
		if err != nil {
			t.Fatal(err)
		}
		vxlan := append([]byte{8, 0, 0, 0, 0, 0, 42, 0}, packet(60, 1)...)
		w.Send(batchOf(vxlan, vxlan))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(tshark, "-r", name, "-n", "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
			"-T", "fields", "-E", "separator=,", "-E", "occurrence=f", "-e", "frame.time_epoch", "-e", "udp.srcport", "-e", "udp.dstport",
			"-e", "vxlan.vni", "-e", "udp.checksum.status").Output()
		if err != nil {
			t.Fatal(err)
		}
		status := "3" // not present: VXLAN over IPv4
		if strings.Contains(addresses[0], ":") {
			status = "1" // good
		}
		want := "1700000000.123456000,50000,4789,42," + status + "\n1700000000.123457001,50001,4789,42," + status + "\n"
		if string(out) != want {
			t.Errorf("tshark reads\n%swant\n%s", out, want)
		}
	}
}

// TestWriterNoAllocations writes without allocating per packet.
func TestWriterNoAllocations(t *testing.T) {
	w, err := NewWriter(io.Discard, "x", outer(t, "192.0.2.1", "192.0.2.2"))
	if err != nil {
		t.Fatal(err)
	}
	b := batchOf(packet(350, 1), packet(1500, 2))
	if allocs := testing.AllocsPerRun(100, func() { w.Send(b) }); allocs != 0 {
		t.Errorf("%v allocations per batch", allocs)
	}
}

// TestFieldsBadTime: a capture from the field with one impossible time is read to its
// end and written as a whole.
func TestFieldsBadTime(t *testing.T) {
	src, err := OpenAll([]string{testenv.Shared(t, "field", "badts.pcapng")}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	frames, err := readAll(src)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := NewWriter(&out, "x", outer(t, "192.0.2.1", "192.0.2.2"))
	if err != nil {
		t.Fatal(err)
	}
	bad := 0
	for i, f := range frames {
		b := batchOf(f.Data)
		b.Datagrams[0].Time = f.Time
		if _, err := w.Send(b); err != nil {
			t.Fatal(err)
		}
		if f.Retimed {
			if bad++; f.Time != frames[i-1].Time {
				t.Errorf("packet %d: time %d, want that of the one before", i+1, f.Time)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if n := packetsIn(out.Bytes()); n != 22 || len(frames) != 22 || bad != 1 || w.Packets() != 22 {
		t.Errorf("%d packets in the file, %d read, %d bad", n, len(frames), bad)
	}
}
