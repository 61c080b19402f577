//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// account is what these scenarios read of `replay --json`.
type account struct {
	Verdict string
	Error   string
	Via     string
	Report  struct {
		DatagramsSent uint64  `json:"datagrams_sent"`
		Elapsed       float64 `json:"elapsed_seconds"`
		Stalled       float64 `json:"stalled_seconds"`
	}
	Lossless struct {
		Governed bool
		Reason   string
		Feedback string
		Sockets  []struct {
			Place       string
			BufferBytes int `json:"buffer_bytes"`
			Dropped     uint64
		}
		Ledger struct {
			Taken    uint64
			Lost     uint64
			Verdict  string
			Counters []struct {
				Place, Name string
				Count       uint64
			}
		}
	}
}

// packetsInMix is the number of packets in the shared capture mix.pcap.
const packetsInMix = 60_604

func parseAccount(t *testing.T, document string) account {
	t.Helper()
	var a account
	if err := json.Unmarshal([]byte(document), &a); err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	return a
}

// complete fails unless everything was taken and no counter on the way says
// otherwise.
func (a account) complete(t *testing.T, what string, sent uint64) {
	t.Helper()
	l := a.Lossless
	t.Logf("%s: %d packets in %.2f s, %.2f s stalled, feedback %s, sockets %+v", what, a.Report.DatagramsSent, a.Report.Elapsed, a.Report.Stalled, l.Feedback, l.Sockets)
	if a.Verdict != "complete" || !l.Governed || a.Report.DatagramsSent != sent || l.Ledger.Taken != sent || l.Ledger.Lost != 0 {
		t.Errorf("%s: %+v", what, a)
	}
	for _, c := range l.Ledger.Counters {
		// What the host counts as a whole may be another's; docker-proxy's socket is
		// counted by itself.
		if strings.Contains(c.Name, "socket") || c.Place == "sensor" && (strings.Contains(c.Name, "Rcvbuf") || strings.Contains(c.Name, "dropped")) {
			t.Errorf("%s: %s of the %s grew by %d", what, c.Name, c.Place, c.Count)
		}
	}
}

// untuned starts a stack whose sensors have the receive buffers of a machine
// that nobody tuned: the kernel clamps them when they start.
func untuned(t *testing.T, p program) {
	t.Helper()
	const setting = "/proc/sys/net/core/rmem_max"
	was, err := os.ReadFile(setting)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(was)) != "212992" {
		testenv.NeedRoot(t)
		if err := os.WriteFile(setting, []byte("212992"), 0o644); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.WriteFile(setting, was, 0o644); err != nil {
				t.Error(err)
			}
		}()
	}
	p.must(t, "up", "--pull", "never")
}

// Nothing is lost: not over 127.0.0.1, where docker-proxy's small queue and the
// sensor's lie in series, nor straight to the container at full speed, nor
// without a privilege, on a machine where nothing is tuned. What the same run
// loses in open loop is counted and its place is named. A sensor that is killed
// meanwhile ends the run.
func TestLossless(t *testing.T) {
	mix := testenv.Shared(t, "pcaps", "mix.pcap")
	p := stackTest(t)
	untuned(t, p)
	replay := func(args ...string) []string {
		return append([]string{"replay", mix, "--json", "--pace", "max"}, args...)
	}
	published := replay("--via", "published")

	a := parseAccount(t, p.must(t, published...).stdout)
	a.complete(t, "over 127.0.0.1", packetsInMix)
	if a.Via != "published" {
		t.Errorf("via %s", a.Via)
	}
	parseAccount(t, p.must(t, replay("--direct", "--loop", "9", "--lossless", "require")...).stdout).complete(t, "direct, nine times", 9*packetsInMix)
	parseAccount(t, asNobody(t, p, replay("--direct")...)).complete(t, "as nobody", packetsInMix)

	docker(t, "update", "--cpus", "0.3", "zeekdemo-zeek-1") // a slow sensor
	parseAccount(t, p.must(t, replay("--direct")...).stdout).complete(t, "to a slow sensor", packetsInMix)
	r := p.run(t, replay("--direct", "--lossless", "off")...)
	a = parseAccount(t, r.stdout)
	if l := a.Lossless; r.code != 3 || a.Verdict != "incomplete" || l.Governed || l.Ledger.Lost == 0 || l.Ledger.Lost+l.Ledger.Taken != packetsInMix ||
		!strings.Contains(r.stderr, "dropped at socket 0.0.0.0:4789 of the sensor") {
		t.Errorf("open loop to a slow sensor: exit code %d, %+v\n%s", r.code, a, r.stderr)
	}
	killedMeanwhile(t, p, replay("--direct", "--loop", "100"))
}

// asNobody runs a command without any privilege but that of the engine's socket.
func asNobody(t *testing.T, p program, args ...string) string {
	t.Helper()
	testenv.NeedRoot(t)
	dir, err := os.MkdirTemp("", "zeekdemo-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, err := os.ReadFile(p.path)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "zeekdemo"), data, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	socket, statErr := os.Stat("/var/run/docker.sock")
	if err != nil || statErr != nil {
		t.Fatal(err, statErr)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "zeekdemo"), args...)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{socket.Sys().(*syscall.Stat_t).Gid}}}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("as nobody: %v\n%s%s", err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// killedMeanwhile kills the sensor while a replay is under way.
func killedMeanwhile(t *testing.T, p program, args []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path, args...)
	var stdout, stderr bytes.Buffer
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = &stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 1) // it says where it sends to before it does
	if _, err := errs.Read(first); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Second, func() { _ = exec.Command("docker", "kill", "zeekdemo-zeek-1").Run() })
	defer kill.Stop()
	if _, err := io.Copy(&stderr, errs); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	a := parseAccount(t, stdout.String())
	if code := cmd.ProcessState.ExitCode(); code != 1 || a.Verdict != "failed" || !strings.Contains(a.Error, "has gone") || a.Lossless.Ledger.Taken == 0 ||
		a.Lossless.Ledger.Taken > a.Report.DatagramsSent || !strings.Contains(stderr.String(), "packets had been taken") {
		t.Errorf("killed: exit code %d, %+v\n%s", code, a, stderr.String())
	}
}
