package filter

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// udpPacket is an IPv4 packet from port 1000 to port 2000.
func udpPacket() []byte {
	return []byte("\x45\x00\x00\x30\x00\x01\x00\x00\x40\x11\x66\xba\x0a\x00\x00\x01\x0a\x00\x00\x02\x03\xe8\x07\xd0\x00\x1c\x00\x00abcdefghijklmnopqrst")
}

// behind are the bytes before an IPv4 packet in a frame of each link type, and those
// behind it.
func behind() map[forward.LinkType][2]string {
	ether := "\x00\x16\x3e\x00\x00\x01\x00\x16\x3e\x00\x00\x02\x08\x00"
	snap, fcs, none := "\xaa\xaa\x03\x00\x00\x00\x08\x00", "\x01\x02\x03\x04", func(n int) string { return string(make([]byte, n)) }
	dot11 := "\x08\x01\x00\x00" + ether[:6] + ether[6:12] + ether[:6] + "\x00\x00" + snap
	avs := "\x80\x21\x10\x01\x00\x00\x00\x40" + none(56)
	record := none(4) + "\x00\xf1\x53\x65\x02\x04\x00\x54\x00\x00\x00\x42\x00\x00"
	return map[forward.LinkType][2]string{
		0: {"\x02\x00\x00\x00"}, 1: {ether}, 6: {"\x10\x40" + ether[:12] + snap}, 8: {"\x00\x40" + none(14)}, 9: {"\xff\x03\x00\x21"},
		10: {"\x50" + ether[:12] + snap}, 12: {}, 14: {}, 17: {"\x00\x00\x00\x02em0" + none(21)}, 50: {"\xff\x03\x00\x21"}, 51: {"\x11\x00\x00\x01\x00\x32\x00\x21"},
		100: {snap}, 101: {}, 104: {"\x0f\x00\x08\x00"}, 105: {dot11}, 107: {"\x18\x41\x03\xcc"}, 108: {"\x00\x00\x00\x02"}, 109: {"\x02" + none(11)},
		113: {"\x00\x00\x00\x01\x00\x06\x00\x16\x3e\x00\x00\x02\x00\x00\x08\x00"}, 117: {"\x3d\x02\x00\x00em0" + none(57)}, 119: {avs + dot11},
		122: {"\x10\x00" + ether[:6] + "\x10\x00" + ether[6:12] + snap}, 127: {"\x00\x00\x08\x00" + none(4) + dot11}, 138: {none(16) + "\x08\x00"}, 163: {avs + dot11},
		166: {"\x01\x03\x00\x21"}, 192: {"\x00\x00\x08\x00\x01\x00\x00\x00" + ether}, 197: {record + ether, fcs}, 204: {"\x01\xff\x03\x00\x21"},
		205: {"\x01\x0f\x00\x08\x00"}, 206: {"\x01\x18\x41\x03\xcc"}, 226: {"\x01\x02\x00\x00\x00\x00\x00\x30" + none(16)}, 228: {}, 229: {},
		239: {"\x02\x00\x00\x01\x34\x00\x09\x00"}, 240: {none(4) + ether, fcs}, 242: {none(40) + "\x08\x00\x00\x00"}, 276: {"\x08\x00" + none(6) + "\x00\x01\x00\x06\x00\x16\x3e\x00\x00\x02\x00\x00"},
		258: {"\x34\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00" + none(40) + ether},
	}
}

// capture writes a frame into a pcap file.
func capture(t *testing.T, lt forward.LinkType, data []byte) string {
	t.Helper()
	le := binary.LittleEndian
	b := emptyCapture(lt, 0)
	b = le.AppendUint32(le.AppendUint32(b, 1_700_000_000), 0)
	b = le.AppendUint32(le.AppendUint32(b, uint32(len(data))), uint32(len(data)))
	name := filepath.Join(t.TempDir(), "one.pcap")
	if err := os.WriteFile(name, append(b, data...), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestFiltersWorkOnEveryLinkType: an expression finds the packet, and its opposite
// does not.
func TestFiltersWorkOnEveryLinkType(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	around := behind()
	for _, form := range encap.LinkForms() {
		if form.Link == forward.LinkIPv6 {
			continue // holds no IPv4
		}
		parts, ok := around[form.Link]
		if !ok {
			t.Errorf("%s: no frame to try", encap.LinkTypeName(form.Link))
			continue
		}
		data := slices.Concat([]byte(parts[0]), udpPacket(), []byte(parts[1]))
		name := capture(t, form.Link, data)
		for expr, want := range map[string]int{"udp port 2000 and src host 10.0.0.1": 1, "udp port 2001": 0} {
			if got := filtered(t, name, expr); got != want {
				t.Errorf("%s: %q lets %d frames pass, want %d", encap.LinkTypeName(form.Link), expr, got, want)
			}
		}
	}
}

// filtered is how many frames of a capture an expression lets pass.
func filtered(t *testing.T, name, expr string) (n int) {
	t.Helper()
	files, err := pcapfile.OpenAll([]string{name}, pcapfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := Source(t.Context(), files, expr)
	if err != nil {
		files.Close()
		t.Errorf("%v", err)
		return 0
	}
	defer f.Close()
	for frame := (forward.Frame{}); f.Next(&frame) == nil; n++ {
	}
	return n
}

// TestAFilterForALinkTypeThatTcpdumpDoesNotKnow says so in a sentence.
func TestAFilterForALinkTypeThatTcpdumpDoesNotKnow(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	_, err := Compile(t.Context(), "tcp", 1000, 0)
	if err == nil || !strings.HasPrefix(err.Error(), `compile filter "tcp" for link type 1000: `) || strings.Contains(err.Error(), "link type link type") {
		t.Errorf("got %v", err)
	}
}

// TestTcpdumpItselfFiltersWhatIsFilteredAsCaptured: where its own program is used, it
// finds the packet in the capture.
func TestTcpdumpItselfFiltersWhatIsFilteredAsCaptured(t *testing.T) {
	tool := testenv.NeedTool(t, "tcpdump")
	for lt, parts := range behind() {
		if compiledAs(lt) != lt || lt == forward.LinkIPv6 {
			continue
		}
		name := capture(t, lt, slices.Concat([]byte(parts[0]), udpPacket(), []byte(parts[1])))
		out, err := exec.Command(tool, "-nr", name, "udp port 2000").Output()
		if err != nil || !bytes.Contains(out, []byte("10.0.0.2.2000")) {
			t.Errorf("%s: %q, %v", encap.LinkTypeName(lt), out, err)
		}
	}
}
