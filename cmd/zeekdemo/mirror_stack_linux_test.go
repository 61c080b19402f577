package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// mirroring is a mirror into the stack that runs.
type mirroring struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout bytes.Buffer
	lines  chan string // what it says
}

func startMirror(t *testing.T, p program, args ...string) *mirroring {
	t.Helper()
	m := &mirroring{t: t, cmd: exec.Command(p.path, append([]string{"mirror", "--json"}, args...)...), lines: make(chan string, 1000)}
	m.cmd.Stdout = &m.stdout
	stderr, err := m.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.cmd.Process.Kill() })
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			m.lines <- lines.Text()
		}
		close(m.lines)
	}()
	m.says("Run ")
	return m
}

// says waits until it says something.
func (m *mirroring) says(want string) string {
	m.t.Helper()
	var all []string
	for limit := time.After(90 * time.Second); ; {
		select {
		case line, ok := <-m.lines:
			if all = append(all, line); strings.Contains(line, want) {
				return line
			}
			if !ok {
				m.t.Fatalf("%v ended without %q: %s", m.cmd.Args, want, strings.Join(all, "\n"))
			}
		case <-limit:
			m.t.Fatalf("%v does not say %q: %s", m.cmd.Args, want, strings.Join(all, "\n"))
		}
	}
}

// stackMirror is what these scenarios read of `mirror --json`.
type stackMirror struct {
	How, Via, Verdict, Error string
	Report                   struct {
		Sent uint64 `json:"datagrams_sent"`
	}
	Lossless struct {
		Ledger struct{ Sent, Taken, Lost uint64 }
	}
}

// end interrupts it, and returns its exit code and report.
func (m *mirroring) end() (code int, doc stackMirror) {
	m.t.Helper()
	_ = m.cmd.Process.Signal(os.Interrupt)
	for range m.lines { // until it has said everything
	}
	_ = m.cmd.Wait()
	if err := json.Unmarshal(m.stdout.Bytes(), &doc); err != nil {
		m.t.Fatalf("%v: %v: %s", m.cmd.Args, err, m.stdout.String())
	}
	return m.cmd.ProcessState.ExitCode(), doc
}

// chatter makes a pair of devices of this machine; the first result is the name of
// this end. Begin sends a ping over it a hundred times a second, until what it
// returns is called, which returns how many frames there were.
func chatter(t *testing.T) (device string, begin func() (stop func() uint64)) {
	t.Helper()
	testenv.NeedTool(t, "ping")
	ns := testenv.Namespace(t)
	device = fmt.Sprintf("zm%d", os.Getpid())
	subnet := fmt.Sprintf("10.%d.%d", 230+os.Getpid()%20, os.Getpid()/20%250)
	testenv.IP(t, "link add "+device+" type veth peer name eth0 netns "+ns)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", device).Run() })
	testenv.IP(t, "addr add "+subnet+".1/24 dev "+device)
	testenv.IP(t, "link set "+device+" up")
	testenv.IP(t, "-n "+ns+" addr add "+subnet+".2/24 dev eth0")
	testenv.IP(t, "-n "+ns+" link set eth0 up")
	over, ended := make(chan struct{}), make(chan struct{})
	var count atomic.Uint64
	send := func() {
		defer close(ended)
		for {
			select {
			case <-over:
				return
			default:
			}
			if exec.Command("ping", "-c", "10", "-i", "0.01", "-W", "1", subnet+".2").Run() == nil {
				count.Add(20) // there and back
			}
		}
	}
	return device, func() func() uint64 {
		go send()
		return func() uint64 { close(over); <-ended; return count.Load() }
	}
}

// move recreates the sensor's container at another address: others take its own
// meanwhile.
func move(t *testing.T, p program) {
	t.Helper()
	address := func(container string) string {
		return docker(t, "inspect", "-f", `{{(index .NetworkSettings.Networks "zeekdemo_monitoring").IPAddress}}`, container)
	}
	old, image := address("zeekdemo-zeek-1"), docker(t, "inspect", "-f", "{{.Config.Image}}", "zeekdemo-zeek-1")
	docker(t, "rm", "-f", "zeekdemo-zeek-1")
	var others []string
	for taken := ""; taken != old && len(others) < 8; taken = address(others[len(others)-1]) {
		others = append(others, docker(t, "run", "-d", "--network", "zeekdemo_monitoring", "--entrypoint", "sleep", image, "600"))
	}
	defer docker(t, append([]string{"rm", "-f"}, others...)...)
	p.must(t, "up", "--pull", "never")
	if address("zeekdemo-zeek-1") == old {
		t.Error("the sensor did not move")
	}
}

// The mirror goes where the sensor goes; the forwarder's frames wait for it.
func TestAMirrorFollowsTheSensor(t *testing.T) {
	p := stackTest(t)
	p.must(t, "up", "--pull", "never")
	for _, c := range []struct{ name, args, says string }{
		{"forwarder", "--how forwarder", "Following the sensor to"},
		{"sidecar", "--how forwarder --via sidecar", "Run "},
		{"kernel", "--how kernel", "Following the sensor to"},
	} {
		t.Run(c.name, func(t *testing.T) {
			device, begin := chatter(t)
			m := startMirror(t, p, append(strings.Fields(c.args), device)...)
			stop := begin()
			move(t, p)
			m.says(c.says)
			m.says("packets") // a second later
			frames := stop()
			code, doc := m.end()
			l := doc.Lossless.Ledger
			if code != 0 && code != 3 || doc.Report.Sent == 0 || l.Taken == 0 {
				t.Fatalf("exit code %d: %+v", code, doc)
			}
			// What was under way to the old container is lost, and said to be. The
			// kernel does not wait.
			if code == 0 && l.Lost > 0 || c.name == "forwarder" && (l.Lost > 50 || doc.Report.Sent < frames) {
				t.Errorf("exit code %d, %d frames: %+v", code, frames, doc)
			}
		})
	}
}

// A container's traffic is found by its name, again and again.
func TestAContainerIsMirroredByItsName(t *testing.T) {
	p := stackTest(t)
	p.must(t, "up", "--pull", "never")
	m := startMirror(t, p, "--how", "forwarder", "--container", "zeekdemo-grafana-1")
	p.must(t, "replay", "--limit", "10") // which leaves an annotation in Grafana
	m.says("packets")
	docker(t, "restart", "-t", "0", "zeekdemo-grafana-1") // which gives it another interface
	m.says("The container's interface has gone")
	m.says("Run ")
	p.must(t, "up", "--pull", "never") // which asks Grafana how it is
	m.says("packets")
	code, doc := m.end()
	if code != 0 || doc.Report.Sent == 0 || doc.Verdict != "complete" || doc.Lossless.Ledger.Taken < doc.Report.Sent {
		t.Errorf("exit code %d: %+v", code, doc)
	}
	p.fails(t, []string{"mirror container nobody: there is no container of this name", "docker ps"}, "mirror", "--container", "nobody")
}
