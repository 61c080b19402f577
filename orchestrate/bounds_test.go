package orchestrate

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestAges(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "36h": 36 * time.Hour, "90m": 90 * time.Minute, "45s": 45 * time.Second, "0d1h": time.Hour,
		"": -1, "d": -1, "7": -1, "-1h": -1, "1.5d": -1, "7days": -1, "99999d": -1, "1h2d": -1,
	} {
		got, err := ParseAge(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %s, %v, want %s", text, got, err, want)
		}
	}
	for text, again := range map[string]string{"7d": "7d", "36h": "36h", "1d12h": "36h", "60m": "1h", "90m": "90m", "60s": "1m", "61s": "61s"} {
		d, err := ParseAge(text)
		if got := FormatAge(d); err != nil || got != again {
			t.Errorf("%s is written %s, want %s", text, got, again)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"20G": 20e9, "20GB": 20e9, "1.5g": 1.5e9, "500M": 5e8, "20GiB": 20 << 30, "64MiB": 64 << 20, "1T": 1e12, "123": 123,
		"": -1, "G": -1, "-1G": -1, "20 G": -1, "20X": -1, "1e9": -1, "99999999999T": -1,
	} {
		got, err := ParseSize(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}

// Every share is within the whole, and a sensor's files come in pieces.
func TestBoundsBecomeVariables(t *testing.T) {
	got := Bounds{Retention: 36 * time.Hour, MaxDisk: 10e9}.environment()
	want := map[string]string{"ZEEKDEMO_RETENTION": "36h", "ZEEKDEMO_KEEP": "129600", "ZEEKDEMO_LOG_KEEP": "86400", "ZEEKDEMO_LOG_ROTATE": "3600",
		"ZEEKDEMO_LOKI_DISK": "5859375", "ZEEKDEMO_LOG_DISK": "1220703", "ZEEKDEMO_PROMETHEUS_DISK": "1000000000"}
	if !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	if short := (Bounds{Retention: time.Minute}).environment(); short["ZEEKDEMO_LOG_KEEP"] != "60" || short["ZEEKDEMO_LOG_ROTATE"] != "5" || short["ZEEKDEMO_LOKI_DISK"] != "" {
		t.Errorf("of a minute: %v", short)
	}
	if lokiShare+2*sensorShare+prometheusShare > 1000 {
		t.Error("the shares are more than the whole")
	}
	s := Settings{Bind: netip.MustParseAddr("127.0.0.1"), Pull: PullNever}
	for _, b := range []Bounds{{Retention: time.Second}, {MaxDisk: 1e6}} {
		s.Bounds = b
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "at least") {
			t.Errorf("%+v: %v", b, err)
		}
	}
}

func TestStoresOfTheAccount(t *testing.T) {
	list, err := parseStores("loki 1024 4096 1700000000 3600 refuses\nprometheus 10 20 - 3600\ncollector 4 16384 - 0\nbroken  0 -\nat 1700000010\n")
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	if l := list[0]; l.Name != "loki" || l.Bytes != 1<<20 || l.Most != 4<<20 || l.Oldest.Unix() != 1700000000 || l.Keep != time.Hour || !l.Refuses {
		t.Errorf("%+v", l)
	}
	if p := list[1]; p.Oldest != nil || p.Refuses || p.Most != 20<<10 {
		t.Errorf("%+v", p)
	}
	if _, err := parseStores("loki many 4096 - 0\n"); err == nil {
		t.Error("a size that is no number was taken")
	}
}
