package delivery

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// cutAndGood are a capture that is cut in its second record, and a sound one.
func cutAndGood(t *testing.T) []string {
	t.Helper()
	field := testenv.Shared(t, "field")
	return []string{filepath.Join(field, "cut.pcap"), filepath.Join(field, "good.pcap")}
}

// checkDamage looks at a run of which want packets were to be sent.
func checkDamage(t *testing.T, doc *Document, err error, want uint64) {
	t.Helper()
	if err == nil || strings.Count(err.Error(), "cut.pcap: packet 2 at byte") != 1 {
		t.Fatalf("got %v", err)
	}
	rep := doc.Report
	if rep.DatagramsSent != want || doc.Verdict == Complete || len(rep.Damages) != 1 || rep.Damages[0].Packet != 2 || filepath.Base(rep.Damages[0].File) != "cut.pcap" {
		t.Errorf("%d packets sent, want %d; %s, damages %+v", rep.DatagramsSent, want, doc.Verdict, rep.Damages)
	}
}

// What is sound of a damaged capture is played, then the next one is, by every way
// and in every loop; the run has failed, and says where the damage is.
func TestWhatFollowsADamagedCaptureIsPlayed(t *testing.T) {
	for _, loop := range []int{1, 3} {
		r := &Replay{Config: encap.Config{Kind: encap.VXLAN, VNI: testVNI, MTU: encap.DefaultMTU}, Pace: pace.MaxSpec(), CPU: transmit.CPUAuto, Lossless: watch.Auto}
		out := filepath.Join(t.TempDir(), "out.pcap")
		doc, err := play(t, r, cutAndGood(t), loop, File{Path: out})
		checkDamage(t, doc, err, uint64(4*loop))
		if doc.Verdict != Failed { // by sidecar the machine's other traffic may make it a loss
			t.Errorf("verdict %s", doc.Verdict)
		}
		if written := len(readCapture(t, out)); written != 4*loop {
			t.Errorf("%d packets written, want %d", written, 4*loop)
		}
		to := testenv.NewReceiver(t)
		doc, err = sidecarRun(t, t.Context(), to, nil, cutAndGood(t), loop, func(*Replay) {})
		to.Awaits(t, int64(4*loop))
		checkDamage(t, doc, err, uint64(4*loop))
	}
}
