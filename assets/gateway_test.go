package assets_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
)

// The doors of the gateway: the container's ports.
const (
	lokiDoor       = 3100
	prometheusDoor = 9090
)

// wire sends a request exactly as it is written, and reads the answer.
func wire(to netip.AddrPort, method, target, body string, headers ...string) (status int, text string, header http.Header, err error) {
	conn, err := net.DialTimeout("tcp", to.String(), 5*time.Second)
	if err != nil {
		return 0, "", nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	lines := append([]string{method + " " + target + " HTTP/1.1"}, headers...)
	if !strings.Contains(strings.Join(headers, "\n"), "Host:") {
		lines = append(lines, "Host: "+to.String())
	}
	if body != "" {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	fmt.Fprintf(conn, "%s\r\n\r\n%s", strings.Join(lines, "\r\n"), body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "", nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		content, _ := io.ReadAll(resp.Body)
		text = string(content)
	}
	return resp.StatusCode, text, resp.Header, resp.Body.Close()
}

// What a page in a browser on this machine can send to the two published ports
// changes nothing and is told nothing, and what a tool asks is answered. The last
// step shows that it is the gateway that makes the difference.
func TestTheHostilePage(t *testing.T) {
	t.Parallel()
	b := newBench(t, "loki", "prometheus", "gateway")
	loki, prometheus := b.run("loki"), b.run("prometheus")
	gateway := b.run("gateway")
	door := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(gateway.address(), port) }
	eventually(t, time.Minute, func() error {
		for port, path := range map[uint16]string{lokiDoor: "/ready", prometheusDoor: "/-/ready"} {
			if status, text, _, err := wire(door(port), "GET", path, ""); status != http.StatusOK {
				return fmt.Errorf("%s answers %d %s, %v", path, status, text, err)
			}
		}
		return nil
	}, loki, prometheus, gateway)

	checkHostile(t, door)
	checkHelpful(t, door)

	direct := netip.AddrPortFrom(loki.address(), lokiDoor)
	push := func(line string) int {
		status, _, _, _ := wire(direct, "POST", "/loki/api/v1/push", pushBody(line), "Content-Type: application/json")
		return status
	}
	if got := push("true"); got != http.StatusNoContent {
		t.Fatalf("after the page Loki answers a push of the stack's own with %d", got)
	}
	eventually(t, 20*time.Second, func() error {
		_, text, _, err := wire(door(lokiDoor), "GET", `/loki/api/v1/query_range?query={service_name="page"}`, "")
		if err != nil || !strings.Contains(text, `"true"`) || strings.Contains(text, `"forged"`) {
			return fmt.Errorf("Loki has %s, %v", text, err)
		}
		return nil
	}, loki, gateway)

	if status, _, _, err := wire(direct, "GET", "/ingester/shutdown?terminate=false", "", "Origin: http://evil.example"); status != http.StatusNoContent {
		t.Errorf("without the gateway Loki answers %d, %v: is the page still one to be kept out?", status, err)
	}
	if got := push("late"); got/100 == 2 {
		t.Errorf("and a push after that with %d", got)
	}
}

// pushBody is one line for Loki, by the API that takes JSON.
func pushBody(line string) string {
	return fmt.Sprintf(`{"streams":[{"stream":{"service_name":"page"},"values":[["%d","%s"]]}]}`, time.Now().UnixNano(), line)
}

// checkHostile sends what does harm, or would tell a foreign page something.
func checkHostile(t *testing.T, door func(uint16) netip.AddrPort) {
	simple := "Content-Type: text/plain" // a page may send it anywhere without asking first
	for _, tt := range []struct {
		what           string
		port           uint16
		method, target string
		headers        []string
		want           int
	}{
		{"stop Loki", lokiDoor, "GET", "/ingester/shutdown?terminate=false", nil, 403},
		{"stop Loki, in a page", lokiDoor, "GET", "/ingester/shutdown?terminate=false", []string{"Origin: http://evil.example"}, 403},
		{"stop Loki, by another spelling", lokiDoor, "GET", "/ingester%2fshutdown", nil, 403},
		{"stop Loki, by a detour", lokiDoor, "GET", "/loki/api/v1/labels/../../../../ingester/shutdown", nil, 403},
		{"stop Loki, by an encoded detour", lokiDoor, "GET", "/loki/api/v1/label/..%2f..%2f..%2f..%2fingester%2fshutdown%3f/values", nil, 403},
		{"stop Loki, by two slashes", lokiDoor, "GET", "//ingester/shutdown", nil, 403},
		{"stop Loki, by a whole URL", lokiDoor, "GET", "http://loki:3100/ingester/shutdown", []string{"Host: 127.0.0.1"}, 421},
		{"stop Loki, by a whole URL of ours", lokiDoor, "GET", "http://127.0.0.1:3100/ingester/shutdown", []string{"Host: 127.0.0.1"}, 403},
		{"stop Loki, after what is allowed", lokiDoor, "GET", "/ready/../ingester/shutdown", nil, 403},
		{"prepare a shutdown", lokiDoor, "GET", "/ingester/prepare_shutdown", nil, 403},
		{"flush", lokiDoor, "GET", "/flush", nil, 403},
		{"flush", lokiDoor, "POST", "/flush", []string{simple}, 405},
		{"delete", lokiDoor, "POST", "/loki/api/v1/delete?query={a=\"b\"}", []string{simple}, 405},
		{"list deletions", lokiDoor, "GET", "/loki/api/v1/delete", nil, 403},
		{"forge lines", lokiDoor, "POST", "/loki/api/v1/push", []string{"Content-Type: application/json"}, 405},
		{"forge lines, simply", lokiDoor, "POST", "/loki/api/v1/push", []string{simple}, 405},
		{"forge lines by OTLP", lokiDoor, "POST", "/otlp/v1/logs", []string{simple}, 405},
		{"ask whether it may forge", lokiDoor, "OPTIONS", "/loki/api/v1/push", []string{"Origin: http://evil.example"}, 403},
		{"write by another method", lokiDoor, "GET", "/loki/api/v1/push", []string{"X-HTTP-Method-Override: POST"}, 403},
		{"change the log level", lokiDoor, "POST", "/log_level?log_level=debug", []string{simple}, 405},
		{"profile", lokiDoor, "GET", "/debug/pprof/heap", nil, 403},
		{"read Loki by a name that points here", lokiDoor, "GET", "/loki/api/v1/labels", []string{"Host: evil.example:13100"}, 421},
		{"the same, with no name at all", lokiDoor, "GET", "/loki/api/v1/labels", []string{"Host:"}, 421},
		{"the same, by what only looks like an address", lokiDoor, "GET", "/loki/api/v1/labels", []string{"Host: 127.0.0.1.evil.example"}, 421},
		{"read Loki in a script", lokiDoor, "GET", "/loki/api/v1/labels", []string{"Origin: http://evil.example"}, 403},
		{"the same from a page at an address", lokiDoor, "GET", "/loki/api/v1/labels", []string{"Host: 127.0.0.1:13100", "Origin: http://203.0.113.9"}, 403},
		{"the same from a page without an origin", lokiDoor, "GET", "/loki/api/v1/labels", []string{"Origin: null"}, 403},
		{"follow Loki's lines", lokiDoor, "GET", "/loki/api/v1/tail?query={a=\"b\"}", []string{"Origin: http://evil.example", "Connection: Upgrade", "Upgrade: websocket",
			"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}, 403},
		{"load a picture", lokiDoor, "GET", "/loki/api/v1/labels", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 403},
		{"show it in a frame", prometheusDoor, "GET", "/query", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403},
		{"reload Prometheus", prometheusDoor, "POST", "/-/reload", []string{simple}, 405},
		{"stop Prometheus", prometheusDoor, "POST", "/-/quit", []string{simple}, 405},
		{"forge samples", prometheusDoor, "POST", "/api/v1/write", []string{simple}, 405},
		{"delete series", prometheusDoor, "POST", "/api/v1/admin/tsdb/delete_series?match[]=up", []string{simple}, 405},
		{"delete series", prometheusDoor, "PUT", "/api/v1/admin/tsdb/delete_series?match[]=up", nil, 405},
		{"profile", prometheusDoor, "GET", "/debug/pprof/profile?seconds=60", nil, 403},
		{"read Prometheus by a name that points here", prometheusDoor, "GET", "/api/v1/query?query=up", []string{"Host: evil.example"}, 421},
		{"read Prometheus in a script", prometheusDoor, "GET", "/api/v1/query?query=up", []string{"Origin: http://evil.example"}, 403},
		{"from Loki's page", prometheusDoor, "GET", "/api/v1/query?query=up", []string{"Host: 127.0.0.1:19090", "Origin: http://127.0.0.1:13100"}, 403},
	} {
		body := ""
		if tt.method == "POST" {
			body = pushBody("forged")
		}
		status, text, header, err := wire(door(tt.port), tt.method, tt.target, body, tt.headers...)
		if err != nil || status != tt.want {
			t.Errorf("%s: %s %s %q: %d %s, %v; want %d", tt.what, tt.method, tt.target, tt.headers, status, text, err, tt.want)
		}
		if header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: the page may read the answer: %v", tt.what, header)
		}
	}
}

// checkHelpful asks what this program, tools and the pages of Prometheus ask.
func checkHelpful(t *testing.T, door func(uint16) netip.AddrPort) {
	for _, tt := range []struct {
		port    uint16
		target  string
		headers []string
		want    int
	}{
		{lokiDoor, "/ready", nil, 200},
		{lokiDoor, "/metrics", nil, 200},
		{lokiDoor, "/ready", []string{"Host: localhost:13100"}, 200},
		{lokiDoor, "/ready", []string{"Host: [::1]:13100"}, 200},
		{lokiDoor, "/ready", []string{"Host: 192.0.2.7"}, 200},
		{lokiDoor, "/ready", []string{"Host: 127.0.0.1:13100", "Origin: http://127.0.0.1:13100"}, 200},
		{lokiDoor, "/ready", []string{"Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 200},
		{lokiDoor, "/ready", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 200}, // a link
		{lokiDoor, "/loki/api/v1/labels", nil, 200},
		{lokiDoor, "/loki/api/v1/label/sensor/values", nil, 200},
		{lokiDoor, `/loki/api/v1/series?match[]={a="b"}`, nil, 200},
		{lokiDoor, `/loki/api/v1/query?query=sum(count_over_time({a="b"}[1m]))`, nil, 200},
		{lokiDoor, `/loki/api/v1/query_range?query={a="b"}&limit=5`, nil, 200},
		{lokiDoor, `/loki/api/v1/index/stats?query={a="b"}`, nil, 200},
		{lokiDoor, `/loki/api/v1/index/volume?query={a="b"}`, nil, 200},
		{lokiDoor, "/loki/api/v1/status/buildinfo", nil, 200},
		{lokiDoor, `/loki/api/v1/tail?query={a="b"}`, []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
			"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}, 101},
		{prometheusDoor, "/-/gateway", nil, 200},
		{prometheusDoor, "/-/ready", nil, 200},
		{prometheusDoor, "/", nil, 302},
		{prometheusDoor, "/metrics", nil, 200},
		{prometheusDoor, "/api/v1/query?query=up", nil, 200},
		{prometheusDoor, "/api/v1/query_range?query=up&start=0&end=1&step=1", nil, 200},
		{prometheusDoor, "/api/v1/alerts", nil, 200},
		{prometheusDoor, "/api/v1/rules?type=alert", nil, 200},
		{prometheusDoor, "/api/v1/targets?state=active", nil, 200},
		{prometheusDoor, "/api/v1/label/__name__/values", nil, 200},
		{prometheusDoor, "/api/v1/status/tsdb", nil, 200},
		{prometheusDoor, "/api/v1/status/buildinfo", nil, 200},
		{prometheusDoor, "/api/v1/notifications", nil, 200},
	} {
		status, text, _, err := wire(door(tt.port), "GET", tt.target, "", tt.headers...)
		if err != nil || status != tt.want {
			t.Errorf("GET %s %q: %d %s, %v; want %d", tt.target, tt.headers, status, text, err, tt.want)
		}
	}
	if status, _, header, err := wire(door(lokiDoor), "POST", "/loki/api/v1/query", "x"); status != 405 || header.Get("Allow") != "GET, HEAD" {
		t.Errorf("a tool is not told what passes: %d %v, %v", status, header, err)
	}
}

// Each health check works in its image: `docker compose up --wait` ends, and not
// before the services answer. The sensors' are looked at by every scenario.
func TestHealthChecks(t *testing.T) {
	t.Parallel()
	services := []string{"collector", "exporter-host", "gateway", "grafana", "loki", "prometheus"}
	b := newBench(t, services...)
	for _, service := range services {
		i := b.run(service)
		eventually(t, time.Minute, func() error {
			if h := i.inspect().State.Health; h == nil || h.Status != container.Healthy {
				return fmt.Errorf("%s is not healthy: %s", service, lastHealth(h))
			}
			return nil
		}, i)
	}
}

// lastHealth is what the last look at a container printed.
func lastHealth(h *container.Health) string {
	if h == nil {
		return "it has no health check"
	}
	if len(h.Log) == 0 {
		return "not looked at yet"
	}
	return h.Log[len(h.Log)-1].Output
}
