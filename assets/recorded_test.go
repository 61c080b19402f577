package assets_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// recording is what two real sensors once wrote: log files by their place below
// /logs, and metrics by sensor. Its times are moved so that it ends two minutes
// before the test, because stores refuse what is too old.
type recording struct {
	files      map[string]string // "zeek/conn.log" -> lines
	metrics    map[string]string // "zeek" -> exposition text
	start, end time.Time
}

// recorded reads the shared collection: VNI 4242 over VXLAN, 77 over GENEVE.
func recorded(tb testing.TB) *recording {
	tb.Helper()
	r := &recording{files: map[string]string{}, metrics: map[string]string{}}
	for sensor, folder := range map[string]string{"zeek": "vxlan", "zeek-geneve": "geneve"} {
		root := testenv.Shared(tb, "zeek9", "live", folder)
		r.metrics[sensor] = readFile(tb, filepath.Join(root, "metrics.txt"))
		logs, err := filepath.Glob(filepath.Join(root, "*.log"))
		if err != nil || len(logs) == 0 {
			tb.Fatalf("no logs in %s: %v", root, err)
		}
		for _, path := range logs {
			r.files[sensor+"/"+filepath.Base(path)] = readFile(tb, path)
		}
	}
	r.addKerberos(tb)
	r.shift(time.Now().Add(-2 * time.Minute))
	return r
}

// addKerberos adds a log that no capture of the recording makes: of another one,
// which a real Zeek read offline, so it gets a time and a run of the recording.
func (r *recording) addKerberos(tb testing.TB) {
	tb.Helper()
	text := readFile(tb, testenv.Shared(tb, "zeek9", "offline", "kerberos_tso.pcapng", "kerberos.log"))
	now := lineTime.FindString(r.files["zeek/conn.log"])
	r.files["zeek/kerberos.log"] = strings.ReplaceAll(lineTime.ReplaceAllString(text, now), "4294967295", "4242")
}

var lineTime = regexp.MustCompile(`(?m)^\{"ts":(\d+)`)

// shift moves all times by whole seconds so that the last is end.
func (r *recording) shift(end time.Time) {
	first, last := int64(1<<62), int64(0)
	for _, text := range r.files {
		for _, m := range lineTime.FindAllStringSubmatch(text, -1) {
			seconds, _ := strconv.ParseInt(m[1], 10, 64)
			first, last = min(first, seconds), max(last, seconds)
		}
	}
	delta := end.Unix() - last
	for name, text := range r.files {
		r.files[name] = lineTime.ReplaceAllStringFunc(text, func(match string) string {
			seconds, _ := strconv.ParseInt(strings.TrimPrefix(match, `{"ts":`), 10, 64)
			return fmt.Sprintf(`{"ts":%d`, seconds+delta)
		})
	}
	r.start, r.end = time.Unix(first+delta, 0), time.Unix(last+delta+1, 0)
}

// lines counts the lines of all files.
func (r *recording) lines() int {
	n := 0
	for _, text := range r.files {
		n += strings.Count(text, "\n")
	}
	return n
}

// serveMetrics answers for both sensors at the network's gateway, which is this
// machine, and returns the names by which Prometheus must know it. The exporters
// beside them are real ones, in network namespaces of their own.
func (r *recording) serveMetrics(b *bench) []string {
	b.Helper()
	b.serve("9991", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		sensor, _, _ := strings.Cut(req.Host, ":")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8") // Zeek's: it names no version
		fmt.Fprint(w, r.metrics[sensor])
	}))
	beside := map[string]string{}
	var hosts []string
	for sensor := range r.metrics {
		hosts = append(hosts, sensor+":"+b.gateway.String())
		beside[sensor+":9100"] = netip.AddrPortFrom(b.run("exporter-"+sensor).address(), 9100).String()
	}
	b.serve("9100", &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.Out.URL.Scheme, p.Out.URL.Host = "http", beside[p.In.Host]
	}})
	return hosts
}

// serve listens at the network's gateway until the test ends.
func (b *bench) serve(port string, handler http.Handler) {
	b.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(b.gateway.String(), port))
	if err != nil {
		testenv.Missing(b, fmt.Sprintf("needs an engine on this machine: %v", err))
	}
	server := &http.Server{Handler: handler}
	go server.Serve(listener) // returns when the server is closed
	b.Cleanup(func() { server.Close() })
}

func TestShiftKeepsEverythingButTheSeconds(t *testing.T) {
	end := time.Unix(2_000_000_000, 0)
	r := &recording{files: map[string]string{
		"a": "{\"ts\":1000.073978,\"n\":1000}\n{\"ts\":1010.5}\n",
		"b": "{\"ts\":1005.0,\"x\":\"{\\\"ts\\\":1000\"}\n",
	}}
	r.shift(end)
	want := map[string]string{
		"a": "{\"ts\":1999999990.073978,\"n\":1000}\n{\"ts\":2000000000.5}\n",
		"b": "{\"ts\":1999999995.0,\"x\":\"{\\\"ts\\\":1000\"}\n",
	}
	for name := range want {
		if r.files[name] != want[name] {
			t.Errorf("%s: got %q, want %q", name, r.files[name], want[name])
		}
	}
	if r.lines() != 3 || !r.end.After(end) || r.start.Unix() != 1_999_999_990 {
		t.Errorf("%d lines from %v to %v", r.lines(), r.start, r.end)
	}
}
