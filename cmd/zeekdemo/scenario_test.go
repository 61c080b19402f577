// The scenarios: the real program against a real engine. Each is one intent,
// checked on state with bounded waits.
//
// They own the stack's ports, so they run only where that is wanted: with
// ZEEKDEMO_E2E=1, or with ZEEKDEMO_CI=1, where nothing may be skipped. They take
// whatever images the variables ZEEKDEMO_IMAGE_* name, and never pull.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// logWait bounds how long a replay's connections may take to arrive in Loki: 30
// seconds with the stand-in for Zeek. A real Zeek waits a minute before it
// calls a UDP or ICMP flow ended, so with one it is two minutes more.
func logWait(t *testing.T) time.Duration {
	t.Helper()
	image := docker(t, "inspect", "--format", "{{.Image}}", "zeekdemo-zeek-1")
	if docker(t, "image", "inspect", "--format", `{{index .Config.Labels "zeekdemo.standin"}}`, image) == "true" {
		return 30 * time.Second
	}
	return 150 * time.Second
}

// program is the built command.
type program struct {
	path string
}

// build makes the program as a release does.
func build(t *testing.T) program {
	t.Helper()
	p := program{filepath.Join(t.TempDir(), "zeekdemo")}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", p.path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return p
}

// result is what a command left behind.
type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

func (p program) run(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("zeekdemo %s: %v", strings.Join(args, " "), err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(start)}
}

// must runs a command that has to end with 0.
func (p program) must(t *testing.T, args ...string) result {
	t.Helper()
	r := p.run(t, args...)
	if r.code != 0 {
		t.Fatalf("zeekdemo %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r
}

// fails runs a command that has to end with 1 and say the given things.
func (p program) fails(t *testing.T, want []string, args ...string) {
	t.Helper()
	r := p.run(t, args...)
	if r.code != 1 {
		t.Fatalf("zeekdemo %s: exit code %d, want 1\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	for _, w := range want {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("zeekdemo %s: no %q in\n%s", strings.Join(args, " "), w, r.stderr)
		}
	}
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// eventually asks until the answer is nil, or fails with the last one.
func eventually(t *testing.T, limit time.Duration, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// stackTest makes sure that a stack can be started and nothing stays.
func stackTest(t *testing.T) program {
	t.Helper()
	if os.Getenv("ZEEKDEMO_E2E") != "1" && !testenv.CI() {
		t.Skip("SKIPPED: owns the stack's ports; ZEEKDEMO_E2E=1 runs it")
	}
	testenv.NeedTool(t, "docker")
	if out, err := exec.Command("docker", "info").CombinedOutput(); err != nil {
		testenv.Missing(t, "no engine: "+string(out))
	}
	if list := docker(t, "ps", "-aq", "--filter", "label=com.docker.compose.project=zeekdemo"); list != "" {
		t.Fatal("a stack is here already; the scenarios would change it (zeekdemo down)")
	}
	p := build(t)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := exec.Command(p.path, "logs", "--tail", "20").CombinedOutput()
			t.Logf("the services' last lines:\n%s", out)
		}
		if out, err := exec.Command(p.path, "down", "--volumes").CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		checkNothingLeft(t)
	})
	return p
}

// checkNothingLeft looks for everything that carries the project's label or
// name.
func checkNothingLeft(t *testing.T) {
	t.Helper()
	label := "label=com.docker.compose.project=zeekdemo"
	for what, list := range map[string]string{
		"containers": docker(t, "ps", "-aq", "--filter", label),
		"networks":   docker(t, "network", "ls", "-q", "--filter", label),
		"volumes":    docker(t, "volume", "ls", "-q", "--filter", label),
		"named":      docker(t, "volume", "ls", "-q", "--filter", "name=zeekdemo_"),
	} {
		if list != "" {
			t.Errorf("%s are left: %s", what, list)
		}
	}
	if _, err := net.InterfaceByName("br-zeekmon0"); err == nil {
		t.Error("the bridge br-zeekmon0 is left")
	}
}

// containers maps each service to its container's id and start time.
func containers(t *testing.T) map[string]string {
	t.Helper()
	ids := strings.Fields(docker(t, "ps", "-aq", "--filter", "label=com.docker.compose.project=zeekdemo"))
	m := map[string]string{}
	for _, line := range strings.Split(docker(t, append([]string{"inspect", "--format",
		`{{index .Config.Labels "com.docker.compose.service"}} {{.Id}} {{.State.StartedAt}}`}, ids...)...), "\n") {
		name, state, _ := strings.Cut(line, " ")
		m[name] = state
	}
	return m
}

func TestTheProgramIsStaticAndSmall(t *testing.T) {
	p := build(t)
	info, err := os.Stat(p.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= 60_000_000 {
		t.Errorf("the program has %d bytes, want under 60 MB", info.Size())
	}
	if out, err := exec.Command("ldd", p.path).CombinedOutput(); err == nil {
		t.Errorf("the program is not static:\n%s", out)
	}
	fastest := time.Hour // of several: a busy machine is not the program's fault
	for range 20 {
		fastest = min(fastest, p.must(t, "--help").took)
	}
	if fastest >= 50*time.Millisecond {
		t.Errorf("--help takes %s at best, want under 50ms", fastest)
	}
}

// run is what the scenarios read of `replay --json`.
type run struct {
	Run           uint32
	Encapsulation string
	Via           string
	GrafanaURL    string `json:"grafana_url"`
	Verdict       string
	Report        struct {
		FramesRead    int `json:"frames_read"`
		DatagramsSent int `json:"datagrams_sent"`
	}
}

// First light: a person starts the stack, replays the sample every way there
// is, and finds each of its connections in Loki under the run's VNI.
func TestFirstLight(t *testing.T) {
	p := stackTest(t)
	welcome := p.must(t, "up", "--pull", "never")
	t.Logf("up took %s", welcome.took)
	for _, want := range []string{"http://127.0.0.1:13000", "http://127.0.0.1:13100", "http://127.0.0.1:19090", "127.0.0.1:4789/udp", "127.0.0.1:6081/udp"} {
		if !strings.Contains(welcome.stdout, want) {
			t.Errorf("up does not name %s:\n%s", want, welcome.stdout)
		}
	}
	p.must(t, "status")
	var runs []run
	for _, encapsulation := range []string{"vxlan", "geneve"} {
		for _, direct := range []bool{false, true} {
			runs = append(runs, replaySample(t, p, encapsulation, direct))
		}
	}
	for _, r := range runs {
		eventually(t, logWait(t), fmt.Sprintf("run %d by %s %s in Loki", r.Run, r.Encapsulation, r.Via), func() error { return sampleArrived(t, r) })
	}
	eventually(t, 30*time.Second, "both sensors up in Prometheus", sensorsUp)
	line := p.must(t, "logs", "zeek", "--log", "conn", "--tail", "1").stdout
	if !json.Valid([]byte(line)) {
		t.Errorf("logs zeek --log conn --tail 1 shows %q", line)
	}
	checkGrafana(t, p, runs[0])
	before := containers(t)
	again := p.must(t, "up", "--pull", "never")
	t.Logf("a second up took %s", again.took)
	if after := containers(t); !mapsEqual(before, after) {
		t.Errorf("a second up changed something:\n%v\n%v", before, after)
	}
	p.must(t, "down", "--volumes")
	checkNothingLeft(t)
	p.must(t, "down", "--volumes")
	p.fails(t, []string{"no stack is here"}, "status")
}

func mapsEqual(a, b map[string]string) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

func replaySample(t *testing.T, p program, encapsulation string, direct bool) run {
	t.Helper()
	args := []string{"replay", "--json", "--speed", "4x", "--encap", encapsulation}
	if direct {
		args = append(args, "--direct")
	} else {
		args = append(args, "--via", "published")
	}
	var r run
	if err := json.Unmarshal([]byte(p.must(t, args...).stdout), &r); err != nil {
		t.Fatal(err)
	}
	if want := map[bool]string{false: "published", true: "direct"}[direct]; r.Via != want || r.Verdict != "complete" || r.Run == 0 {
		t.Fatalf("replay %v: %+v", args, r)
	}
	return r
}

// sampleArrived compares the conn.log lines of a run in Loki with the sample's
// own list of connections, packet counts included.
func sampleArrived(t *testing.T, r run) error {
	t.Helper()
	sensor := map[string]string{"vxlan": "zeek", "geneve": "zeek-geneve"}[r.Encapsulation]
	lines, err := lokiLines(fmt.Sprintf(`{service_name="zeek",sensor=%q,log="conn"} |~ "\"id\\.ctx\\.%s_vni\":%d[,}]"`, sensor, r.Encapsulation, r.Run))
	if err != nil {
		return err
	}
	var got []string
	for _, line := range lines {
		var c struct {
			OrigH    netip.Addr `json:"id.orig_h"`
			OrigP    uint16     `json:"id.orig_p"`
			RespH    netip.Addr `json:"id.resp_h"`
			RespP    uint16     `json:"id.resp_p"`
			Proto    string     `json:"proto"`
			OrigPkts int        `json:"orig_pkts"`
			RespPkts int        `json:"resp_pkts"`
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
		got = append(got, samples.Connection{Proto: c.Proto, OrigH: c.OrigH, OrigP: c.OrigP, RespH: c.RespH, RespP: c.RespP, OrigPkts: c.OrigPkts, RespPkts: c.RespPkts}.String())
	}
	var want []string
	for _, c := range samples.Connections() {
		want = append(want, c.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%d connections, want %d: %s", len(got), len(want), firstDifference(got, want))
	}
	return nil
}

func firstDifference(got, want []string) string {
	for _, w := range want {
		if !slices.Contains(got, w) {
			return "missing " + w
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			return "unexpected " + g
		}
	}
	return "some are doubled"
}

func fetch(target string, document any) error {
	resp, err := http.Get(target) //nolint:gosec // the stack's own address
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return json.Unmarshal(body, document)
}

func lokiLines(query string) ([]string, error) {
	var answer struct {
		Data struct {
			Result []struct{ Values [][2]string }
		}
	}
	values := url.Values{"query": {query}, "limit": {"5000"}, "since": {"2h"}}
	if err := fetch("http://127.0.0.1:13100/loki/api/v1/query_range?"+values.Encode(), &answer); err != nil {
		return nil, err
	}
	var lines []string
	for _, stream := range answer.Data.Result {
		for _, v := range stream.Values {
			lines = append(lines, v[1])
		}
	}
	return lines, nil
}

func sensorsUp() error {
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := fetch("http://127.0.0.1:19090/api/v1/query?"+url.Values{"query": {`up{job="zeek"} == 1`}}.Encode(), &answer); err != nil {
		return err
	}
	if n := len(answer.Data.Result); n != 2 {
		return fmt.Errorf("%d sensors are up, want 2", n)
	}
	return nil
}

// checkGrafana looks whether the link of a run leads to a dashboard that is
// there, for the user whom `up` named.
func checkGrafana(t *testing.T, p program, r run) {
	t.Helper()
	if got := strings.TrimSpace(p.must(t, "open", "grafana").stdout); got != "http://127.0.0.1:13000" {
		t.Errorf("open grafana prints %q", got)
	}
	m := regexp.MustCompile(`^http://127\.0\.0\.1:13000/d/([a-z-]+)\?.*var-run=(\d+)`).FindStringSubmatch(r.GrafanaURL)
	if m == nil || m[2] != fmt.Sprint(r.Run) {
		t.Fatalf("the link of run %d is %q", r.Run, r.GrafanaURL)
	}
	var dashboard struct {
		Dashboard struct{ UID string }
	}
	if err := fetch("http://zeek:zeek@127.0.0.1:13000/api/dashboards/uid/"+m[1], &dashboard); err != nil || dashboard.Dashboard.UID != m[1] {
		t.Errorf("dashboard %s: %v", m[1], err)
	}
}

// A start that goes wrong says why; the next up completes what is there.
func TestUpCompletesWhatWentWrong(t *testing.T) {
	p := stackTest(t)
	p.fails(t, []string{"zeekdemo.invalid/none:1", "--image"}, "up", "--pull", "never", "--image", "prometheus=zeekdemo.invalid/none:1")

	l, err := net.Listen("tcp4", "127.0.0.1:13000")
	if err != nil {
		t.Fatal(err)
	}
	p.fails(t, []string{"127.0.0.1:13000/tcp", "taken by", fmt.Sprintf("PID %d", os.Getpid())}, "up", "--pull", "never")
	l.Close()

	interruptUp(t, p)
	p.must(t, "up", "--pull", "never")

	docker(t, "rm", "-f", "zeekdemo-prometheus-1")
	if r := p.run(t, "status"); r.code != 1 || !regexp.MustCompile(`prometheus +missing`).MatchString(r.stdout) {
		t.Errorf("status of a stack without Prometheus: exit code %d\n%s", r.code, r.stdout)
	}
	p.must(t, "up", "--pull", "never")

	before := containers(t)
	p.must(t, "up", "--pull", "never", "--grafana-password", "another")
	for name, state := range containers(t) {
		if changed := state != before[name]; changed != (name == "grafana") {
			t.Errorf("another password for Grafana: %s changed: %t", name, changed)
		}
	}
	var answer any
	if err := fetch("http://zeek:another@127.0.0.1:13000/api/search", &answer); err != nil {
		t.Errorf("the new password: %v", err)
	}
	docker(t, "stop", "zeekdemo-zeek-1")
	p.fails(t, []string{"zeek", "exited", "zeekdemo up"}, "replay")
}

// interruptUp presses Ctrl-C as soon as the first container was started.
func interruptUp(t *testing.T, p program) {
	t.Helper()
	cmd := exec.Command(p.path, "up", "--pull", "never")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	var said strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if strings.HasSuffix(lines.Text(), ": Started") {
			_ = cmd.Process.Signal(os.Interrupt)
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(said.String(), "interrupted") {
		t.Errorf("up, interrupted: exit code %d, want 130\n%s", code, said.String())
	}
}
