package cli

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// The reports of pipelines that ran side by side add up; nothing of them is lost,
// also when reports learn to count something new.
func TestReportsAddUp(t *testing.T) {
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	a := forward.Report{Finished: true, FramesRead: 10, DatagramsSent: 9, InnerBytes: 900, LateMaxNS: 5, StalledSeconds: 1, CaptureFirst: at.Add(time.Second), CaptureLast: at.Add(2 * time.Second),
		Refused: []forward.RefusedCount{{Reason: "too long", LinkType: "ETHERNET", Frames: 1}}}
	b := a
	b.CaptureFirst, b.CaptureLast, b.Finished, b.LateMaxNS = at, at.Add(3*time.Second), false, 7
	b.Refused = []forward.RefusedCount{{Reason: "too long", LinkType: "ETHERNET", Frames: 2}, {Reason: "malformed", LinkType: "RAW", Frames: 3}}
	sum := joinReports([]forward.Report{a, b})
	if sum.Finished || sum.FramesRead != 20 || sum.DatagramsSent != 18 || sum.InnerBytes != 1800 || sum.StalledSeconds != 2 || sum.LateMaxNS != 7 ||
		!sum.CaptureFirst.Equal(at) || !sum.CaptureLast.Equal(at.Add(3*time.Second)) {
		t.Errorf("%+v", sum)
	}
	if want := []forward.RefusedCount{{Reason: "too long", LinkType: "ETHERNET", Frames: 3}, {Reason: "malformed", LinkType: "RAW", Frames: 3}}; !slices.Equal(sum.Refused, want) {
		t.Errorf("%+v", sum.Refused)
	}
	if len(a.Refused) != 1 || a.Refused[0].Frames != 1 {
		t.Error("a part was changed")
	}
	var one forward.Report // every count is 1
	v := reflect.ValueOf(&one).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Uint64 {
			v.Field(i).SetUint(1)
		}
	}
	v = reflect.ValueOf(joinReports([]forward.Report{one, one}))
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Uint64 && v.Field(i).Uint() != 2 {
			t.Errorf("%s is not added up", v.Type().Field(i).Name)
		}
	}
	setTime(&sum, at, at.Add(2*time.Second))
	if sum.ElapsedSeconds != 2 || sum.DatagramsPerSecond != 9 || sum.InnerBitsPerSecond != 7200 {
		t.Errorf("%+v", sum)
	}
}

// What a sensor that has gone still had in its queue is lost.
func TestAccountsOfSeveralSensorsAddUp(t *testing.T) {
	first := losslessDocument{Ledger: &ledger{Sent: 100, Taken: 90, QueuedBytes: 8000}, Seen: &pace.Feedback{Taken: 90, Looks: 3}}
	last := losslessDocument{Governed: true, Ledger: &ledger{Sent: 50, Taken: 50}, Seen: &pace.Feedback{Taken: 50, Looks: 2}}
	sum := joinAccounts([]losslessDocument{first, last})
	if l := sum.Ledger; l.Sent != 150 || l.Taken != 140 || l.Lost != 10 || !strings.Contains(l.Verdict, "10 of 150 packets lost") {
		t.Errorf("%+v", l)
	}
	if sum.Seen.Taken != 140 || sum.Seen.Looks != 5 || !sum.Governed {
		t.Errorf("%+v", sum)
	}
	var loss lossError
	if err := sum.result(); !errors.As(err, &loss) {
		t.Errorf("%v", err)
	}
	// What is known of one stretch stays known though nothing is of the last.
	first.Ledger.Lost = 3
	if sum := joinAccounts([]losslessDocument{first, {Reason: "none"}}); sum.Ledger == nil || sum.Ledger.Lost != 3 || !strings.Contains(sum.Ledger.Verdict, "nothing is known of 1 of these") {
		t.Errorf("%+v", sum.Ledger)
	}
	if only := joinAccounts([]losslessDocument{{Reason: "none"}}); only.Reason != "none" {
		t.Errorf("%+v", only)
	}
}

// All ways to the stack's sensors are left out, and nothing twice; a sidecar's
// loopback is not this machine's.
func TestNoSensorsTunnelIsMirrored(t *testing.T) {
	sensor := orchestrate.Sensor{Direct: netip.MustParseAddrPort("172.28.0.3:4789"), Published: netip.MustParseAddrPort("127.0.0.1:4789")}
	moved := orchestrate.Sensor{Direct: netip.MustParseAddrPort("172.28.0.4:4789"), Published: sensor.Published}
	list := func(tunnels []afpacket.Tunnel) (text string) {
		for _, tunnel := range tunnels {
			text += tunnel.To.String() + " "
		}
		return text
	}
	m := &mirror{target: target{Via: viaDirect, Address: sensor.Direct, Sensor: sensor}}
	if got, want := list(m.tunnels(moved)), "172.28.0.3:4789 127.0.0.1:4789 172.28.0.4:4789 "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	m.target = target{Via: viaSidecar, Address: netip.MustParseAddrPort("127.0.0.1:7777"), Sensor: sensor}
	if got, want := list(m.tunnels()), "172.28.0.3:4789 127.0.0.1:4789 "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	m.target = target{Via: viaTo, Address: netip.MustParseAddrPort("192.0.2.1:4789")}
	if got, want := list(m.tunnels()), "192.0.2.1:4789 "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWhatTcpdumpIsTold(t *testing.T) {
	tunnels := []afpacket.Tunnel{{To: netip.MustParseAddrPort("192.0.2.1:4789")}}
	streams := []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:22")}
	got := tcpdumpFilter("tcp or udp", tunnels, streams)
	want := "(tcp or udp) and not (udp and dst host 192.0.2.1 and dst port 4789) and not (tcp and host 2001:db8::1 and port 22)"
	if got != want || tcpdumpFilter("", nil, nil) != "" {
		t.Errorf("got %s, want %s", got, want)
	}
	said := "12 packets captured\n14 packets received by filter\n2 packets dropped by kernel\n1 packet dropped by interface\n"
	if n := droppedBy(said); n != 3 {
		t.Errorf("%d packets dropped of 3", n)
	}
}

func TestCountsInALine(t *testing.T) {
	last := afpacket.Counts{Interface: "eth0", Packets: 1000, Bytes: 100_000}
	now := afpacket.Counts{Interface: "eth0", Packets: 3000, Bytes: 350_000, Dropped: 7}
	if got, want := countsLine(now, last, 2), "eth0: 3 000 packets, 350 kB, 1.00 kpps, 1.00 Mbit/s, 7 dropped"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTransmissionsAddUp(t *testing.T) {
	fallback := transmit.Fallback{Path: "segmentation offload", Cause: "EIO"}
	a := transmit.Stats{Datagrams: 1, Bytes: 2, Waits: 3, Fallbacks: []transmit.Fallback{fallback}}
	sum := addStats(addStats(transmit.Stats{}, a), a)
	if sum.Datagrams != 2 || sum.Bytes != 4 || sum.Waits != 6 || len(sum.Fallbacks) != 1 {
		t.Errorf("%+v", sum)
	}
}
