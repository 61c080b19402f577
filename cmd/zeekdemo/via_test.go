package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// viaDocument is what these scenarios read of `replay --json`.
type viaDocument struct {
	Run       uint32
	Via       string
	ViaReason string `json:"via_reason"`
	Verdict   string
	Lossless  struct {
		Governed bool
		Ledger   struct{ Sent, Taken, Lost uint64 }
	}
}

// sidecars lists the sidecars that are there, in any state.
func sidecars(t *testing.T) []string {
	t.Helper()
	return strings.Fields(docker(t, "ps", "-aq", "--no-trunc", "--filter", "label=org.zeekdemo.sidecar"))
}

// volumes lists all volumes: a sidecar has an anonymous one.
func volumes(t *testing.T) string {
	t.Helper()
	return docker(t, "volume", "ls", "-q")
}

// noSidecar waits until none is left, nor its volume.
func noSidecar(t *testing.T, before string) {
	t.Helper()
	eventually(t, 30*time.Second, "the sidecar goes", func() error {
		if list := sidecars(t); len(list) > 0 {
			return fmt.Errorf("%v are there", list)
		}
		if now := volumes(t); now != before {
			return fmt.Errorf("volumes were %q, are %q", before, now)
		}
		return nil
	})
}

// arrived compares what `logs SENSOR --log conn` shows of a run with the
// sample's own list of connections.
func arrived(p program, env []string, sensor, encapsulation string, run uint32) error {
	cmd := exec.Command(p.path, "logs", sensor, "--log", "conn")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	vni := fmt.Sprintf(`"id.ctx.%s_vni":%d`, encapsulation, run)
	n, packets := 0, 0
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, vni+",") && !strings.Contains(line, vni+"}") {
			continue
		}
		var c struct {
			OrigPkts int `json:"orig_pkts"`
			RespPkts int `json:"resp_pkts"`
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			return err
		}
		n++
		packets += c.OrigPkts + c.RespPkts
	}
	want := 0
	for _, c := range samples.Connections() {
		want += c.OrigPkts + c.RespPkts
	}
	if n != len(samples.Connections()) || packets != want {
		return fmt.Errorf("%d connections with %d packets, want %d with %d", n, packets, len(samples.Connections()), want)
	}
	return nil
}

// replayed runs a replay that has to go by the given way and lose nothing.
func replayed(t *testing.T, cmd *exec.Cmd, via string) viaDocument {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, stdout.String(), stderr.String())
	}
	var doc viaDocument
	if err := json.Unmarshal(stdout.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	l := doc.Lossless
	if doc.Via != via || doc.Verdict != "complete" || !l.Governed || l.Ledger.Lost != 0 || l.Ledger.Taken != l.Ledger.Sent || l.Ledger.Sent == 0 {
		t.Fatalf("%v: %s", cmd.Args, stdout.String())
	}
	return doc
}

// Every way leads to the sensor; a sidecar has no rights, and leaves nothing
// behind, whatever becomes of its client.
func TestEveryWayToTheSensor(t *testing.T) {
	p := stackTest(t)
	p.must(t, "up", "--pull", "never")
	before := volumes(t)
	for _, encapsulation := range []string{"vxlan", "geneve"} {
		sensor := map[string]string{"vxlan": "zeek", "geneve": "zeek-geneve"}[encapsulation]
		for _, via := range []string{"sidecar", "direct", "published"} {
			doc := replayed(t, exec.Command(p.path, "replay", "--json", "--speed", "4x", "--encap", encapsulation, "--via", via), via)
			eventually(t, logWait(t), via+" "+encapsulation, func() error { return arrived(p, nil, sensor, encapsulation, doc.Run) })
		}
	}
	noSidecar(t, before)
	replayed(t, exec.Command(p.path, "replay", "--json", "--pace", "max"), "direct") // this machine reaches its containers
	t.Run("a sidecar has no rights", func(t *testing.T) {
		whileSidecar(t, p, func(client *os.Process) {
			checkRights(t)
			_ = client.Signal(os.Interrupt)
		}, 130)
		noSidecar(t, before)
	})
	t.Run("the client is killed", func(t *testing.T) {
		whileSidecar(t, p, func(client *os.Process) { _ = client.Kill() }, -1)
		noSidecar(t, before)
	})
	t.Run("the sidecar is killed", func(t *testing.T) {
		whileSidecar(t, p, func(*os.Process) { docker(t, append([]string{"kill"}, sidecars(t)...)...) }, 1)
		noSidecar(t, before)
	})
	t.Run("without root", func(t *testing.T) { viaWithoutRoot(t, p) })
	t.Run("what the GENEVE sensor takes", func(t *testing.T) { takesWhatItWasTold(t, p) })
	t.Run("down removes one that nobody can judge if asked to", func(t *testing.T) {
		id := docker(t, "create", "--label", "org.zeekdemo.sidecar=gone", docker(t, "inspect", "--format", "{{.Image}}", "zeekdemo-zeek-1"))
		r := p.must(t, "down", "--volumes")
		if !strings.Contains(r.stderr, "Left alone: a sidecar of somebody, which cannot be seen from here.") || !slices.Contains(sidecars(t), id) {
			t.Errorf("it just was created by another client: %s", r.stderr)
		}
		p.must(t, "down", "--volumes", "--all")
		noSidecar(t, volumes(t))
	})
}

// takesWhatItWasTold makes the GENEVE sensor take what the clouds send. What fits
// arrives whole, by every way; what does not is refused, and the rest of the stack
// stays as it is.
func takesWhatItWasTold(t *testing.T, p program) {
	for i, tt := range []struct{ mode, preset, encapsulation, via, other string }{
		{"ip", "gcp-nsi", "geneve", "direct", "aws-mirror-gwlb"},
		{"ip", "aws-gwlb", "geneve", "published", "aws-mirror-gwlb"},
		{"gwlb", "aws-mirror-gwlb", "vxlan", "sidecar", "aws-gwlb"},
	} {
		before := containers(t)
		p.must(t, "up", "--pull", "never", "--geneve-mode", tt.mode)
		for name, state := range containers(t) {
			if !strings.HasSuffix(name, "zeek-geneve") && state != before[name] { // and the exporter in its namespace
				t.Errorf("mode %s: %s changed", tt.mode, name)
			}
		}
		refusedByMode(t, p, "ethernet", "replay", "--encap", "geneve", "--via", tt.via)
		refusedByMode(t, p, map[string]string{"ip": "gwlb", "gwlb": "ip"}[tt.mode], "replay", "--as", tt.other, "--via", tt.via)
		run := strconv.Itoa(4711 + i) // the clouds' own VNI is 0
		doc := replayed(t, exec.Command(p.path, "replay", "--json", "--speed", "4x", "--as", tt.preset, "--vni", run, "--via", tt.via), tt.via)
		eventually(t, logWait(t), tt.preset+" "+tt.via, func() error { return arrived(p, nil, "zeek-geneve", tt.encapsulation, doc.Run) })
	}
	p.must(t, "up", "--pull", "never")
	refusedByMode(t, p, "ip", "replay", "--as", "gcp-nsi")
}

// refusedByMode runs what the GENEVE sensor does not take, and would in another mode.
func refusedByMode(t *testing.T, p program, mode string, args ...string) {
	t.Helper()
	r := p.run(t, args...)
	if r.code != 2 || r.stdout != "" || !strings.Contains(r.stderr, "to sensor zeek-geneve: it takes ") || !strings.Contains(r.stderr, "`zeekdemo up --geneve-mode "+mode+"`") {
		t.Errorf("zeekdemo %s: exit code %d, want 2 and a hint at the mode %s\n%s%s", strings.Join(args, " "), r.code, mode, r.stdout, r.stderr)
	}
}

// whileSidecar calls do while a replay without end goes by sidecar, and checks
// the replay's exit code; -1 stands for a signal.
func whileSidecar(t *testing.T, p program, do func(client *os.Process), want int) {
	t.Helper()
	cmd := exec.Command(p.path, "replay", "--loop", "0", "--via", "sidecar")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	eventually(t, 30*time.Second, "the sidecar runs", func() error {
		if list := docker(t, "ps", "-q", "--filter", "label=org.zeekdemo.sidecar"); list == "" {
			return errors.New("none runs")
		}
		return nil
	})
	do(cmd.Process)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Errorf("exit code %d, want %d\n%s", code, want, said.String())
	}
}

// checkRights looks at the running sidecar from outside.
func checkRights(t *testing.T) {
	t.Helper()
	id := sidecars(t)[0]
	zeek := docker(t, "inspect", "--format", "{{.Id}} {{.Image}}", "zeekdemo-zeek-1")
	zeekID, image, _ := strings.Cut(zeek, " ")
	got := docker(t, "inspect", "--format", "{{.HostConfig.NetworkMode}} {{.Image}} {{.HostConfig.CapDrop}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.SecurityOpt}} {{.HostConfig.Privileged}} {{.Config.User}} {{.HostConfig.RestartPolicy.Name}}", id)
	if want := "container:" + zeekID + " " + image + " [ALL] true [no-new-privileges:true] false 65534:65534 no"; got != want {
		t.Errorf("the sidecar is\n%s, want\n%s", got, want)
	}
	if label := docker(t, "inspect", "--format", `{{index .Config.Labels "com.docker.compose.project"}}`, id); label != "" {
		t.Errorf("the sidecar belongs to the Compose project %q", label)
	}
	pid := docker(t, "inspect", "--format", "{{.State.Pid}}", id)
	status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	if err != nil {
		t.Skipf("SKIPPED: the sidecar's process is not on this machine: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if name, value, _ := strings.Cut(line, ":"); strings.HasPrefix(name, "Cap") && strings.Trim(value, " \t\n0") != "" {
			t.Errorf("the sidecar has capabilities: %s", line)
		}
	}
}

// viaWithoutRoot replays as nobody with the group of the engine's socket.
func viaWithoutRoot(t *testing.T, p program) {
	testenv.NeedRoot(t)
	info, err := os.Stat("/var/run/docker.sock")
	if err != nil {
		testenv.Missing(t, err.Error())
	}
	// The folders on the way to the program belong to root alone.
	dir, err := os.MkdirTemp("", "zeekdemo-via-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // nobody has to reach it
		t.Fatal(err)
	}
	nobodys := filepath.Join(dir, "zeekdemo")
	if out, err := exec.Command("cp", p.path, nobodys).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	asNobody := func(args ...string) *exec.Cmd {
		cmd := exec.Command(nobodys, append([]string{"replay", "--json"}, args...)...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: info.Sys().(*syscall.Stat_t).Gid}}
		return cmd
	}
	for _, via := range []string{"sidecar", "direct", "auto"} {
		want := via
		if via == "auto" {
			want = "direct"
		}
		doc := replayed(t, asNobody("--pace", "max", "--via", via), want)
		eventually(t, logWait(t), "without root, "+via, func() error { return arrived(p, nil, "zeek", "vxlan", doc.Run) })
	}
	replayed(t, asNobody("--pace", "max", "--via", "sidecar", "--loop", strconv.Itoa(manyLoops)), "sidecar")
}

// secondEngine starts an engine in a network namespace of its own, so that the
// addresses of its containers, and its published ports, are not to be reached
// from here, as with an engine in a virtual machine. It returns the
// environment that leads to it.
func secondEngine(t *testing.T) (address string) {
	t.Helper()
	testenv.NeedRoot(t)
	for _, tool := range []string{"dockerd", "docker", "ip", "nsenter"} {
		testenv.NeedTool(t, tool)
	}
	dir, err := os.MkdirTemp("", "zd2-*") // short: the paths of sockets are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	name := fmt.Sprintf("zd2-%d", os.Getpid())
	tool(t, "ip", "netns", "add", name)
	t.Cleanup(func() { tool(t, "ip", "netns", "del", name) })
	tool(t, "ip", "-n", name, "link", "set", "lo", "up")
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	address = "unix://" + filepath.Join(dir, "docker.sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	daemon := exec.Command("nsenter", "--net=/run/netns/"+name, "dockerd", "--config-file", config, "--data-root", filepath.Join(dir, "data"),
		"--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"), "-H", address, "--storage-driver", "vfs",
		"--containerd-namespace", name, "--containerd-plugins-namespace", name+"-plugins")
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(30*time.Second, func() { _ = daemon.Process.Kill() })
		defer timer.Stop()
		_ = daemon.Wait()
	})
	eventually(t, 30*time.Second, "the second engine answers", func() error {
		if out, err := exec.Command("docker", "-H", address, "version").CombinedOutput(); err != nil {
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%w: %s%s", err, out, said)
		}
		return nil
	})
	return address
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// manyLoops of the sample are more than half a million packets.
const manyLoops = 1200

// sensorScript is what these scenarios need of the stack's own script.
const sensorScript = `redef LogAscii::use_json = T;
redef ignore_checksums = T;
redef Telemetry::metrics_port = 9991/tcp;
redef Telemetry::metrics_address = "0.0.0.0";
@load policy/frameworks/conn_key/packet_source/udp/vxlan_vni
`

// An engine whose containers and ports cannot be reached from here: `auto` and
// `--direct` go by sidecar, say why, and everything arrives.
func TestSidecarWhereNothingElseArrives(t *testing.T) {
	if os.Getenv("ZEEKDEMO_E2E") != "1" && !testenv.CI() {
		t.Skip("SKIPPED: starts an engine of its own; ZEEKDEMO_E2E=1 runs it")
	}
	p := build(t)
	address := secondEngine(t)
	image := "zeek/zeek:9.0"
	if other := os.Getenv("ZEEKDEMO_IMAGE_ZEEK"); other != "" {
		image = other
	}
	load := exec.Command("sh", "-c", `docker save "$1" | docker -H "$2" load`, "sh", image, address)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("load the image: %v\n%s", err, out)
	}
	tool(t, "docker", "-H", address, "network", "create", "--subnet", "10.213.47.0/24", "--label", "com.docker.compose.project=zeekdemo", "zeekdemo_monitoring")
	tool(t, "docker", "-H", address, "run", "-d", "--name", "zeekdemo-zeek-1", "--network", "zeekdemo_monitoring",
		"--label", "com.docker.compose.project=zeekdemo", "--label", "com.docker.compose.service=zeek",
		"--cap-drop", "ALL", "--read-only", "--tmpfs", "/tmp", "-v", "/logs", "-w", "/logs/zeek", "-p", "127.0.0.1:4789:4789/udp",
		image, "zeek", "-i", "udp::0.0.0.0:4789:vxlan", "local", "-e", sensorScript)
	t.Cleanup(func() { tool(t, "docker", "-H", address, "rm", "-fv", "zeekdemo-zeek-1") })
	eventually(t, time.Minute, "the sensor listens", func() error {
		out, err := exec.Command("docker", "-H", address, "exec", "zeekdemo-zeek-1", "grep", "-q", ":12B5 ", "/proc/net/udp").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	env := []string{"DOCKER_HOST=" + address}
	for _, args := range [][]string{{}, {"--direct"}, {"--via", "sidecar", "--lossless", "require"}} {
		cmd := exec.Command(p.path, slices.Concat([]string{"replay", "--json", "--speed", "4x"}, args)...)
		cmd.Env = append(os.Environ(), env...)
		doc := replayed(t, cmd, "sidecar")
		if len(args) < 2 && !strings.Contains(doc.ViaReason, "10.213.47.") {
			t.Errorf("%v does not say why it goes by sidecar: %q", args, doc.ViaReason)
		}
		eventually(t, 150*time.Second, strconv.Quote(strings.Join(args, " "))+" arrives", func() error { return arrived(p, env, "zeek", "vxlan", doc.Run) })
	}
	many := exec.Command(p.path, "replay", "--json", "--pace", "max", "--loop", strconv.Itoa(manyLoops))
	many.Env = append(os.Environ(), env...)
	if doc := replayed(t, many, "sidecar"); doc.Lossless.Ledger.Sent < 500_000 {
		t.Errorf("%d packets were sent", doc.Lossless.Ledger.Sent)
	}
	verifyElsewhere(t, p, env)
	for _, label := range []string{"org.zeekdemo.sidecar", "org.zeekdemo.verify"} {
		if left := tool(t, "docker", "-H", address, "ps", "-aq", "--filter", "label="+label); left != "" {
			t.Errorf("containers with %s are left: %s", label, left)
		}
	}
}

// verifyElsewhere verifies on that engine: it goes by sidecar by itself.
func verifyElsewhere(t *testing.T, p program, env []string) {
	t.Helper()
	cmd := exec.Command(p.path, "verify", "--pull", "never", "--json", testenv.Shared(t, "pcaps", "bro.org.pcap"), testenv.Shared(t, "pcaps", "modbusBig.pcap"))
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var doc verified
	if err := errors.Join(err, json.Unmarshal(out, &doc)); err != nil || len(doc.Captures) != 2 {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	checkProof(t, doc, "sidecar")
	if why := doc.Captures[0].ViaReason; !strings.Contains(why, "not direct") {
		t.Errorf("verify does not say why it goes by sidecar: %q", why)
	}
	// Its published ports are not this machine's.
	cmd = exec.Command(p.path, "verify", "--pull", "never", "--via", "published", testenv.Shared(t, "pcaps", "bro.org.pcap"))
	cmd.Env = append(os.Environ(), env...)
	if out, _ := cmd.Output(); cmd.ProcessState.ExitCode() != 1 || !bytes.Contains(out, []byte("nobody listens at 127.0.0.1:")) {
		t.Errorf("published: exit code %d\n%s", cmd.ProcessState.ExitCode(), out)
	}
}
