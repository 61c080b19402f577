package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

func ptr[T any](v T) *T { return &v }

// lossy is a report with every kind of hop in it.
func lossy() drops.Report {
	hop := func(hop drops.Hop, sensor, name string, in, lost uint64, v drops.Verdict) drops.HopReport {
		return drops.HopReport{Hop: hop, Sensor: sensor, Name: name, Unit: "packets", In: &in, Lost: &lost, PerSec: ptr(float64(lost) / 2), Verdict: v}
	}
	r := drops.Report{From: time.Unix(0, 0), To: time.Unix(2, 0), Seconds: 2, Verdict: drops.VerdictLost, Lost: 32065,
		Sentence: "32065 packets lost in 2s: the first hop that loses is docker-proxy 127.0.0.1:4789 (32065)",
		Culprit:  &drops.Culprit{Hop: drops.HopProxy, Sensor: "zeek", Name: "docker-proxy 127.0.0.1:4789", Lost: 32065, Reason: "it copies one packet at a time", Cure: "zeekdemo replay --direct"},
		Hops: []drops.HopReport{
			hop(drops.HopSender, "", "sender (UDP of the host)", 60604, 3, drops.VerdictSuspect),
			hop(drops.HopProxy, "zeek", "docker-proxy 127.0.0.1:4789", 60604, 32065, drops.VerdictLost),
			hop(drops.HopProxy, "zeek-geneve", "docker-proxy 127.0.0.1:6081", 0, 0, drops.VerdictIdle),
			hop(drops.HopVeth, "zeek", "vethab12cd3", 28539, 0, drops.VerdictClean),
			{Hop: drops.HopConntrack, Name: "conntrack of the host", Verdict: drops.VerdictUnknown, Unknown: []drops.Unknown{{What: "nf_conntrack", Why: "this kernel does not have it"}}},
			hop(drops.HopUDP, "zeek", "UDP of zeek", 28539, 0, drops.VerdictClean),
			hop(drops.HopUDP, "zeek-geneve", "UDP of zeek-geneve", 0, 0, drops.VerdictIdle),
			hop(drops.HopSocket, "zeek", "socket of zeek", 28539, 0, drops.VerdictClean),
			{Hop: drops.HopLogs, Sensor: "zeek", Name: "logs of zeek", Unit: "lines", Verdict: drops.VerdictMissed, Counters: []drops.Delta{{Grown: 12}}},
		}}
	r.Hops[0].Counters = []drops.Delta{{Name: "UdpSndbufErrors", Role: drops.RoleLost, Grown: 3}}
	r.Hops[7].Queues = []drops.Queue{{Used: 12000, Size: 425984, Unit: "bytes", Exact: true}}
	r.Hops[7].Notes = []string{"drops wrapped at 32 bits"}
	return r
}

func TestDropsTable(t *testing.T) {
	var out bytes.Buffer
	writeDrops(&out, lossy(), false)
	const want = `HOP                          IN      LOST    LOST/S  VERDICT
sender (UDP of the host)     60 604  3       1.5     lost on this machine, ours or not
docker-proxy 127.0.0.1:4789  60 604  32 065  16 032  LOST HERE FIRST
vethab12cd3                  28 539  0       0       ok
conntrack of the host        ?       ?       ?       not known
UDP of zeek                  28 539  0       0       ok
socket of zeek               28 539  0       0       ok; queue 12.0 kB of 426 kB
logs of zeek                 -       -       -       connections that miss bytes: 12
zeek-geneve                  0       0       0       no packets; --all shows its hops

socket of zeek: drops wrapped at 32 bits
not known: conntrack of the host nf_conntrack: this kernel does not have it
32065 packets lost in 2s: the first hop that loses is docker-proxy 127.0.0.1:4789 (32065)
why:  it copies one packet at a time
cure: zeekdemo replay --direct
sender (UDP of the host): a sender's socket buffer or device queue was full: UdpSndbufErrors (3) (zeekdemo tune-host)
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	out.Reset()
	writeDrops(&out, lossy(), true)
	if !strings.Contains(out.String(), "docker-proxy 127.0.0.1:6081  0       0       0       nothing came\n") || strings.Contains(out.String(), "--all") {
		t.Errorf("all:\n%s", out.String())
	}
}

// What Zeek says of itself beside what it counts stands behind the verdict.
func TestOddities(t *testing.T) {
	for _, tt := range []struct {
		h    drops.HopReport
		want string
	}{
		{drops.HopReport{Lag: 0.01, In: ptr(uint64(9)), CaptureLoss: ptr(0.0)}, ""},
		{drops.HopReport{Lag: 3}, ""}, // since the last packet
		{drops.HopReport{Lag: 0.42, In: ptr(uint64(9))}, "; 0.4 s behind"},
		{drops.HopReport{Weird: 12, CaptureLoss: ptr(0.104)}, "; weird: 12; capture loss up to 0.1 %"},
	} {
		if got := oddities(tt.h); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.h, got, tt.want)
		}
	}
}

func TestIntervalLine(t *testing.T) {
	r := lossy()
	if got, want := intervalLine(r), r.To.Format(time.TimeOnly)+"  lost  "+r.Sentence+"; cure: zeekdemo replay --direct"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Nobody is blamed, and nothing advised, where no cause was seen.
func TestNoAdviceWithoutACause(t *testing.T) {
	r := lossy()
	r.Culprit.Reason, r.Culprit.Cure = "not known", ""
	if got := strings.Join(verdictLines(r), "\n"); !strings.Contains(got, "\nwhy:  not known\n") || strings.Contains(got, "cure:") {
		t.Error(got)
	}
	if got := intervalLine(r); strings.Contains(got, "cure") {
		t.Error(got)
	}
	r = drops.Report{Verdict: drops.VerdictMissed, Sentence: "1 connection misses 10 bytes"}
	if got := verdictLines(r); len(got) != 1 {
		t.Errorf("%q", got)
	}
	r.Verdict = drops.VerdictReordered
	if got := strings.Join(verdictLines(r), "\n"); strings.Contains(got, "cure:") || !strings.Contains(got, "docker-proxy has none") {
		t.Error(got)
	}
}

// The screen fits every terminal: no line is wider, none too many, and a hop
// that loses is always on it.
func TestDropsScreenFits(t *testing.T) {
	s := newDropsScreen(dropsOptions{interval: time.Second}, nil, false)
	for range 200 {
		if !s.Take(dropsNews{interval: lossy(), shown: lossy()}) {
			t.Fatal("ends by itself")
		}
	}
	for _, size := range []struct{ Width, Height int }{{80, 24}, {80, 10}, {60, 16}, {200, 60}, {20, 5}} {
		screen := s.Draw(size.Width, size.Height)
		lines := strings.Split(screen, "\n")
		if len(lines) > size.Height {
			t.Errorf("%dx%d: %d lines", size.Width, size.Height, len(lines))
		}
		for _, line := range lines {
			if n := ui.Width(line); n > size.Width {
				t.Errorf("%dx%d: a line of %d cells: %q", size.Width, size.Height, n, line)
			}
		}
		if size.Height >= 10 && !strings.Contains(screen, "docker-proxy 127.0.0.1:4789 ") {
			t.Errorf("%dx%d:\n%s", size.Width, size.Height, screen)
		}
		if size.Width >= 60 && size.Height >= 16 && !strings.Contains(screen, " LOST HER") {
			t.Errorf("%dx%d: no verdict\n%s", size.Width, size.Height, screen)
		}
		if size.Width >= 80 && size.Height >= 24 && (!strings.Contains(screen, " LOST HERE FIRST") || !strings.Contains(screen, "cure: zeekdemo replay --direct")) {
			t.Errorf("%dx%d:\n%s", size.Width, size.Height, screen)
		}
		if size.Width == 80 && size.Height == 10 && !strings.Contains(screen, "more hops without a loss") {
			t.Errorf("%dx%d:\n%s", size.Width, size.Height, screen)
		}
	}
	if got := s.past["docker-proxy/zeek"]; len(got) != moments || !got[0].lost || got[0].in != 30302 {
		t.Errorf("%d moments are kept, the first %+v", len(got), got[0])
	}
}

func TestDropsScreenEnds(t *testing.T) {
	s := newDropsScreen(dropsOptions{count: 2}, nil, false)
	if !s.Take(dropsNews{}) {
		t.Error("ends before --count intervals")
	}
	if s.Take(dropsNews{}) {
		t.Error("goes on after --count intervals")
	}
}

func TestSparkline(t *testing.T) {
	for _, tt := range []struct {
		past  []moment
		width int
		want  string
	}{
		{nil, 4, ""},
		{[]moment{{in: 0}, {in: 1}, {in: 50}, {in: 100}}, 4, " ▁▄█"},
		{[]moment{{in: 100}, {in: 4, lost: true}, {in: 4}, {in: 8}}, 3, "×▄█"},
		{[]moment{{}, {}}, 2, "  "},
	} {
		if got := sparkline(tt.past, tt.width); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.past, got, tt.want)
		}
	}
}
