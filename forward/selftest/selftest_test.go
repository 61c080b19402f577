package selftest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// selftest runs one with a time limit.
func selftest(t *testing.T, o Options) (Result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o.CPU = transmit.CPUAuto
	return Run(ctx, o)
}

func pps(tb testing.TB, n float64) forward.Pacer {
	tb.Helper()
	p, err := pace.PPS(n)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestHealthyMachinePasses(t *testing.T) {
	option, err := encap.ParseOption("0108:01:0000000000000001")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]Options{
		"vxlan, as fast as it goes": {Limit: 20_000},
		"geneve with an option":     {Limit: 5000, Config: encap.Config{Kind: encap.GENEVE, VNI: 7, Options: []encap.Option{option}}},
		"every datagram alone":      {Limit: 5000, NoGSO: true},
		"paced":                     {Limit: 1000, Pacer: pps(t, 5000)},
		"small buffer":              {Limit: 5000, onWay: 20_000},
		"its own VNI per loop":      {Limit: 10_000, Config: encap.Config{VNI: 5, VNIPerLoop: true}},
	}
	for name, o := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := selftest(t, o)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Passed || r.Sent != o.Limit || r.Received != o.Limit || !strings.HasPrefix(r.Verdict, "PASS: ") {
				t.Errorf("%s (sent %d, received %d)", r.Verdict, r.Sent, r.Received)
			}
			if r.Report.DatagramsSent != r.Sent || r.ReceivedBytes != r.Report.PayloadBytes || r.Flows < 100 || r.ReceivedPerSecond <= 0 {
				t.Errorf("result %+v", r)
			}
		})
	}
}

// Frames as long as they come, equal frames, and few flows.
func TestOddFrames(t *testing.T) {
	long := make([]byte, 65000)
	long[12], long[13] = 0x88, 0xcc // LLDP: nothing that could be re-segmented
	var frames []forward.Frame
	for _, n := range []int{14, 60, 60, 1514, len(long)} {
		frames = append(frames, forward.Frame{Data: long[:n], Length: n, LinkType: forward.LinkEthernet})
	}
	r, err := selftest(t, Options{Source: NewMemory(frames, 500)})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Passed || r.Received != 500 || r.Flows != 1 {
		t.Errorf("%s; %d flows", r.Verdict, r.Flows)
	}
}

// Every shared capture but the one for speed, as it comes: all link types,
// super-frames, cut frames.
func TestCaptures(t *testing.T) {
	for _, name := range []string{"bro.org.pcap", "kerberos_tso.pcapng", "linux_dlt_sll2.pcap", "pcapng-multi-interface.pcapng", "quic_win11_firefox_google.pcap"} {
		path := testenv.Shared(t, "pcaps", name)
		source, err := pcapfile.OpenAll([]string{path}, pcapfile.Options{Loop: 2})
		if err != nil {
			t.Fatal(err)
		}
		r, err := selftest(t, Options{Source: source})
		if err := errors.Join(err, source.Close()); err != nil {
			t.Fatal(err)
		}
		if !r.Passed {
			t.Errorf("%s: %s", name, r.Verdict)
		}
	}
}

// relay passes datagrams on, one socket in, one or two out, and does harm to
// one of them.
type relay struct {
	in  *net.UDPConn
	out []*net.UDPConn
	// harm is given every datagram and its number, from 1, and returns what
	// goes on instead.
	harm func(n int, data []byte) [][]byte
	// way chooses the socket by which a datagram leaves.
	way func(n int) int
}

func (r *relay) start(t *testing.T, to netip.AddrPort) (netip.AddrPort, error) {
	in, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return netip.AddrPort{}, err
	}
	r.in = in
	t.Cleanup(func() { in.Close() })
	for range 2 {
		out, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return netip.AddrPort{}, err
		}
		t.Cleanup(func() { out.Close() })
		r.out = append(r.out, out)
	}
	go r.run()
	return in.LocalAddr().(*net.UDPAddr).AddrPort(), nil
}

func (r *relay) run() {
	buf := make([]byte, 65536)
	for n := 1; ; n++ {
		size, _, err := r.in.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed: the test is over
		}
		out := r.out[0]
		if r.way != nil {
			out = r.out[r.way(n)]
		}
		for _, data := range r.harm(n, buf[:size]) {
			_, _ = out.Write(data)
		}
	}
}

// shortSilence is enough where the relay is the only one that loses anything.
const shortSilence = 500 * time.Millisecond

func unharmed(_ int, data []byte) [][]byte { return [][]byte{data} }

// flow returns what tells the IPv4 TCP flows of synthetic frames apart, and
// false for all others. The frame follows 8 bytes of VXLAN header.
func flow(data []byte) (string, bool) {
	if len(data) < 46 || data[20] != 0x08 || data[21] != 0 || data[31] != 6 {
		return "", false
	}
	return string(data[34:46]), true
}

// swap holds back the first datagram of number 100 or more that has a flow,
// until the next of that flow has passed.
func swap() func(n int, data []byte) [][]byte {
	var held []byte
	var of string
	done := false
	return func(n int, data []byte) [][]byte {
		f, ok := flow(data)
		switch {
		case done || !ok || n < 100:
		case held == nil:
			held, of = bytes.Clone(data), f
			return nil
		case f == of:
			done = true
			return [][]byte{data, held}
		}
		return [][]byte{data}
	}
}

// fault is what a relay does to datagrams on their way, and what is found of it.
type fault struct {
	name     string
	relay    relay
	received uint64
	want     []Problem
	verdict  string // empty: any
}

// faults are of n datagrams.
func faults(n uint64) []fault {
	const at = 100
	only := func(harm func(data []byte) [][]byte) func(int, []byte) [][]byte {
		return func(i int, data []byte) [][]byte {
			if i == at {
				return harm(data)
			}
			return [][]byte{data}
		}
	}
	flip := func(where int) func(data []byte) [][]byte {
		return func(data []byte) [][]byte {
			data[(where+len(data))%len(data)] ^= 1
			return [][]byte{data}
		}
	}
	return []fault{
		{"nothing", relay{harm: unharmed}, n, nil, "PASS: 2000 of 2000 datagrams arrived once, in order, unchanged"},
		{"dropped", relay{harm: only(func([]byte) [][]byte { return nil })}, n - 1, []Problem{{Lost, 1, at}},
			"FAIL: of 2000 datagrams 1 lost, first datagram 100"},
		{"doubled", relay{harm: only(func(d []byte) [][]byte { return [][]byte{d, d} })}, n + 1, []Problem{{Duplicated, 1, at + 1}},
			"FAIL: of 2000 datagrams 1 arrived twice, first as arrival 101"},
		{"swapped", relay{harm: swap()}, n, []Problem{{Reordered, 1, 0}}, ""},
		{"last byte flipped", relay{harm: only(flip(-1))}, n, []Problem{{Corrupted, 1, at}},
			"FAIL: of 2000 datagrams 1 corrupted, first as arrival 100"},
		{"VNI changed", relay{harm: only(flip(6))}, n, []Problem{{Corrupted, 1, at}}, ""},
		{"cut", relay{harm: only(func(d []byte) [][]byte { return [][]byte{d[:len(d)-1]} })}, n, []Problem{{Corrupted, 1, at}}, ""},
		{"empty", relay{harm: only(func(d []byte) [][]byte { return [][]byte{d[:0]} })}, n, []Problem{{Corrupted, 1, at}}, ""},
		{"dropped and another doubled", relay{harm: func(i int, d []byte) [][]byte {
			switch i {
			case 50:
				return nil
			case 60:
				return [][]byte{d, d}
			}
			return [][]byte{d}
		}}, n, []Problem{{Lost, 1, 50}, {Duplicated, 1, 60}}, "FAIL: of 2000 datagrams 1 lost, first datagram 50; 1 arrived twice, first as arrival 60"},
		{"another source port from then on", relay{harm: unharmed, way: func(i int) int { return i / at % 2 }}, n, []Problem{{Split, 0, 0}}, ""},
	}
}

func TestFaultsAreFoundAndNamed(t *testing.T) {
	const n = 2000
	for _, tt := range faults(n) {
		t.Run(tt.name, func(t *testing.T) {
			r, err := selftest(t, Options{Limit: n, Config: encap.Config{VNI: 99}, onWay: 40_000, silence: shortSilence,
				via: func(to netip.AddrPort) (netip.AddrPort, error) { return tt.relay.start(t, to) }})
			if err != nil {
				t.Fatal(err)
			}
			if r.Sent != n || r.Received != tt.received {
				t.Errorf("sent %d, received %d, want %d", r.Sent, r.Received, tt.received)
			}
			if !sameProblems(r.Problems, tt.want) {
				t.Errorf("found %v, want %v", r.Problems, tt.want)
			}
			if r.Passed != (len(tt.want) == 0) || tt.verdict != "" && r.Verdict != tt.verdict {
				t.Errorf("verdict %q, want %q", r.Verdict, tt.verdict)
			}
		})
	}
}

// sameProblems compares; a count or place of 0 in want is any.
func sameProblems(got, want []Problem) bool {
	return slices.EqualFunc(got, want, func(g, w Problem) bool {
		return g.Kind == w.Kind && g.Count > 0 && (w.Count == 0 || g.Count == w.Count) && (w.First == 0 || g.First == w.First)
	})
}

// One loss after the other: the window is written off each time, and the run
// goes on to its end.
func TestLossDoesNotStopTheRun(t *testing.T) {
	const n, lost = 3000, 300
	r, err := selftest(t, Options{Limit: n, onWay: 100_000, silence: shortSilence, via: func(to netip.AddrPort) (netip.AddrPort, error) {
		bad := relay{harm: func(i int, d []byte) [][]byte {
			if i%10 == 0 {
				return nil
			}
			return [][]byte{d}
		}}
		return bad.start(t, to)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !sameProblems(r.Problems, []Problem{{Lost, lost, 10}}) || r.Sent != n {
		t.Errorf("sent %d: %s", r.Sent, r.Verdict)
	}
}

// What an unregulated sender loses at the receiver's own socket is told apart
// from what was lost on the way.
func TestOverrunIsNamed(t *testing.T) {
	r := Result{SocketDrops: 7, Sent: 100}
	l := newLedger()
	for i := range uint64(100) {
		l.expect(i, 1)
	}
	for i := range uint64(90) {
		l.arrive(i, 1, 10)
	}
	r.lost(l)
	r.judge()
	if !slices.Equal(r.Problems, []Problem{{Lost, 3, 91}, {Overrun, 7, 0}}) {
		t.Errorf("found %v", r.Problems)
	}
	if want := "FAIL: of 100 datagrams 3 lost, first datagram 91; 7 dropped by the receiver's own socket, its buffer was full"; r.Verdict != want {
		t.Errorf("verdict %q", r.Verdict)
	}
}

// alteringEncap changes one byte of the frame number at.
type alteringEncap struct {
	forward.Encapsulator
	at, n int
}

func (e *alteringEncap) Encapsulate(b *forward.Batch, f *forward.Frame) forward.Outcome {
	out := e.Encapsulator.Encapsulate(b, f)
	if e.n++; e.n == e.at {
		b.Buf[len(b.Buf)-1] ^= 0x80
	}
	return out
}

func TestAlterationIsFound(t *testing.T) {
	for _, kind := range []encap.Kind{encap.VXLAN, encap.GENEVE} {
		good, err := encap.New(encap.Config{Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		s := &sender{Encapsulator: &alteringEncap{Encapsulator: good, at: 40}, config: good.Config()}
		source, err := NewSynthetic(100)
		if err != nil {
			t.Fatal(err)
		}
		var b forward.Batch
		var f forward.Frame
		for source.Next(&f) == nil {
			s.Encapsulate(&b, &f)
		}
		if s.altered != (finding{1, 40}) {
			t.Errorf("%v: found %+v", kind, s.altered)
		}
	}
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stats := new(forward.Stats)
	timer := time.AfterFunc(50*time.Millisecond, cancel)
	defer timer.Stop()
	r, err := Run(ctx, Options{Limit: 1e9, Pacer: pps(t, 100), CPU: transmit.CPUAuto, Stats: stats})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if r.Sent != stats.Snapshot().DatagramsSent {
		t.Errorf("result says %d sent, statistics %d", r.Sent, stats.Snapshot().DatagramsSent)
	}
}

type damaged struct{ forward.Source }

var errDamaged = errors.New("a.pcap: packet 11 at byte 400: cut")

func (d damaged) Next(f *forward.Frame) error {
	if err := d.Source.Next(f); err != io.EOF {
		return err
	}
	return errDamaged
}

func TestDamagedSource(t *testing.T) {
	source, err := NewSynthetic(10)
	if err != nil {
		t.Fatal(err)
	}
	r, err := selftest(t, Options{Source: damaged{source}})
	if !errors.Is(err, errDamaged) || r.Received != 10 {
		t.Errorf("error %v, received %d", err, r.Received)
	}
}

func TestNothingSentIsNoPass(t *testing.T) {
	r, err := selftest(t, Options{Source: NewMemory(nil, 0)})
	if err != nil || r.Passed || r.Verdict != "FAIL: nothing was sent" {
		t.Errorf("%q, %v", r.Verdict, err)
	}
}

func TestResultAsJSON(t *testing.T) {
	got, err := json.Marshal(Result{Problems: []Problem{{Lost, 2, 5}}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"verdict":"","passed":false,"problems":[{"kind":"lost","count":2,"first":5}],` +
		`"sent":0,"received":0,"received_bytes":0,"flows":0,"received_per_second":0,"receive_buffer_bytes":0,"drops_known":false,"socket_drops":0,`
	if !strings.HasPrefix(string(got), want) {
		t.Errorf("got  %s\nwant %s...", got, want)
	}
}

// BenchmarkSelftest is the rate of the whole, kernel included.
func BenchmarkSelftest(b *testing.B) {
	r, err := Run(b.Context(), Options{Limit: uint64(b.N), CPU: transmit.CPUAuto})
	if err != nil {
		b.Fatal(err)
	}
	if !r.Passed {
		b.Error(r.Verdict)
	}
	b.ReportMetric(r.ReceivedPerSecond/1e3, "kpps")
	b.ReportMetric(float64(r.Report.Stalls)/float64(b.N)*1e3, "stalls/1000")
}
