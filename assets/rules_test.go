package assets_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"gopkg.in/yaml.v3"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// rule is one of stack/prometheus/rules.yml.
type rule struct {
	Alert, Expr string
	Labels      map[string]string
	Annotations map[string]string
}

// loadRules parses the rules as Compose delivers them.
func loadRules(tb testing.TB) (rules []rule) {
	tb.Helper()
	var file struct {
		Groups []struct{ Rules []rule }
	}
	if err := yaml.Unmarshal([]byte(loadStack(tb, nil).Configs["prometheus-rules"].Content), &file); err != nil {
		tb.Fatal(err)
	}
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules
}

// Every alert says what is wrong and what to type, and is made to fire by a unit
// test.
func TestAlertsSayWhatToDo(t *testing.T) {
	var tests struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string `yaml:"alertname"`
				ExpAlerts []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(readFile(t, "testdata/rules_test.yml")), &tests); err != nil {
		t.Fatal(err)
	}
	fires, rests := map[string]bool{}, map[string]bool{}
	for _, unit := range tests.Tests {
		for _, expected := range unit.AlertRuleTest {
			fires[expected.Alertname] = fires[expected.Alertname] || len(expected.ExpAlerts) > 0
			rests[expected.Alertname] = rests[expected.Alertname] || len(expected.ExpAlerts) == 0
		}
	}
	for _, r := range loadRules(t) {
		if !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || !strings.Contains(r.Annotations["action"], "`zeekdemo ") {
			t.Errorf("%s: severity %q, summary %q, action %q", r.Alert, r.Labels["severity"], r.Annotations["summary"], r.Annotations["action"])
		}
		if !fires[r.Alert] || !rests[r.Alert] {
			t.Errorf("%s: the unit tests make it fire: %v, and rest: %v; want both", r.Alert, fires[r.Alert], rests[r.Alert])
		}
	}
}

// A text is the same whenever its alert fires, so what mends it is said under the
// condition that its cause is there: the expression does not prove it.
func TestAlertsClaimNoCause(t *testing.T) {
	remedies := []string{"`zeekdemo up`", "`zeekdemo tune-host", "`zeekdemo replay", "`docker unpause"}
	causes := []string{"docker-proxy", "backlog", "Loki refused", "Zeek's own"}
	for _, r := range loadRules(t) {
		action, summary := r.Annotations["action"], r.Annotations["summary"]
		for _, remedy := range remedies {
			if before, _, there := strings.Cut(action, remedy); there && !strings.Contains(strings.ToLower(before), "if ") {
				t.Errorf("%s: %s without an \"if\": %s", r.Alert, remedy, action)
			}
		}
		for _, cause := range causes {
			if strings.Contains(summary, cause) && !strings.Contains(summary, "usually") {
				t.Errorf("%s: %s is no fact: %s", r.Alert, cause, summary)
			}
		}
	}
}

// The alert for memory reckons with what the Compose file gives one process and `up`
// the processes of a cluster.
func TestMemoryAlertKnowsWhatProcessesGet(t *testing.T) {
	at := slices.IndexFunc(loadRules(t), func(r rule) bool { return r.Alert == "SensorMemory" })
	if at < 0 {
		t.Fatal("no alert SensorMemory")
	}
	m := regexp.MustCompile(`(?s)/ \(\s*(\d+)\s+\+ (\d+) \* count.*?\+ (\d+) \* \(`).FindStringSubmatch(loadRules(t)[at].Expr)
	if m == nil {
		t.Fatalf("the numbers are not found in %s", loadRules(t)[at].Expr)
	}
	var base, process, worker int64
	fmt.Sscan(strings.Join(m[1:], " "), &base, &process, &worker)
	for _, workers := range []int64{1, 2, 3, 8} {
		s := orchestrate.Settings{Bind: netip.MustParseAddr("127.0.0.1"), Cluster: orchestrate.Cluster{Workers: map[string]int{"vxlan": int(workers)}}}
		given := int64(loadStack(t, s.Environment()).Services["zeek"].MemLimit)
		reckoned := base + process
		if workers > 1 {
			reckoned = base + process*(workers+3) + worker*workers
		}
		if reckoned<<20 != given {
			t.Errorf("%d workers: the alert reckons with %d bytes, the Compose file gives %d", workers, reckoned<<20, given)
		}
	}
}

// What a dashboard says of the limit is what the Compose file sets.
func TestMemoryAlertKnowsTheLimit(t *testing.T) {
	stack := loadStack(t, nil)
	for _, name := range []string{"zeek", "zeek-geneve"} {
		limit := int64(stack.Services[name].MemLimit)
		if want := fmt.Sprintf("The container's limit is %d GiB.", limit>>30); !strings.Contains(dashboardJSON(t, "zeekdemo-telemetry"), want) {
			t.Errorf("the dashboard does not say %q", want)
		}
	}
}

// The rules' unit tests, in the promtool that comes with Prometheus.
func TestRules(t *testing.T) {
	t.Parallel()
	b := newBench(t, "prometheus")
	tool := b.createContainer("promtool", &container.Config{
		Image: b.project.Services["prometheus"].Image, Entrypoint: []string{"/bin/promtool"}, Cmd: []string{"test", "rules", "rules_test.yml"}, WorkingDir: "/tmp",
	}, &container.HostConfig{})
	tool.write("/tmp", map[string]string{"rules.yml": b.project.Configs["prometheus-rules"].Content, "rules_test.yml": readFile(t, "testdata/rules_test.yml")})
	tool.start()
	wait := b.api.ContainerWait(t.Context(), tool.id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case err := <-wait.Error:
		t.Fatal(err)
	case ended := <-wait.Result:
		if ended.StatusCode != 0 || !strings.Contains(tool.logs(), "SUCCESS") {
			t.Errorf("exit code %d:\n%s", ended.StatusCode, tool.logs())
		}
	}
}

// What cannot be broken for a test without harm to the machine, a real
// Prometheus is shown instead, as the exporter tells it: a CPU whose backlog
// overflows, a socket of the host whose queue does, and a sensor that crashes, swells
// and falls behind. A Loki that takes nothing is one too; the collector before it is
// real, and so is what it counts of capture_loss.log. The other alerts are made to fire
// by the real thing (cmd/zeekdemo).
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	b := newBench(t, "prometheus", "collector")
	start := time.Now()
	b.serve("9100", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		lost := int(time.Since(start).Seconds())
		fmt.Fprintf(w, "# TYPE node_softnet_dropped_total counter\nnode_softnet_dropped_total{cpu=\"0\"} 0\nnode_softnet_dropped_total{cpu=\"1\"} %d\n", lost)
		fmt.Fprintf(w, "# TYPE node_netstat_Udp_InDatagrams untyped\nnode_netstat_Udp_InDatagrams %d\n", lost) // a sensor takes packets meanwhile
		fmt.Fprintf(w, "# TYPE node_netstat_Udp_RcvbufErrors untyped\nnode_netstat_Udp_RcvbufErrors %d\n", lost)
	}))
	var asked atomic.Int32
	b.serve("9991", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		began, age := start.Add(-1000*time.Second).Unix(), time.Since(start)
		if asked.Add(1) > 2 { // it was seen, and crashed
			began = start.Unix()
		}
		fmt.Fprintf(w, "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %d.25\n", began)
		fmt.Fprintln(w, "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 2e+09")
		fmt.Fprintln(w, "# TYPE zeek_net_packet_lag_seconds gauge\nzeek_net_packet_lag_seconds 9.5")
		fmt.Fprintf(w, "# TYPE zeek_net_received_packets_total counter\nzeek_net_received_packets_total %d\n", age.Milliseconds())
	}))
	b.serve("3100", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "entry too far behind", http.StatusBadRequest)
	}))
	prometheus := b.run("prometheus", "exporter-host:"+b.gateway.String(), "zeek:"+b.gateway.String())
	b.depot().write("/logs", map[string]string{"zeek/conn.log": logLines("C", start, 10),
		"zeek/capture_loss.log": fmt.Sprintf("{\"ts\":%d.0,\"ts_delta\":30.0,\"peer\":\"zeek\",\"gaps\":21,\"acks\":1000,\"percent_lost\":2.1}\n", start.Unix())})
	collector := b.run("collector", "loki:"+b.gateway.String())
	eventually(t, 60*time.Second, func() error {
		a, err := prometheus.ask(prometheusPort, "/api/v1/query", url.Values{"query": {`ALERTS{alertstate="firing", alertname=~"CaptureLoss|HostSocketDrops|LogLinesRefused|SensorBehind|SensorMemory|SensorRestarted|SoftnetDrops"}`}})
		if err != nil {
			return err
		}
		var names []string
		for _, s := range a.Data.Result {
			names = append(names, s.Metric["alertname"]+s.Metric["cpu"])
		}
		slices.Sort(names)
		if want := []string{"CaptureLoss", "HostSocketDrops", "LogLinesRefused", "SensorBehind", "SensorMemory", "SensorRestarted", "SoftnetDrops1"}; !slices.Equal(names, want) {
			return fmt.Errorf("alerts %q, want %q", names, want)
		}
		return nil
	}, prometheus, collector)
}
