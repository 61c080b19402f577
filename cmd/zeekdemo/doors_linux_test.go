package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// A page that somebody has open beside the stack cannot stop Loki, forge a line or
// read one; a replay after it is found as ever. What is opened to the network is
// what asks for a password.
func TestTheHostilePage(t *testing.T) {
	p := stackTest(t)
	p.must(t, "up", "--pull", "never")
	for _, attack := range []struct {
		method, url, origin, host string
		want                      int
	}{
		{"GET", "http://127.0.0.1:13100/ingester/shutdown?terminate=false", "http://evil.example", "", 403},
		{"GET", "http://127.0.0.1:13100/ingester/shutdown?terminate=false", "", "", 403}, // as a picture
		{"POST", "http://127.0.0.1:13100/flush", "http://evil.example", "", 403},
		{"POST", "http://127.0.0.1:13100/loki/api/v1/push", "", "", 405},
		{"POST", "http://127.0.0.1:19090/api/v1/write", "", "", 405},
		{"GET", "http://127.0.0.1:13100/loki/api/v1/labels", "", "evil.example:13100", 421}, // rebound
		{"GET", "http://127.0.0.1:19090/api/v1/query?query=up", "http://evil.example", "", 403},
	} {
		if got := sendAs(t, attack.method, attack.url, attack.origin, attack.host); got != attack.want {
			t.Errorf("%s %s, origin %q, host %q: %d, want %d", attack.method, attack.url, attack.origin, attack.host, got, attack.want)
		}
	}
	r := replaySample(t, p, "vxlan", true)
	eventually(t, logWait(t), "the run in Loki", func() error { return sampleArrived(t, r) })
	p.must(t, "status")

	p.must(t, "up", "--pull", "never", "--bind", "0.0.0.0", "--grafana-password", "another")
	for port, want := range map[string]string{"grafana 3000/tcp": "0.0.0.0:13000", "zeek 4789/udp": "0.0.0.0:4789", "gateway 3100/tcp": "127.0.0.1:13100", "gateway 9090/tcp": "127.0.0.1:19090"} {
		service, inside, _ := strings.Cut(port, " ")
		if got, _, _ := strings.Cut(docker(t, "port", "zeekdemo-"+service+"-1", inside), "\n"); got != want {
			t.Errorf("with --bind 0.0.0.0 %s is at %q, want %s", port, got, want)
		}
	}
}

// sendAs sends a request from a page of an origin, to a host by that name.
func sendAs(t *testing.T, method, target, origin, host string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Content-Type", "text/plain") // sent without asking first
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// What a sensor can reach, if what it reads has taken it over: a neighbour of this
// machine hears datagrams at most, and no answer comes back; names are asked of
// nobody; what stores the lines is on no network of its.
func TestSensorsHaveNoWayOut(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "ip")
	p := stackTest(t)
	p.must(t, "up", "--pull", "never")
	neighbour := testenv.NewContainer(t, 1500) // which has no route to the stack's networks
	var ear net.Listener
	neighbour.Inside(t, func() (err error) {
		ear, err = net.Listen("tcp4", netip.AddrPortFrom(neighbour.Addr, 7777).String())
		return err
	})
	defer ear.Close()
	if err := connect(netip.AddrPortFrom(neighbour.Addr, 7777)); err != nil {
		t.Fatalf("nor does this machine reach its neighbour: %v", err)
	}
	for _, sensor := range []string{"zeekdemo-zeek-1", "zeekdemo-zeek-geneve-1"} {
		places := map[string]netip.AddrPort{"a neighbour of this machine": netip.AddrPortFrom(neighbour.Addr, 7777)}
		for name, addr := range networksOf(t, "zeekdemo-loki-1") {
			places["Loki on "+name] = netip.AddrPortFrom(addr, 3100)
		}
		for name, addr := range networksOf(t, "zeekdemo-grafana-1") {
			places["Grafana on "+name] = netip.AddrPortFrom(addr, 3000)
		}
		checkNoWayOut(t, sensor, places)
	}
	for _, encapsulation := range []string{"vxlan", "geneve"} { // and every way in goes on
		replaySample(t, p, encapsulation, true)
		replaySample(t, p, encapsulation, false)
	}
	if r := p.must(t, "replay", "--via", "sidecar", "--json"); !strings.Contains(r.stdout, `"delivery": "taken"`) {
		t.Errorf("by sidecar:\n%s%s", r.stdout, r.stderr)
	}
}

// networksOf maps a container's networks to its addresses there.
func networksOf(t *testing.T, container string) map[string]netip.Addr {
	t.Helper()
	var networks map[string]struct{ IPAddress netip.Addr }
	if err := json.Unmarshal([]byte(docker(t, "inspect", "--format", "{{json .NetworkSettings.Networks}}", container)), &networks); err != nil {
		t.Fatal(err)
	}
	m := map[string]netip.Addr{}
	for name, n := range networks {
		m[name] = n.IPAddress
	}
	return m
}

// checkNoWayOut tries to leave a sensor, from within its network namespace.
func checkNoWayOut(t *testing.T, sensor string, places map[string]netip.AddrPort) {
	t.Helper()
	pid := docker(t, "inspect", "--format", "{{.State.Pid}}", sensor)
	namespace := "zd" + pid
	testenv.IP(t, "netns attach "+namespace+" "+pid)
	defer testenv.IP(t, "netns del "+namespace)
	testenv.Inside(t, namespace, func() error {
		if err := connect(netip.MustParseAddrPort("127.0.0.1:9991")); err != nil {
			return fmt.Errorf("nor does %s reach itself: %w", sensor, err)
		}
		for name, at := range places {
			if connect(at) == nil {
				t.Errorf("%s reaches %s", sensor, name)
			}
		}
		return nil
	})
	before := sentByDefaultRoute(t, pid)
	testenv.Inside(t, namespace, func() error { return askName(netip.MustParseAddrPort("127.0.0.11:53")) })
	if after := sentByDefaultRoute(t, pid); after != before {
		t.Errorf("%s asks somebody for a name: %s packets had left before, %s after", sensor, before, after)
	}
}

// connect tries a connection.
func connect(to netip.AddrPort) error {
	conn, err := net.DialTimeout("tcp4", to.String(), 2*time.Second)
	if err == nil {
		conn.Close()
	}
	return err
}

// askName asks a name server for the address of example.com and waits a moment for
// an answer, of which there need be none (RFC 1035, section 4.1).
func askName(server netip.AddrPort) error {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01")); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	_, _ = conn.Read(make([]byte, 512))
	return nil
}

// sentByDefaultRoute counts the packets that left a process's network namespace by
// the device of its default route.
func sentByDefaultRoute(t *testing.T, pid string) string {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile("/proc/" + pid + "/net/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for line := range strings.Lines(read("route")) {
		device, rest, _ := strings.Cut(line, "\t")
		if !strings.HasPrefix(rest, "00000000\t") {
			continue
		}
		_, counters, _ := strings.Cut(read("dev"), device+":")
		if fields := strings.Fields(counters); len(fields) > 9 {
			return fields[9]
		}
	}
	t.Fatal("no default route")
	return ""
}
