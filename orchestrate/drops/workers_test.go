package drops

import (
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// clusterMetrics is what a real Zeek's workers tell, cut down.
func clusterMetrics(node, packets, lag string) string {
	return `# TYPE zeek_net_received_packets_total counter
zeek_net_received_packets_total{node="` + node + `"} ` + packets + `
# TYPE zeek_net_dropped_packets_total counter
zeek_net_dropped_packets_total{node="` + node + `"} 0
# TYPE zeek_net_packet_lag_seconds gauge
zeek_net_packet_lag_seconds{node="` + node + `"} ` + lag + `
# TYPE process_start_time_seconds gauge
process_start_time_seconds{node="` + node + `"} 1795791708.485408
`
}

// Of a cluster all workers are asked: together they had what came, and the one that
// is furthest behind is how far the sensor is.
func TestWorkersTogether(t *testing.T) {
	var a answer
	for _, w := range [][3]string{{"worker-10", "5", "0.1"}, {"worker-1", "240", "0.7"}, {"worker-2", "632", "0.3"}} {
		list, err := parseMetrics([]byte(clusterMetrics(w[0], w[1], w[2])), zeekNames())
		if err != nil {
			t.Fatal(err)
		}
		a.metrics = append(a.metrics, list...)
	}
	s := zeekState("zeek", a)
	if s.Values[0].Role != RoleIn || s.Values[0].N != 877 || s.Facts.LagSecond != 0.7 {
		t.Errorf("%+v", s)
	}
	var shares []string
	for _, v := range s.Values {
		if v.Role == RoleShare {
			shares = append(shares, v.Name)
		}
	}
	if want := []string{"packets of worker-1", "packets of worker-2", "packets of worker-10"}; !slices.Equal(shares, want) {
		t.Errorf("shares %q, want %q", shares, want)
	}
}

// A flow that no hash can divide is named, not called a fault.
func TestOneWorkerHasMost(t *testing.T) {
	for name, tt := range map[string]struct {
		shares []uint64
		said   string
	}{
		"evenly":      {[]uint64{30_000, 31_000, 29_000}, ""},
		"an elephant": {[]uint64{90_000, 5_000, 5_000}, "worker-1 had 90 % of the packets, 3 workers share them"},
		"one alone":   {[]uint64{90_000}, ""},
		"few packets": {[]uint64{900, 1, 1}, ""},
		"two of two":  {[]uint64{0, 20_000}, "worker-2 had 100 %"},
	} {
		h := HopReport{Hop: HopZeek}
		for i, n := range tt.shares {
			h.Counters = append(h.Counters, Delta{Name: "packets of worker-" + string(rune('1'+i)), Role: RoleShare, Grown: n})
		}
		h.uneven()
		if got := strings.Join(h.Notes, ""); (tt.said == "") != (got == "") || !strings.Contains(got, tt.said) {
			t.Errorf("%s: said %q, want %q", name, got, tt.said)
		}
	}
}

func TestWhereWorkersTellTheirNumbers(t *testing.T) {
	for text, want := range map[string][]int{
		"":                 {9991},
		"SENSOR_WORKERS=1": {9991},
		"SENSOR_WORKERS=2": {9994, 9995},
		"SENSOR_WORKERS=2 SENSOR_LOGGERS=2 SENSOR_PROXIES=3": {9997, 9998},
	} {
		if got := orchestrate.PacketMetricsPorts(orchestrate.Container{Env: strings.Fields(text)}); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
