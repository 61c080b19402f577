package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
)

// diagnosis is what the scenario reads of `doctor --json`.
type diagnosis struct {
	Verdict string
	Checks  []struct{ Check, State, Fact, Remedy string }
}

// line returns a check's state and fact.
func (d diagnosis) line(check string) string {
	for _, c := range d.Checks {
		if c.Check == check {
			return c.State + " " + c.Fact
		}
	}
	return "no such check"
}

func diagnose(t *testing.T, p program, wantCode int) (d diagnosis) {
	t.Helper()
	r := p.run(t, "doctor", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &d); err != nil || r.code != wantCode {
		t.Fatalf("doctor --json: exit code %d, want %d, %v\n%s%s", r.code, wantCode, err, r.stdout, r.stderr)
	}
	return d
}

// The doctor names who has a port, sees a stack that is well, reads the true
// receive buffers, changes nothing, and leaves the password out of its bundle.
func TestDoctor(t *testing.T) {
	p := stackTest(t)
	l, err := net.Listen("tcp4", "127.0.0.1:13000")
	if err != nil {
		t.Fatal(err)
	}
	d := diagnose(t, p, 1)
	l.Close()
	if want := fmt.Sprintf("problem 127.0.0.1:13000/tcp is taken by zeekdemo.test (PID %d)", os.Getpid()); d.line("ports") != want {
		t.Errorf("ports: %s, want %s", d.line("ports"), want)
	}
	if got := d.line("stack"); !strings.HasPrefix(got, "ok none is here yet") {
		t.Errorf("stack: %s", got)
	}

	const password = `Corner-h0rse&"battery`
	p.must(t, "up", "--pull", "never", "--grafana-password", password)
	before := containers(t)
	d = diagnose(t, p, 0)
	for check, want := range map[string]string{"engine": "ok Docker", "images": "ok all", "ports": "ok the stack's: 4789 6081/udp",
		"networks": "ok ", "stack": "ok all", "direct": "ok zeek, zeek-geneve", "tcpdump": "ok", "buffers": "zeek "} {
		if got := d.line(check); !strings.HasPrefix(got, want) && (check != "buffers" || !strings.Contains(got, want)) {
			t.Errorf("%s: %s, want %s", check, got, want)
		}
	}
	checkBundle(t, p, password)
	if after := containers(t); !mapsEqual(before, after) {
		t.Errorf("the doctor changed something:\n%v\n%v", before, after)
	}
	docker(t, "stop", "zeekdemo-zeek-1")
	if d := diagnose(t, p, 1); !strings.HasPrefix(d.line("stack"), "problem zeek: container is exited") || !strings.HasPrefix(d.line("direct"), "ok zeek-geneve") {
		t.Errorf("a stopped sensor: stack: %s; direct: %s", d.line("stack"), d.line("direct"))
	}
}

// checkBundle compares what is in a bundle with what is true, and looks for the
// password in all of it.
func checkBundle(t *testing.T, p program, password string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "bundle.tar.gz")
	p.must(t, "doctor", "--bundle", name)
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the bundle: %v, %v", info, err)
	}
	files := unpack(t, name)
	quoted, err := json.Marshal(password)
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range files {
		if bytes.Contains(data, []byte(password)) || bytes.Contains(data, quoted[1:len(quoted)-1]) {
			t.Errorf("%s has the password", file)
		}
	}
	for _, want := range []string{"compose.json", "containers/zeekdemo-grafana-1.json", "containers/zeekdemo-zeek-1.json", "counters/drops.json", "counters/zeek/snmp",
		"engine/info.json", "logs/loki.log", "logs/zeek.log", "machine/proc/meminfo", "version.json"} {
		if len(files["zeekdemo-bundle/"+want]) == 0 && want != "logs/zeek.log" { // Zeek prints nothing while all is well
			t.Errorf("the bundle has no %s", want)
		}
	}
	if !bytes.Contains(files["zeekdemo-bundle/containers/zeekdemo-grafana-1.json"], []byte("GF_SECURITY_ADMIN_PASSWORD=[removed]")) {
		t.Error("Grafana's environment does not say that there is a password")
	}
	var facts struct {
		Sensors struct {
			Value []struct {
				Service string
				Sockets struct {
					Value []struct {
						Buffer int `json:"buffer_bytes"`
					}
				}
			}
		}
	}
	if err := json.Unmarshal(files["zeekdemo-bundle/facts.json"], &facts); err != nil || len(facts.Sensors.Value) != 2 {
		t.Fatalf("facts.json: %v\n%s", err, files["zeekdemo-bundle/facts.json"])
	}
	for i, port := range []uint16{4789, 6081} {
		sensor := facts.Sensors.Value[i]
		var got []int
		for _, s := range sensor.Sockets.Value {
			got = append(got, s.Buffer)
		}
		if want := trueBuffers(t, sensor.Service, port); !slices.Equal(got, want) {
			t.Errorf("buffers of %s: %v, want %v", sensor.Service, got, want)
		}
	}
}

// trueBuffers asks the kernel.
func trueBuffers(t *testing.T, service string, port uint16) (sizes []int) {
	t.Helper()
	pid, err := strconv.Atoi(docker(t, "inspect", "--format", "{{.State.Pid}}", "zeekdemo-"+service+"-1"))
	if err != nil {
		t.Fatal(err)
	}
	watch, err := sockets.Open(sockets.OfProcess(pid), netip.AddrPortFrom(netip.IPv4Unspecified(), port), sockets.AsksForMuch)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	list, err := watch.Read(nil)
	if err != nil || !watch.Exact() {
		t.Fatalf("the kernel does not tell: %v", err)
	}
	for _, s := range list {
		sizes = append(sizes, s.Buffer)
	}
	return sizes
}

func unpack(t *testing.T, name string) map[string][]byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(zipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
