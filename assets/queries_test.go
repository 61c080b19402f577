package assets_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Ports inside the network.
const (
	lokiPort       = 3100
	prometheusPort = 9090
	collectorPort  = 8888
	healthPort     = 13133
)

// What the recording holds, summed up over its files. Panels with a
// single number must show it; the others must show something: there is but one
// whose data the recording lacks.
var counted = map[string]string{
	"Connections":                   "521",
	"Bytes":                         "7628750",
	"Connections with missed bytes": "3",
	"Missed bytes":                  "14713",
	"Notices":                       "3",
	"Weird":                         "71",
	"Incomplete files":              "3",
	"NXDOMAIN":                      "6",
	"Expired certificates":          "3",
	"Bytes in files":                "4203570",
}

// TestQueries executes every query of the dashboards as Grafana would, against
// real Prometheus and real Loki that hold what two real sensors recorded and
// that got it by way of the stack's own configurations.
func TestQueries(t *testing.T) {
	t.Parallel()
	rec := recorded(t)
	b := newBench(t, "loki", "collector", "prometheus", "exporter-host")
	b.run("exporter-host")
	hosts := rec.serveMetrics(b)
	loki, prometheus := b.run("loki"), b.run("prometheus", hosts...)
	b.depot().write("/logs", rec.files)
	collector := b.run("collector")
	eventually(t, 90*time.Second, func() error { return lokiHolds(loki, rec.lines(), rec.start) }, loki, collector)
	eventually(t, 60*time.Second, func() error { return scrapedTwice(prometheus) }, prometheus)

	asker := &grafana{loki: loki, prometheus: prometheus, rec: rec}
	for _, uid := range dashboardFiles {
		d := loadDashboard(t, uid)
		values := asker.variables(t, d)
		for _, m := range d.Annotations.List {
			if m.Expr != "" { // there may be none to mark, but it must be a query
				asker.query(t, target{Expr: m.Expr, Datasource: m.Datasource}, values)
			}
		}
		for _, p := range d.all() {
			for _, target := range p.Targets {
				if target.Datasource.Type == "grafana" {
					continue // its annotations: there is no Grafana here
				}
				name := fmt.Sprintf("%s/%s/%s", uid, p.Title, target.RefID)
				t.Run(name, func(t *testing.T) {
					a := asker.query(t, target, values)
					if len(a.Data.Result) == 0 && p.Title != "Long connections" { // the recording was sent as fast as it went; TestScale has some
						t.Fatalf("no data from %s", target.Expr)
					}
					want, ok := counted[p.Title]
					if target.RefID == "C" { // what two times the same run differ by
						want = "0"
					}
					if ok && p.Type == "stat" && fmt.Sprint(a.Data.Result[0].Value[1]) != want {
						t.Errorf("%v, want %s", a.Data.Result[0].Value[1], want)
					}
					if len(a.Data.Result) > 0 {
						checkColumns(t, p, a)
					}
				})
			}
		}
	}
	t.Run("run", func(t *testing.T) { checkRuns(t, asker) })
	t.Run("labels", func(t *testing.T) { checkLabels(t, loki) })
	t.Run("lines", func(t *testing.T) { checkLines(t, loki, rec) })
	t.Run("health", func(t *testing.T) {
		if _, err := collector.get(healthPort, "/", nil); err != nil {
			t.Error(err)
		}
	})
}

// lokiHolds wants that many lines in Loki since start.
func lokiHolds(loki *instance, want int, start time.Time) error {
	window := int(time.Since(start).Seconds()) + 1
	a, err := loki.ask(lokiPort, "/loki/api/v1/query", url.Values{"query": {fmt.Sprintf(`sum(count_over_time({service_name="zeek"}[%ds]))`, window)}})
	if err != nil {
		return err
	}
	got := 0
	if len(a.Data.Result) > 0 {
		got, _ = strconv.Atoi(fmt.Sprint(a.Data.Result[0].Value[1]))
	}
	if got != want {
		return fmt.Errorf("%d of %d lines are in Loki", got, want)
	}
	return nil
}

// scrapedTwice wants two scrapes of every target, so that rates are computable;
// collector and Loki count lines only from the first one on. Five seconds ago, so
// that the last step of a range query, at most 5 seconds ago, has data.
func scrapedTwice(prometheus *instance) error {
	for _, expr := range []string{
		`rate(zeek_net_received_packets_total{sensor="zeek"}[20s] offset 5s)`,
		`rate(zeek_net_received_packets_total{sensor="zeek-geneve"}[20s] offset 5s)`,
		`rate(otelcol_receiver_accepted_log_records[20s] offset 5s)`,
		`rate(otelcol_exporter_sent_log_records[20s] offset 5s)`,
		`rate(loki_distributor_lines_received_total[20s] offset 5s)`,
		`rate(prometheus_tsdb_head_samples_appended_total[20s] offset 5s)`,
		`zeekdemo_run_connections_total{sensor="zeek", vni="4242"} == 458`,
		`zeekdemo_run_connections_total{sensor="zeek-geneve", vni="77"} == 63`,
		`rate(node_netstat_Udp_InDatagrams{namespace="host"}[20s] offset 5s)`,
		`rate(node_netstat_Udp_InDatagrams{namespace="zeek"}[20s] offset 5s)`,
		`rate(node_netstat_Udp_InDatagrams{namespace="zeek-geneve"}[20s] offset 5s)`,
	} {
		a, err := prometheus.ask(prometheusPort, "/api/v1/query", url.Values{"query": {expr}})
		if err == nil && len(a.Data.Result) == 0 {
			err = fmt.Errorf("no data from %s", expr)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// grafana does what Grafana does between a panel and a data source.
type grafana struct {
	loki, prometheus *instance
	rec              *recording
}

// variables gives every variable of a dashboard the value it has at first, after
// asking for the choices it offers.
func (g *grafana) variables(t *testing.T, d dashboard) map[string]string {
	t.Helper()
	span := time.Since(g.rec.start).Round(time.Second) + time.Second
	values := map[string]string{
		"{__to:date:seconds}": seconds(time.Now()), "__range": span.String(), "__interval": "15s", "__auto": "15s", "__rate_interval": "20s",
	}
	for _, v := range d.Templating.List {
		switch v.Type {
		case "query":
			want := []string{"4242", "77"}
			if v.Name == "sensor" {
				want = []string{"zeek", "zeek-geneve"}
			}
			if got := g.choices(t, v); !slices.Equal(got, want) {
				t.Errorf("variable %s offers %q, want %q", v.Name, got, want)
			}
			values[v.Name] = v.AllValue
		default:
			values[v.Name] = fmt.Sprint(v.Current.Value)
		}
	}
	return values
}

// choices asks for the values of a query variable, in both forms that Grafana's
// data sources have for it.
func (g *grafana) choices(t *testing.T, v variable) []string {
	t.Helper()
	var query struct{ Query, Label, Stream string }
	if err := json.Unmarshal(v.Query, &query); err != nil {
		t.Fatal(err)
	}
	var body []byte
	var err error
	if v.Datasource.Type == "loki" {
		body, err = g.loki.get(lokiPort, "/loki/api/v1/label/"+query.Label+"/values", url.Values{"query": {query.Stream}, "start": {seconds(g.rec.start)}})
	} else {
		selector, label, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(query.Query, "label_values("), ")"), ", ")
		body, err = g.prometheus.get(prometheusPort, "/api/v1/label/"+label+"/values", url.Values{"match[]": {selector}})
	}
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Data []string }
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list.Data)
	return list.Data
}

// query runs one panel's query over the time of the recording until now.
func (g *grafana) query(t *testing.T, target target, values map[string]string) answer {
	t.Helper()
	expr := substitute(target.Expr, values)
	if strings.Contains(expr, "$") {
		t.Fatalf("a variable is left in %s", expr)
	}
	store, port, prefix, instant := g.prometheus, prometheusPort, "/api/v1/", target.Instant
	if target.Datasource.Type == "loki" {
		store, port, prefix, instant = g.loki, lokiPort, "/loki/api/v1/", target.QueryType == "instant"
	}
	now := time.Now()
	request, path := url.Values{"query": {expr}, "time": {seconds(now)}}, prefix+"query"
	if !instant {
		request, path = url.Values{"query": {expr}, "start": {seconds(g.rec.start)}, "end": {seconds(now)}, "step": {g.step()}}, prefix+"query_range"
	}
	a, err := store.ask(port, path, request)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return a
}

// step is that of a panel a thousand points wide, but no shorter than a scrape.
func (g *grafana) step() string {
	return strconv.Itoa(max(5, int(time.Since(g.rec.start).Seconds()/1000)))
}

func seconds(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// checkColumns wants every column of a table to be a field of some line, or a label
// of some series.
func checkColumns(t *testing.T, p panel, a answer) {
	t.Helper()
	fields := map[string]bool{}
	for _, s := range a.Data.Result {
		for label := range s.Metric {
			fields[label] = true
		}
		for _, value := range s.Values {
			line, _ := value[1].(string)
			var record map[string]any
			if json.Unmarshal([]byte(line), &record) == nil {
				for name := range record {
					fields[name] = true
				}
			}
		}
	}
	for _, column := range p.columns(t) {
		if !fields[column] && !strings.HasPrefix(column, "Value") { // Grafana's name for what is counted
			t.Errorf("no line has the column %s; fields: %v", column, slices.Sorted(maps.Keys(fields)))
		}
	}
}

// checkRuns chooses runs as a link does, by var-run=VNI.
func checkRuns(t *testing.T, g *grafana) {
	d := loadDashboard(t, "zeekdemo-logs")
	at := slices.IndexFunc(d.Panels, func(p panel) bool { return p.Title == "Connections" && p.Type == "stat" })
	if at < 0 {
		t.Fatal("no panel counts the connections")
	}
	values := g.variables(t, d)
	for _, tt := range []struct{ run, want string }{
		{values["run"], "521"}, {"4242", "458"}, {"77", "63"}, {"42", "0"}, {"7", "0"},
	} {
		values["run"] = tt.run
		a, got := g.query(t, d.Panels[at].Targets[0], values), ""
		if len(a.Data.Result) > 0 {
			got = fmt.Sprint(a.Data.Result[0].Value[1])
		}
		if got != tt.want {
			t.Errorf("run %q: %s connections, want %s", tt.run, got, tt.want)
		}
	}
}

// checkLabels wants exactly the three index labels.
func checkLabels(t *testing.T, loki *instance) {
	body, err := loki.get(lokiPort, "/loki/api/v1/labels", url.Values{"since": {"24h"}})
	if err != nil {
		t.Fatal(err)
	}
	var labels struct{ Data []string }
	if err := json.Unmarshal(body, &labels); err != nil {
		t.Fatal(err)
	}
	slices.Sort(labels.Data)
	if want := []string{"log", "sensor", "service_name"}; !slices.Equal(labels.Data, want) {
		t.Errorf("index labels %q, want %q", labels.Data, want)
	}
}

// checkLines wants the raw lines back, each at the time that it states.
func checkLines(t *testing.T, loki *instance, rec *recording) {
	for name, text := range rec.files {
		sensor, file, _ := strings.Cut(name, "/")
		a, err := loki.ask(lokiPort, "/loki/api/v1/query_range", url.Values{
			"query": {fmt.Sprintf(`{service_name="zeek", sensor=%q, log=%q}`, sensor, strings.TrimSuffix(file, ".log"))},
			"start": {seconds(rec.start)}, "limit": {"5000"},
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := linesOf(a)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		want := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d lines, want the %d of the file", name, len(got), len(want))
		}
	}
}

// linesOf returns the log lines of an answer, after comparing each one's time
// with its ts: equal when rounded to microseconds.
func linesOf(a answer) (lines []string, err error) {
	for _, s := range a.Data.Result {
		for _, value := range s.Values {
			line := fmt.Sprint(value[1])
			lines = append(lines, line)
			stored, _ := strconv.ParseInt(fmt.Sprint(value[0]), 10, 64)
			if ts := timeOf(line); stored != ts.Round(time.Microsecond).UnixNano() {
				err = errors.Join(err, fmt.Errorf("line of %v is stored at %d", ts, stored))
			}
		}
	}
	return lines, err
}

// timeOf reads the ts of a line, digit by digit: a float64 would not hold it.
func timeOf(line string) time.Time {
	ts, _, _ := strings.Cut(strings.TrimPrefix(line, `{"ts":`), ",")
	whole, fraction, _ := strings.Cut(ts, ".")
	sec, _ := strconv.ParseInt(whole, 10, 64)
	nsec, _ := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	return time.Unix(sec, nsec)
}
