package delivery

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// Captures of OpenBSD's packet filter and of pppd hold IP packets: they are sent behind
// an Ethernet header.
func TestCapturesOfOtherSystemsAreNormalised(t *testing.T) {
	for name, header := range map[string]int{"pflog.pcap": 64, "lt166.pcap": 4} {
		in := filepath.Join(testenv.Shared(t, "field"), name)
		out := filepath.Join(t.TempDir(), "out.pcap")
		doc := played(t, in, nil, File{Path: out})
		written := readCapture(t, out)
		if doc.Verdict != Complete || doc.Report.FramesNormalised != 1 || len(written) != 1 {
			t.Fatalf("%s: %+v", name, doc)
		}
		if packet := readCapture(t, in)[0].data[header:]; !bytes.Equal(written[0].data[outerLen+vxlanLen+etherType:], append([]byte{8, 0}, packet...)) {
			t.Errorf("%s: sent %x", name, written[0].data)
		}
	}
}
