//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// dropsReport is what these scenarios read of `drops --json`.
type dropsReport struct {
	Verdict, Sentence string
	Lost              uint64
	LostLines         uint64 `json:"lost_lines"`
	Missed            *struct{ Connections, Bytes uint64 }
	Culprit           *struct {
		Hop, Name, Reason, Cure string
		Lost, Held              uint64
	}
	Hops []struct {
		Hop, Sensor, Verdict string
		In, Lost             *uint64
		Notes                []string
		Unknown              []struct{ What, Why string }
	}
}

func parseDrops(t *testing.T, document []byte) dropsReport {
	t.Helper()
	var r dropsReport
	if err := json.Unmarshal(document, &r); err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	return r
}

// dropsDuring runs drops while do goes on, and until what it counted has come.
func dropsDuring(t *testing.T, p program, interval string, do func()) (dropsReport, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path, "drops", "--json", "--interval", interval)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(stderr)
	for said.Scan() && !strings.HasPrefix(said.Text(), "Looking") { // then it has looked once
	}
	do()
	for said.Scan() {
	}
	_ = cmd.Wait()
	if stdout.Len() == 0 {
		t.Fatalf("drops: %s", said.Text())
	}
	return parseDrops(t, stdout.Bytes()), cmd.ProcessState.ExitCode()
}

// hop returns a sensor's hop; it fails where there is none.
func (r dropsReport) hop(t *testing.T, hop, sensor string) (in, lost uint64) {
	t.Helper()
	for _, h := range r.Hops {
		if h.Hop == hop && h.Sensor == sensor {
			if h.In == nil || h.Lost == nil {
				t.Fatalf("%s of %s is not known: %v", hop, sensor, h.Unknown)
			}
			return *h.In, *h.Lost
		}
	}
	t.Fatalf("no hop %s of %s", hop, sensor)
	return 0, 0
}

// dropsWatched follows `drops --watch --json`.
type dropsWatched struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func watchDrops(t *testing.T, p program) dropsWatched {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path, "drops", "--watch", "--json", "--interval", "500ms")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	w := dropsWatched{cmd, bufio.NewScanner(stdout)}
	w.lines.Buffer(nil, 1<<20)
	return w
}

// until reads reports until one is as wanted.
func (w dropsWatched) until(t *testing.T, what string, limit time.Duration, wanted func(dropsReport) bool) dropsReport {
	t.Helper()
	var last []byte
	for deadline := time.Now().Add(limit); time.Now().Before(deadline) && w.lines.Scan(); {
		last = w.lines.Bytes()
		if r := parseDrops(t, last); wanted(r) {
			return r
		}
	}
	t.Fatalf("%s: not within %s; the last report: %s", what, limit, last)
	return dropsReport{}
}

// end interrupts it.
func (w dropsWatched) end(t *testing.T) {
	t.Helper()
	_ = w.cmd.Process.Signal(os.Interrupt)
	for w.lines.Scan() {
	}
	_ = w.cmd.Wait()
	if code := w.cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("drops --watch, interrupted: exit code %d, want 130", code)
	}
}

// Where packets die: the way over 127.0.0.1 in open loop loses them in
// docker-proxy's queue, a slow sensor in its own; governed, nothing is lost. A
// relay that swaps packets loses none, and that is told apart. So are lines that
// Loki refuses, and a sensor that is restarted meanwhile.
func TestWherePacketsDie(t *testing.T) {
	mix := testenv.Shared(t, "pcaps", "mix.pcap")
	p := stackTest(t)
	p.fails(t, []string{"no stack is here"}, "drops")
	untuned(t, p)
	replay := func(args ...string) []string {
		return append([]string{"replay", mix, "--json", "--pace", "max"}, args...)
	}

	reordered(t, p)

	var a account
	r, code := dropsDuring(t, p, "5s", func() { a = parseAccount(t, p.run(t, replay("--via", "published", "--lossless", "off")...).stdout) })
	if in, _ := r.hop(t, "host udp", ""); code != 3 || r.Culprit == nil || r.Culprit.Hop != "docker-proxy" || r.Culprit.Cure != "zeekdemo replay --direct" || in < packetsInMix {
		t.Errorf("over 127.0.0.1: exit code %d, %s\n%+v", code, r.Sentence, r)
	}
	for _, s := range a.Lossless.Sockets {
		if s.Place == "host" && (r.Culprit == nil || r.Culprit.Lost != s.Dropped) {
			t.Errorf("docker-proxy's socket dropped %d, drops says %+v", s.Dropped, r.Culprit)
		}
	}

	r, code = dropsDuring(t, p, "5s", func() { p.must(t, replay("--direct")...) })
	if in, lost := r.hop(t, "socket", "zeek"); code != 0 || r.Lost != 0 || in != packetsInMix || lost != 0 {
		t.Errorf("direct: exit code %d, %s; %d came, %d lost", code, r.Sentence, in, lost)
	}
	if r.Verdict == "reordered" { // the capture's own gaps are nobody's fault
		t.Errorf("direct: %s: %s", r.Verdict, r.Sentence)
	}

	docker(t, "update", "--cpus", "0.2", "zeekdemo-zeek-1")
	r, code = dropsDuring(t, p, "8s", func() { a = parseAccount(t, p.run(t, replay("--direct", "--lossless", "off")...).stdout) })
	if code != 3 || r.Culprit == nil || r.Culprit.Hop != "socket" || r.Culprit.Lost != a.Lossless.Ledger.Lost || r.Culprit.Cure != "zeekdemo tune-host --restart-sensors" {
		t.Errorf("a slow sensor: exit code %d, %s, the replay lost %d\n%+v", code, r.Sentence, a.Lossless.Ledger.Lost, r.Culprit)
	}
	docker(t, "update", "--cpus", "0", "zeekdemo-zeek-1")

	watchedOnATerminal(t, p)
	refusedByLoki(t, p)
	restartedMeanwhile(t, p)
	dropsWithoutRoot(t, p)
}

// reordered replays by a relay that turns every few packets around.
func reordered(t *testing.T, p program) {
	t.Helper()
	capture := testenv.Shared(t, "pcaps", "bro.org.pcap")
	w := watchDrops(t, p)
	defer w.end(t)
	address := docker(t, "inspect", "--format", "{{.NetworkSettings.Networks.zeekdemo_monitoring.IPAddress}}", "zeekdemo-zeek-1")
	w.until(t, "the first interval", logWait(t), func(dropsReport) bool { return true }) // of connections that began before it nothing is known
	p.must(t, "replay", capture, "--to", swapping(t, net.JoinHostPort(address, "4789")), "--tx", "udp", "--pps", "5000")
	r := w.until(t, "the verdict on packets out of order", logWait(t), func(r dropsReport) bool { return r.Missed != nil && r.Missed.Connections > 0 })
	if r.Verdict != "reordered" || r.Lost != 0 || r.Missed.Bytes == 0 || !strings.Contains(r.Sentence, "in another order") {
		t.Errorf("%s: %s", r.Verdict, r.Sentence)
	}
}

// swapping is the address of a relay that passes eight packets on in reverse
// order, again and again.
func swapping(t *testing.T, to string) string {
	t.Helper()
	in := testenv.ListenUDP(t, "127.0.0.1:0", 8<<20)
	out, err := net.Dial("udp4", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	go func() {
		var held [][]byte
		for {
			buf := make([]byte, 1<<16)
			_ = in.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			n, err := in.Read(buf)
			if err == nil {
				held = append(held, buf[:n])
			}
			if len(held) == 8 || err != nil {
				for i := len(held) - 1; i >= 0; i-- {
					_, _ = out.Write(held[i])
				}
				held = nil
			}
			if err != nil && !os.IsTimeout(err) {
				return
			}
		}
	}()
	return in.LocalAddr().String()
}

// watchedOnATerminal looks at the live screen, makes it smaller, and quits.
func watchedOnATerminal(t *testing.T, p program) {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	number, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0)
	}
	resize := func(columns, rows uint16) error {
		return unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	}
	screen, openErr := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err = errors.Join(err, openErr, resize(80, 24)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), p.path, "drops", "--watch", "--interval", "300ms", "--all")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = screen, screen, screen
	cmd.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	if err = errors.Join(err, screen.Close()); err != nil { // so that reading ends with the command
		t.Fatal(err)
	}
	stuck := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	var seen strings.Builder
	shows := func(what string) {
		t.Helper()
		buf := make([]byte, 1<<16)
		for !strings.Contains(seen.String(), what) {
			n, err := terminal.Read(buf)
			seen.Write(buf[:n])
			if err != nil {
				t.Fatalf("no %q on the screen (%v):\n%q", what, err, seen.String())
			}
		}
		seen.Reset()
	}
	shows("LATELY")
	if err := resize(60, 12); err != nil {
		t.Fatal(err)
	}
	shows("the window is too small for")
	if _, err := terminal.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	shows("LOST/S") // of the whole time, on the ordinary screen
	if err := cmd.Wait(); err != nil {
		t.Errorf("drops --watch, quit: %v", err)
	}
}

// refusedByLoki lets Loki refuse a line for good, for it comes with more than
// Loki stores beside one.
func refusedByLoki(t *testing.T, p program) {
	t.Helper()
	w := watchDrops(t, p)
	defer w.end(t)
	w.until(t, "a first report", time.Minute, func(dropsReport) bool { return true })
	cmd := exec.Command("docker", "exec", "-i", "zeekdemo-zeek-1", "sh", "-c", "cat >> /logs/zeek/conn.log")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"ts":%d.5,"uid":"C1","id.ctx.vxlan_vni":%s}`+"\n", time.Now().Unix(), strings.Repeat("7", 70_000)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r := w.until(t, "a line that Loki refuses", time.Minute, func(r dropsReport) bool { return r.LostLines > 0 })
	if r.LostLines != 1 || r.Lost != 0 || r.Culprit.Hop != "loki" && r.Culprit.Hop != "collector" {
		t.Errorf("%s\n%+v", r.Sentence, r.Culprit)
	}
}

// A collector whose disk is full cannot store how far it has read; it reads and
// delivers all the same, and nothing is lost.
func TestTheCollectorsDiskIsFull(t *testing.T) {
	p := stackTest(t)
	testenv.NeedRoot(t)
	const volume = "zeekdemo_collector-state"
	docker(t, "volume", "create", "--label", "com.docker.compose.project=zeekdemo", "--label", "com.docker.compose.volume=collector-state",
		"--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=128k", volume)
	t.Cleanup(func() { _ = exec.Command("docker", "volume", "rm", "-f", volume).Run() })
	p.must(t, "up", "--pull", "never")
	mountpoint := docker(t, "volume", "inspect", "--format", "{{.Mountpoint}}", volume)
	if err := os.WriteFile(filepath.Join(mountpoint, "filler"), make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the volume has no bound: the test does not test")
	}
	const lines = 6000
	docker(t, "stop", "-t", "3", "zeekdemo-loki-1")
	cmd := exec.Command("docker", "exec", "-i", "zeekdemo-zeek-1", "sh", "-c", "cat >> /logs/zeek/weird.log")
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, `{"ts":%d.%06d,"uid":"full","name":"%s"}`+"\n", time.Now().Unix(), i, strings.Repeat(fmt.Sprintf("%x", i*7919), 100))
	}
	cmd.Stdin = strings.NewReader(text.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w := watchDrops(t, p)
	defer w.end(t)
	r := w.until(t, "that lines wait", time.Minute, func(r dropsReport) bool { return r.Verdict == "held up" })
	if r.LostLines != 0 || r.Culprit == nil || r.Culprit.Hop != "collector" {
		t.Errorf("%s: %s\n%+v", r.Verdict, r.Sentence, r.Culprit)
	}
	docker(t, "start", "zeekdemo-loki-1")
	eventually(t, time.Minute, "all lines in Loki", func() error {
		var answer struct {
			Data struct{ Result []series }
		}
		query := url.Values{"query": {`sum(count_over_time({sensor="zeek",log="weird"} |= "\"uid\":\"full\"" [1h]))`}}
		if err := fetch("http://127.0.0.1:13100/loki/api/v1/query?"+query.Encode(), &answer); err != nil {
			return err
		}
		if len(answer.Data.Result) != 1 || fmt.Sprint(answer.Data.Result[0].Value[1]) != strconv.Itoa(lines) {
			return fmt.Errorf("%+v, want %d", answer.Data.Result, lines)
		}
		return nil
	})
}

// restartedMeanwhile restarts the sensor while it is watched.
func restartedMeanwhile(t *testing.T, p program) {
	t.Helper()
	w := watchDrops(t, p)
	defer w.end(t)
	w.until(t, "a first report", time.Minute, func(dropsReport) bool { return true })
	docker(t, "restart", "zeekdemo-zeek-1")
	r := w.until(t, "that the sensor began anew", time.Minute, func(r dropsReport) bool {
		return strings.Contains(r.Sentence, "zeek began anew") || r.Verdict == "not known"
	})
	if strings.Contains(r.Sentence, "was lost") && r.Verdict == "clean" {
		t.Errorf("%s: %s", r.Verdict, r.Sentence)
	}
	w.until(t, "a sensor that is known again", time.Minute, func(r dropsReport) bool { return r.Verdict == "idle" || r.Verdict == "clean" })
}

// dropsWithoutRoot looks as anybody may, and by a helper container.
func dropsWithoutRoot(t *testing.T, p program) {
	t.Helper()
	for _, tt := range []struct {
		via   string
		known bool
	}{{"direct", false}, {"helper", true}} {
		r := parseDrops(t, []byte(asNobody(t, p, "drops", "--json", "--interval", "300ms", "--reach", tt.via)))
		for _, h := range r.Hops {
			if h.Hop == "veth" && (h.In != nil) != tt.known {
				t.Errorf("without root, --via %s: %+v", tt.via, h)
			}
			if (h.Hop == "socket" || h.Hop == "udp" || h.Hop == "softnet" || h.Hop == "docker-proxy") && h.Lost == nil {
				t.Errorf("without root, --via %s: %+v", tt.via, h)
			}
		}
	}
}
