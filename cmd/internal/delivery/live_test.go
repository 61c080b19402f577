package delivery

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/sidecar"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// replayed replays what options name into a file, and returns how many packets are in it.
func replayed(t *testing.T, o CaptureOptions, names []string, limit uint64, duration time.Duration) (*Document, int) {
	t.Helper()
	captures, err := o.Open(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	defer captures.Close()
	r := &Replay{Captures: captures, Config: encap.Config{Kind: encap.VXLAN, VNI: testVNI, MTU: encap.DefaultMTU}, Pace: pace.MaxSpec(), CPU: transmit.CPUOff, Lossless: watch.Auto, Limit: limit, Duration: duration}
	out := filepath.Join(t.TempDir(), "out.pcap")
	run, err := r.Open(t.Context(), File{Path: out})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	doc, err := run.Send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return doc, len(readCapture(t, out))
}

// What a server sends is replayed, and again when it is connected again.
func TestWhatComesByTCPIsReplayed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(samples.Sample()) // what is missing then is seen
			c.Close()
		}
	}()
	name := "tcp://" + l.Addr().String()
	doc, n := replayed(t, CaptureOptions{Loop: 1}, []string{name}, 2*sampleFrames, 0)
	if n != 2*sampleFrames || doc.Verdict != Complete || doc.Files[0] != name {
		t.Errorf("%d packets of %v: %s", n, doc.Files, doc.Verdict)
	}
}

// What connections bring goes by a sidecar as well; an interruption ends the wait.
func TestWhatConnectionsBringGoesBySidecar(t *testing.T) {
	to := testenv.NewReceiver(t)
	ctx, interrupt := context.WithCancel(t.Context())
	address := make(chan string, 1)
	captures, err := CaptureOptions{Loop: 1, Listen: "0", Say: func(line string) {
		if at, ok := strings.CutPrefix(line, "Listening for pcap and pcapng at "); ok {
			address <- at
		}
	}}.Open(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer captures.Close()
	c, err := net.Dial("tcp", <-address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		_, _ = c.Write(samples.Sample()) // what is missing then is seen
		to.Awaits(t, sampleFrames)
		interrupt()
	}()
	r := &Replay{Captures: captures, Config: encap.Config{Kind: encap.VXLAN, VNI: 7, MTU: 1500}, Pace: pace.MaxSpec(), CPU: transmit.CPUOff, Lossless: watch.Auto, Observer: nobody{}}
	run := &Run{Replay: r, sender: &bySidecar{to: way.Target{Choice: way.Choice{Kind: way.Sidecar}, Address: to.At}, client: sidecar.NewClient(nil, to.At, insideStreams(nil))}}
	defer run.Close()
	doc, err := run.Send(ctx)
	if !errors.Is(err, ErrInterrupted) || doc.Report.DatagramsSent != sampleFrames {
		t.Errorf("%v: %+v", err, doc)
	}
}

// Nobody who connects is no failure: a duration ends the wait.
func TestListeningEndsWithTheDuration(t *testing.T) {
	doc, n := replayed(t, CaptureOptions{Loop: 1, Listen: "0"}, nil, 0, 50*time.Millisecond)
	if n != 0 || doc.Verdict != Complete || doc.Files[0] != "connections to 0" {
		t.Errorf("%d packets of %v: %s", n, doc.Files, doc.Verdict)
	}
}

// A file that grows is filtered and replayed as it grows.
func TestAFileThatGrowsIsReplayed(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	name := filepath.Join(t.TempDir(), "grows.pcap")
	all := samples.Sample()
	if err := os.WriteFile(name, all[:len(all)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.Write(all[len(all)/2:])
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Error(err)
		}
	}()
	if _, n := replayed(t, CaptureOptions{Loop: 1, Follow: true, Filter: "ip or ip6 or arp"}, []string{name}, sampleFrames, 0); n != sampleFrames {
		t.Errorf("%d packets, want %d", n, sampleFrames)
	}
}

// What has no end goes with nothing that wants one.
func TestWhatInputsWantOfEachOther(t *testing.T) {
	for _, test := range []struct {
		options CaptureOptions
		names   []string
	}{
		{CaptureOptions{Loop: 1}, []string{"tcp://127.0.0.1:1", "a.pcap"}},
		{CaptureOptions{Loop: 1, Listen: "0"}, []string{"-"}},
		{CaptureOptions{Loop: 0, Listen: "0"}, nil},
		{CaptureOptions{Loop: 2, Follow: true}, []string{"a.pcap"}},
		{CaptureOptions{Loop: 1, Follow: true}, []string{"a.pcap", "b.pcap"}},
		{CaptureOptions{Loop: 1, Follow: true}, nil},
		{CaptureOptions{Loop: 1, Listen: "0", Sort: pcapfile.ByName}, nil},
		{CaptureOptions{Loop: 1, Listen: "0", StopOnError: true}, nil},
	} {
		var usage *UsageError
		if _, err := test.options.Open(t.Context(), test.names); !errors.As(err, &usage) {
			t.Errorf("%+v of %v: %v", test.options, test.names, err)
		}
	}
}
