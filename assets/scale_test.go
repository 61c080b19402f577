package assets_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Of each log that a panel asks for, as many lines, no two of which have a value of
// a name, an address or an identifier in common; and every hundredth of them malformed.
const distinct = 20000

// TestScale executes every query of logs against a real Loki that holds so much,
// most of it in one hour: Loki takes queries apart by the hour, and counts the series
// of each part before topk (max_query_series).
func TestScale(t *testing.T) {
	t.Parallel()
	b := newBench(t, "loki")
	loki := b.run("loki")
	eventually(t, 60*time.Second, func() error { _, err := loki.get(lokiPort, "/ready", nil); return err }, loki)
	end := time.Now().Add(-time.Minute)
	start, held := end.Add(-72*time.Hour), 0
	for log, fields := range askedFields(t) {
		held += fill(t, loki, log, fields, start, end)
	}
	eventually(t, 60*time.Second, func() error { return lokiHolds(loki, held, start) }, loki)
	asker := &grafana{loki: loki, rec: &recording{start: start}}
	values := map[string]string{"sensor": ".+", "run": ".*", "other": "4242", "search": "", "{__to:date:seconds}": seconds(end.Add(time.Hour)),
		"__range": time.Since(start).Round(time.Second).String(), "__auto": "5m"}
	for _, uid := range dashboardFiles {
		d := loadDashboard(t, uid)
		for _, p := range d.all() {
			for _, q := range p.Targets {
				if q.Datasource.Type != "loki" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", uid, p.Title, q.RefID), func(t *testing.T) {
					a := asker.query(t, q, values)
					if len(a.Data.Result) == 0 {
						t.Fatalf("no data from %s", q.Expr)
					}
					if q.QueryType == "instant" && len(a.Data.Result) > 50 {
						t.Errorf("%d rows: nobody reads that", len(a.Data.Result))
					}
				})
			}
		}
	}
}

var (
	askedLog   = regexp.MustCompile(`log="(\w+)"`)
	askedField = regexp.MustCompile("=`(?:\\[\")?([a-z_.A-Z]+)")
)

// askedFields returns the fields that the dashboards ask for, by log.
func askedFields(t *testing.T) map[string][]string {
	t.Helper()
	fields := map[string][]string{}
	for _, uid := range dashboardFiles {
		d := loadDashboard(t, uid)
		for _, p := range d.all() {
			for _, q := range p.Targets {
				m := askedLog.FindStringSubmatch(q.Expr)
				if m == nil || q.Datasource.Type != "loki" {
					continue
				}
				for _, f := range askedField.FindAllStringSubmatch(q.Expr, -1) {
					fields[m[1]] = append(fields[m[1]], f[1])
				}
				for _, column := range p.columns(t) {
					if !strings.HasPrefix(column, "Value") {
						fields[m[1]] = append(fields[m[1]], column)
					}
				}
			}
		}
	}
	for log := range fields {
		slices.Sort(fields[log])
		fields[log] = slices.Compact(fields[log])
	}
	return fields
}

// scaleTime is the time of the i-th line: a quarter of them come in days, the others
// within the last half of an hour.
func scaleTime(i int, start, end time.Time) time.Time {
	if i < distinct/4 {
		return start.Add(end.Sub(start) / (distinct / 4) * time.Duration(i))
	}
	return end.Add(-30 * time.Minute / distinct * time.Duration(distinct-i))
}

// fill pushes a log's lines and returns how many.
func fill(t *testing.T, loki *instance, log string, fields []string, start, end time.Time) int {
	t.Helper()
	const batch = 5000
	for from := 0; from < distinct; from += batch {
		var lines [][3]any
		for i := from; i < from+batch; i++ {
			at := scaleTime(i, start, end)
			lines = append(lines, [3]any{strconv.FormatInt(at.UnixNano(), 10), scaleLine(fields, i, at), map[string]string{"vni": []string{"4242", "77"}[i%2]}})
		}
		push(t, loki, map[string]any{"streams": []any{map[string]any{"stream": map[string]string{"service_name": "zeek", "sensor": "zeek", "log": log}, "values": lines}}})
	}
	return distinct
}

// scaleLine is a line with those fields, or one that is cut, no JSON, or has values
// of other types.
func scaleLine(fields []string, i int, at time.Time) string {
	record := map[string]any{"ts": float64(at.UnixMicro()) / 1e6}
	for _, f := range fields {
		record[f] = scaleValue(f, i, at)
	}
	text, _ := json.Marshal(record)
	switch i % 400 {
	case 100:
		return string(text[:len(text)/2])
	case 200:
		return "fatal error: it is broken `\"" + strconv.Itoa(i)
	case 300:
		for f := range record {
			record[f] = []any{map[string]any{"is": f}, nil}
		}
		text, _ = json.Marshal(record)
	}
	return string(text)
}

// scaleValue is a field's in the i-th line.
func scaleValue(field string, i int, at time.Time) any {
	switch field {
	case "service":
		return fmt.Sprintf("service-%d", i%40)
	case "qtype_name":
		return fmt.Sprintf("query-%d", i%200)
	case "rcode_name":
		return []string{"NOERROR", "NXDOMAIN"}[i%2]
	case "status_code":
		return 100 + i%500
	case "id.orig_h", "id.resp_h", "host", "src", "dst", "client_addr":
		return netip.AddrFrom4([4]byte{10, field[len(field)-3], byte(i >> 8), byte(i)}).String()
	case "resp_mime_types":
		return []string{fmt.Sprintf("type/%d", i)}
	case "certificate.not_valid_after":
		return float64(at.Unix() + int64(i-distinct/2)*60)
	case "duration", "percent_lost", "missed_bytes", "missing_bytes", "seen_bytes", "orig_ip_bytes", "resp_ip_bytes", "id.resp_p", "id.orig_p", "orig_pkts", "resp_pkts":
		return i % 65536
	}
	return fmt.Sprintf("%s-%d", field, i)
}

func push(t *testing.T, loki *instance, body any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	target := url.URL{Scheme: "http", Host: netip.AddrPortFrom(loki.address(), lokiPort).String(), Path: "/loki/api/v1/push"}
	resp, err := http.Post(target.String(), "application/json", bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("push: %s\n%s", resp.Status, loki.logs())
	}
}
