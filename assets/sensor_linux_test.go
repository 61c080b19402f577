package assets_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// fakeZeek tells in a file what it does: that it starts, is asked to end, and has
// ended. Loggers, and a Zeek by itself, empty conn.log as Zeek does. FAKE_STUBBORN names
// a node that does not end, FAKE_SICK one that ends at once.
const fakeZeek = `#!/bin/sh
me=${CLUSTER_NODE:-alone}
tell() { echo "$1 $me" >> "$EVENTS"; }
nap=''
trap 'tell stop; [ "$me" = "${FAKE_STUBBORN:-}" ] || { [ -z "$nap" ] || kill "$nap"; echo "bye"; tell end; exit 0; }' TERM
for text; do :; done
echo "$text" > "$EVENTS.$me.script"
echo "${ZEEK_DNS_FAKE-not set}" > "$EVENTS.$me.dns"
printf '%s\n' "$@" > "$EVENTS.$me.args"
tell start
[ "$me" != "${FAKE_SICK:-}" ] || exit 3
case $me in logger-*|alone) : > conn.log; echo "$me $$" >> conn.log ;; esac
echo "listening"
while :; do sleep 100 & nap=$!; wait $nap; done
`

// fakeLayout writes what the real generator writes of ports.
const fakeLayout = `#!/bin/sh
for file; do :; done
port=9990
exec > "$file"
echo "# $*"
for node in manager $(seq -f logger-%g $2) $(seq -f proxy-%g $4) $(seq -f worker-%g $6); do
  port=$((port + 1))
  printf '    ["%s"] = [$node_type=Cluster::X, $ip=127.0.0.1, $metrics_port=%s/tcp],\n' $node $port
done
`

// shells are those in which process 1 of a sensor must work: Debian's and busybox's.
func shells(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for name, command := range map[string][]string{"dash": {"dash"}, "busybox": {"busybox", "sh"}} {
		testenv.NeedTool(t, command[0])
		all[name] = command
	}
	return all
}

// process1 is sensor.sh with a fake Zeek, in a folder of logs.
type process1 struct {
	*testing.T
	logs, events, nodes string
	cmd                 *exec.Cmd
	out                 *os.File
}

// startProcess1 starts it as the Compose file does; env adds variables.
func startProcess1(t *testing.T, shell []string, logs string, env ...string) *process1 {
	t.Helper()
	return startProcess1At(t, shell, logs, 4789, nil, env...)
}

// startProcess1At has another port, and a file that all its processes have open.
func startProcess1At(t *testing.T, shell []string, logs string, port int, open *os.File, env ...string) *process1 {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"zeek": fakeZeek, "zeek-cluster-layout-generator": fakeLayout} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process1{T: t, logs: logs, events: filepath.Join(dir, "events"), nodes: filepath.Join(dir, "nodes"), out: out}
	p.cmd = exec.Command(shell[0], slices.Concat(shell[1:], []string{"-c", readFile(t, "stack/zeek/sensor.sh"), "sensor",
		"zeek", "-i", fmt.Sprintf("udp::0.0.0.0:%d:vxlan", port), "local", "-e", "redef x = T;"})...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = logs, out, out
	p.cmd.Env = slices.Concat(os.Environ(), []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "TMPDIR=" + dir, "EVENTS=" + p.events}, env)
	if open != nil {
		p.cmd.ExtraFiles = []*os.File{open}
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("events:\n%s\noutput:\n%s", p.told(), p.said())
		}
	})
	return p
}

func (p *process1) told() string { text, _ := os.ReadFile(p.events); return string(text) }
func (p *process1) said() string { text, _ := os.ReadFile(p.out.Name()); return string(text) }

// await waits until its nodes have told a thing so often.
func (p *process1) await(event string, times int) {
	p.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for strings.Count(p.told(), event+"\n") < times {
		if time.Now().After(deadline) {
			p.Fatalf("%q was not told %d times", event, times)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// pid reads a process's number, of a node's or of its keeper.
func (p *process1) pid(name string) int {
	p.Helper()
	text, err := os.ReadFile(filepath.Join(p.nodes, name))
	if err != nil {
		p.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		p.Fatal(err)
	}
	return pid
}

// ends asks it to end and returns its exit code.
func (p *process1) ends(sig syscall.Signal) int {
	p.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.Fatal(err)
	}
	return p.ended()
}

func (p *process1) ended() int {
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

// script is what the last node of a name was told to run.
func (p *process1) script(node string) string {
	p.Helper()
	text, err := os.ReadFile(p.events + "." + node + ".script")
	if err != nil {
		p.Fatal(err)
	}
	return string(text)
}

func (p *process1) args(node string) []string {
	p.Helper()
	text, err := os.ReadFile(p.events + "." + node + ".args")
	if err != nil {
		p.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}

// inEachShell runs a test under every shell, all at once.
func inEachShell(t *testing.T, run func(t *testing.T, shell []string)) {
	t.Helper()
	t.Parallel()
	for name, shell := range shells(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, shell)
		})
	}
}

// With one worker Zeek takes the place of process 1.
func TestOneWorkerIsZeekItself(t *testing.T) {
	inEachShell(t, func(t *testing.T, shell []string) {
		p := startProcess1(t, shell, t.TempDir(), "SENSOR_ROTATE=60", "SENSOR_KEEP=600")
		p.await("start alone", 1)
		if got := p.args("alone")[:4]; !slices.Equal(got, []string{"-i", "udp::0.0.0.0:4789:vxlan", "local", "-e"}) {
			t.Errorf("arguments %q", got)
		}
		for _, line := range []string{"redef x = T;", "redef Log::default_rotation_interval = 60 sec;", "redef Telemetry::metrics_port = 9991/tcp;"} {
			if !strings.Contains(p.script("alone"), line+"\n") {
				t.Errorf("its script lacks %q:\n%s", line, p.script("alone"))
			}
		}
		if got := string(must(os.ReadFile(filepath.Join(p.logs, "nodes.json")))); got != "[]\n" {
			t.Errorf("it lists nodes: %s", got)
		}
		if code := p.ends(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if want := "start alone\nstop alone\nend alone\n"; p.told() != want {
			t.Errorf("told %q, want %q", p.told(), want)
		}
	})
}

// What an earlier Zeek wrote is there afterwards, whatever ended it, however often,
// and under names that the collector takes for the same log.
func TestOldLogsAreMovedAside(t *testing.T) {
	logs := regexp.MustCompile(`^conn\.[0-9-]+-left\d+\.log$`)
	inEachShell(t, func(t *testing.T, shell []string) {
		dir := t.TempDir()
		for i := range 3 {
			p := startProcess1(t, shell, dir)
			p.await("start alone", 1)
			p.awaitFile("conn.log", fmt.Sprintf("alone %d\n", p.cmd.Process.Pid))
			if err := os.WriteFile(filepath.Join(dir, "conn.log"), fmt.Appendf(nil, "life %d\n", i), 0o644); err != nil {
				t.Fatal(err)
			}
			syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			p.ended()
		}
		startProcess1(t, shell, dir).await("start alone", 1)
		var lives []string
		for _, f := range must(os.ReadDir(dir)) {
			if logs.MatchString(f.Name()) {
				lives = append(lives, string(must(os.ReadFile(filepath.Join(dir, f.Name())))))
			}
		}
		if slices.Sort(lives); !slices.Equal(lives, []string{"life 0\n", "life 1\n", "life 2\n"}) {
			t.Errorf("lines of earlier lives: %q", lives)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (p *process1) awaitFile(name, text string) {
	p.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if got, _ := os.ReadFile(filepath.Join(p.logs, name)); string(got) == text {
			return
		}
		if time.Now().After(deadline) {
			p.Fatalf("%s never held %q", name, text)
		}
	}
}

// Finished files go by age, and the oldest of what is too much; never the one that is
// being written.
func TestFinishedLogsAreRemovedInTime(t *testing.T) {
	inEachShell(t, func(t *testing.T, shell []string) {
		dir := t.TempDir()
		old := time.Now().Add(-time.Hour)
		for i, name := range []string{"dns.2026-01-01-00-00-00.log", "conn.2026-01-01-00-00-00.log", "conn.2026-01-01-00-01-00.log", "conn.2026-01-01-00-02-00.log"} {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, make([]byte, 400<<10), 0o644); err != nil {
				t.Fatal(err)
			}
			at := old
			if i > 0 {
				at = time.Now().Add(time.Duration(i-10) * time.Second)
			}
			if err := os.Chtimes(file, at, at); err != nil {
				t.Fatal(err)
			}
		}
		p := startProcess1(t, shell, dir, "SENSOR_KEEP=600", "SENSOR_DISK=1000")
		deadline := time.Now().Add(30 * time.Second)
		for want := []string{"conn.2026-01-01-00-01-00.log", "conn.2026-01-01-00-02-00.log", "conn.log"}; ; time.Sleep(50 * time.Millisecond) {
			var names []string
			for _, name := range must(filepath.Glob(filepath.Join(dir, "*.log"))) {
				names = append(names, filepath.Base(name))
			}
			if slices.Equal(names, want) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the folder holds %q, want %q", names, want)
			}
		}
		if !strings.Contains(p.said(), "the logs take more than 1000 KiB") {
			t.Error("it did not say what it removed for their size")
		}
	})
}

// A cluster: workers read the source, loggers write; each node has its place, its
// name and its line of the log.
func TestCluster(t *testing.T) {
	inEachShell(t, func(t *testing.T, shell []string) {
		dir := t.TempDir()
		p := startProcess1(t, shell, dir, "SENSOR_WORKERS=3", "SENSOR_LOGGERS=2", "SENSOR_ROTATE=3600")
		nodes := []string{"manager", "logger-1", "logger-2", "proxy-1", "worker-1", "worker-2", "worker-3"}
		for _, node := range nodes {
			p.await("start "+node, 1)
			args := p.args(node)
			if args[0] != "frameworks/cluster/backend/zeromq" {
				t.Errorf("%s: the backend's script comes first, not %q", node, args[0])
			}
			if reads := slices.Contains(args, "udp::0.0.0.0:4789:vxlan"); reads != strings.HasPrefix(node, "worker-") {
				t.Errorf("%s reads the source: %v", node, reads)
			}
			if s := p.script(node); strings.Contains(s, "metrics_port") || !strings.HasSuffix(s, "\n# "+node+"\n") || !strings.Contains(s, "redef Log::default_rotation_interval = 3600 sec;\n") {
				t.Errorf("%s runs\n%s", node, s)
			}
		}
		p.awaitFile("conn.log", fmt.Sprintf("logger-1 %d\n", p.pid("logger-1.pid")))
		p.awaitFile("logger-2/conn.log", fmt.Sprintf("logger-2 %d\n", p.pid("logger-2.pid")))
		p.lists(filepath.Base(dir), nodes[1:])
		if code := p.ends(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d", code)
		}
		p.inOrder(nodes)
		for _, node := range nodes {
			if strings.Count(p.said(), node+": listening\n") != 1 || strings.Count(p.said(), node+": bye\n") != 1 {
				t.Errorf("the output of %s is not its own lines", node)
			}
		}
	})
}

// lists checks that Prometheus learns of these nodes, each on a port of its own.
func (p *process1) lists(sensor string, nodes []string) {
	p.Helper()
	var groups []struct {
		Targets []string
		Labels  map[string]string
	}
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(p.logs, "nodes.json"))), &groups); err != nil {
		p.Fatal(err)
	}
	for i, node := range nodes {
		if i >= len(groups) || groups[i].Labels["node"] != node || groups[i].Labels["sensor"] != sensor || groups[i].Targets[0] != fmt.Sprintf("%s:%d", sensor, 9992+i) {
			p.Errorf("%s is not listed as one of %s: %v", node, sensor, groups)
		}
	}
}

// inOrder checks that every worker had ended before a proxy was asked to, every proxy
// before a logger, every logger before the manager.
func (p *process1) inOrder(nodes []string) {
	p.Helper()
	told := strings.Split(p.told(), "\n")
	order := []string{"worker", "proxy", "logger", "manager"}
	last := map[string]int{}
	for i, line := range told {
		if node, ok := strings.CutPrefix(line, "end "); ok {
			last[strings.Split(node, "-")[0]] = i
		}
	}
	for i, kind := range order[1:] {
		for at, line := range told {
			if strings.HasPrefix(line, "stop "+kind) && at < last[order[i]] {
				p.Errorf("%s while a %s still ran", line, order[i])
			}
		}
	}
	if got := strings.Count(p.told(), "end "); got < len(nodes) {
		p.Errorf("%d of %d nodes ended", got, len(nodes))
	}
}

// Whichever node is killed starts again, alone; a logger's lines are kept. So does one
// whose keeper is killed.
func TestKilledNodeStartsAgain(t *testing.T) {
	inEachShell(t, func(t *testing.T, shell []string) {
		dir := t.TempDir()
		p := startProcess1(t, shell, dir, "SENSOR_WORKERS=2")
		nodes := []string{"manager", "logger-1", "proxy-1", "worker-1", "worker-2"}
		for _, node := range nodes {
			p.await("start "+node, 1)
		}
		first := fmt.Sprintf("logger-1 %d\n", p.pid("logger-1.pid"))
		p.awaitFile("conn.log", first)
		for _, node := range nodes {
			syscall.Kill(p.pid(node+".pid"), syscall.SIGKILL)
			p.await("start "+node, 2)
			if !strings.Contains(p.said(), "sensor: "+node+" ended by itself, exit code 137") {
				t.Errorf("the end of %s was not told", node)
			}
		}
		syscall.Kill(p.pid("worker-2.keeper"), syscall.SIGKILL)
		p.await("start worker-2", 3)
		kept := must(filepath.Glob(filepath.Join(dir, "conn.*-left1.log")))
		if len(kept) != 1 || string(must(os.ReadFile(kept[0]))) != first {
			t.Errorf("the killed logger's lines are in %q", kept)
		}
		if code := p.ends(syscall.SIGINT); code != 0 {
			t.Errorf("exit code %d", code)
		}
		p.inOrder(nodes)
		if n := strings.Count(p.told(), "start "); n != len(nodes)*2+1 {
			t.Errorf("%d starts, want %d", n, len(nodes)*2+1)
		}
	})
}

// A node that cannot live takes the sensor with it, in order, so that the engine sees
// it.
func TestSickNodeEndsTheSensor(t *testing.T) {
	inEachShell(t, func(t *testing.T, shell []string) {
		p := startProcess1(t, shell, t.TempDir(), "SENSOR_WORKERS=2", "FAKE_SICK=proxy-1")
		if code := p.ended(); code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
		if n := strings.Count(p.told(), "start proxy-1\n"); n != 5 {
			t.Errorf("it was started %d times, want 5", n)
		}
		if !strings.Contains(p.said(), "sensor: proxy-1 is given up") {
			t.Error("it does not say which")
		}
		p.inOrder([]string{"manager", "logger-1", "worker-1", "worker-2"})
	})
}

// One that does not end is killed in time for the others to end well.
func TestStubbornNodeDoesNotCostTheOthers(t *testing.T) {
	inEachShell(t, func(t *testing.T, shell []string) {
		p := startProcess1(t, shell, t.TempDir(), "SENSOR_WORKERS=2", "SENSOR_GRACE=8", "FAKE_STUBBORN=worker-1")
		for _, node := range []string{"manager", "logger-1", "proxy-1", "worker-1", "worker-2"} {
			p.await("start "+node, 1)
		}
		start := time.Now()
		if code := p.ends(syscall.SIGTERM); code != 1 {
			t.Errorf("exit code %d, want 1: a worker's connections are lost", code)
		}
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("it took %s of the 8 s there are", took)
		}
		if !strings.Contains(p.said(), "sensor: worker: no end after 4 s, killed") {
			t.Error("it does not say so")
		}
		p.inOrder([]string{"manager", "logger-1", "proxy-1", "worker-2"})
	})
}

// What the kernel says of a worker's socket is there to be scraped, under the worker's
// name; of a Zeek by itself too.
func TestSocketsAreTold(t *testing.T) {
	for name, tt := range map[string]struct{ env, node string }{"cluster": {"SENSOR_WORKERS=2", "worker-2"}, "one": {"SENSOR_WORKERS=1", "zeek"}} {
		t.Run(name, func(t *testing.T) {
			inEachShell(t, func(t *testing.T, shell []string) {
				socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4zero})
				if err != nil {
					t.Fatal(err)
				}
				defer socket.Close()
				port := socket.LocalAddr().(*net.UDPAddr).Port
				if _, err := socket.WriteTo(make([]byte, 100), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}); err != nil {
					t.Fatal(err)
				}
				p := startProcess1At(t, shell, t.TempDir(), port, must(socket.File()), tt.env)
				queued := regexp.MustCompile(fmt.Sprintf(`(?m)^zeekdemo_socket_queued_bytes\{sensor=%q,node=%q\} [1-9]\d+$`, filepath.Base(p.logs), tt.node))
				for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
					text, _ := os.ReadFile(filepath.Join(p.logs, "sockets.prom"))
					if queued.Match(text) && strings.Contains(string(text), fmt.Sprintf("zeekdemo_socket_drops_total{sensor=%q,node=%q} 0\n", filepath.Base(p.logs), tt.node)) {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("it tells\n%s", text)
					}
				}
			})
		})
	}
}

// Workers are pinned in turn.
func TestPinnedWorkers(t *testing.T) {
	testenv.NeedTool(t, "taskset")
	inEachShell(t, func(t *testing.T, shell []string) {
		p := startProcess1(t, shell, t.TempDir(), "SENSOR_WORKERS=2", "SENSOR_PIN=0")
		for _, node := range []string{"manager", "worker-1", "worker-2"} {
			p.await("start "+node, 1)
			status := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid(node+".pid")))))
			if pinned := strings.Contains(status, "Cpus_allowed_list:\t0\n"); pinned != strings.HasPrefix(node, "worker-") {
				t.Errorf("%s is pinned: %v", node, pinned)
			}
		}
	})
}

// A number that is none is said, before anything starts.
func TestSensorRefusesWhatIsNoNumber(t *testing.T) {
	inEachShell(t, func(t *testing.T, shell []string) {
		p := startProcess1(t, shell, t.TempDir(), "SENSOR_WORKERS=many")
		if code := p.ended(); code != 2 || !strings.Contains(p.said(), `"many"`) {
			t.Errorf("exit code %d: %s", code, p.said())
		}
	})
}

// Zeek looks at whether the variable is there, not at what it holds.
func TestWhoMayBeAskedForNames(t *testing.T) {
	inEachShell(t, func(t *testing.T, shell []string) {
		for value, want := range map[string]string{"1": "1\n", "": "not set\n"} {
			p := startProcess1(t, shell, t.TempDir(), "ZEEK_DNS_FAKE="+value)
			p.await("start alone", 1)
			if got := string(must(os.ReadFile(p.events + ".alone.dns"))); got != want {
				t.Errorf("ZEEK_DNS_FAKE=%s reaches Zeek as %q, want %q", value, got, want)
			}
		}
	})
}

func TestSensorScriptIsClean(t *testing.T) {
	testenv.NeedTool(t, "shellcheck")
	if out, err := exec.Command("shellcheck", "-s", "sh", "stack/zeek/sensor.sh").CombinedOutput(); err != nil {
		t.Errorf("%s", out)
	}
}
