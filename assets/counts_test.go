package assets_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// countsPort is where the collector tells what it counted in the lines.
const countsPort = 8889

// The collector counts the connections of each run, and the intervals in which
// Zeek missed much of enough data: not those with less, or hardly any data. A
// malformed line is no reason to count another one twice.
func TestCollectorCounts(t *testing.T) {
	t.Parallel()
	b := newBench(t, "collector", "loki")
	conn := func(tunnel string, vni int) string {
		return fmt.Sprintf(`{"ts":%d.5,"uid":"C1","id.orig_h":"10.0.0.1","id.ctx.%s_vni":%d,"proto":"tcp"}`+"\n", time.Now().Unix(), tunnel, vni)
	}
	loss := func(acks int, percent string) string {
		return fmt.Sprintf(`{"ts":%d.5,"ts_delta":30.0,"peer":"zeek","gaps":1,"acks":%d,"percent_lost":%s}`+"\n", time.Now().Unix(), acks, percent)
	}
	const malformed = "{\"ts\":\nno JSON\n\"percent_lost\":5\n"
	b.depot().write("/logs", map[string]string{
		"zeek/conn.log":             strings.Repeat(conn("vxlan", 4242), 3000) + malformed + conn("vxlan", 7),
		"zeek/weird.log":            conn("vxlan", 99), // no connection
		"zeek-geneve/conn.log":      conn("geneve", 77),
		"zeek/capture_loss.log":     malformed + loss(378, "0.26") + loss(2, "50.0") + loss(100, "1.0") + loss(5000, "12.5"),
		"zeek-geneve/http.log":      loss(100, "99.0"), // of another log
		"zeek/capture_loss.old.log": "",
	})
	loki, collector := b.run("loki"), b.run("collector") // which counts what Loki has taken
	eventually(t, 30*time.Second, func() error {
		body, err := collector.get(countsPort, "/metrics", nil)
		if err != nil {
			return err
		}
		for _, want := range []string{
			`zeekdemo_run_connections_total{job="zeek",log="conn",sensor="zeek",service_name="zeek",vni="4242"} 3000`,
			`zeekdemo_run_connections_total{job="zeek",log="conn",sensor="zeek",service_name="zeek",vni="7"} 1`,
			`zeekdemo_run_connections_total{job="zeek",log="conn",sensor="zeek-geneve",service_name="zeek",vni="77"} 1`,
			`zeekdemo_capture_loss_total{job="zeek",log="capture_loss",sensor="zeek",service_name="zeek"} 2`,
		} {
			if !strings.Contains(string(body), want+"\n") {
				return fmt.Errorf("no %s in\n%s", want, body)
			}
		}
		if n := strings.Count(string(body), "zeekdemo_run_connections_total{"); n != 3 {
			return fmt.Errorf("%d runs, want 3:\n%s", n, body)
		}
		return nil
	}, loki, collector)
}
