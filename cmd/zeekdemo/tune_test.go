//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// tuneResult is what `tune-host --json` prints, as far as the scenarios look.
type tuneResult struct {
	Way     string `json:"way"`
	Applied bool   `json:"applied"`
	Tuned   bool   `json:"tuned"` // --status
	// Recorded is --status's as well; Record is where.
	Recorded bool   `json:"recorded"`
	Record   string `json:"record"`
	Changes  []struct {
		Setting, Where, Path, Now, Wanted string
	} `json:"changes"`
	Late      []struct{ Sensor, Reason string } `json:"late_sensors"`
	Restarted []string                          `json:"restarted_sensors"`
	Values    []struct{ Setting, Where, Fate string }
}

func tuneJSON(t *testing.T, document string) (r tuneResult) {
	t.Helper()
	if err := json.Unmarshal([]byte(document), &r); err != nil {
		t.Fatalf("%v in\n%s", err, document)
	}
	return r
}

// hostFiles are the files of the machine that tune-host may change.
func hostFiles() []string {
	files := []string{"/sys/class/net/lo/queues/rx-0/rps_cpus"}
	for _, name := range []string{"rmem_max", "rmem_default", "wmem_max", "wmem_default", "netdev_max_backlog"} {
		files = append(files, "/proc/sys/net/core/"+name)
	}
	return files
}

func readHost(t *testing.T) map[string]string {
	t.Helper()
	values, err := nsenter.Local().Read(t.Context(), nsenter.Namespace{}, hostFiles()...)
	if err != nil || len(values) != len(hostFiles()) {
		t.Fatalf("the machine's settings: %v, %v", values, err)
	}
	return values
}

// keepHost puts the machine's settings back after the test, whatever it did, and
// gives them the values of a new machine before.
func keepHost(t *testing.T) (before map[string]string) {
	t.Helper()
	was := readHost(t)
	write := func(values map[string]string) {
		for path, value := range values {
			if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(func() { write(was) })
	write(map[string]string{"/proc/sys/net/core/rmem_max": "212992", "/proc/sys/net/core/rmem_default": "212992", "/proc/sys/net/core/wmem_max": "50331648",
		"/proc/sys/net/core/wmem_default": "212992", "/proc/sys/net/core/netdev_max_backlog": "1000", "/sys/class/net/lo/queues/rx-0/rps_cpus": "0"})
	return readHost(t)
}

// sensorProcess is the first process of a sensor's container.
func sensorProcess(t *testing.T, service string) int {
	t.Helper()
	pid, err := strconv.Atoi(docker(t, "inspect", "--format", "{{.State.Pid}}", "zeekdemo-"+service+"-1"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// sensorMask reads what spreads the packets of the sensor's interface on the
// monitoring network, and that the container's own /sys is read-only still.
func sensorMask(t *testing.T, service string) string {
	t.Helper()
	pid := sensorProcess(t, service)
	address := netip.MustParseAddr(docker(t, "inspect", "--format", `{{(index .NetworkSettings.Networks "zeekdemo_monitoring").IPAddress}}`, "zeekdemo-"+service+"-1"))
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-n", "ip", "-o", "addr", "show", "to", address.String()).Output()
	if len(strings.Fields(string(out))) < 2 {
		t.Fatalf("the interface of %s with %s: %s, %v", service, address, out, err)
	}
	device := strings.Fields(string(out))[1]
	path := "/sys/class/net/" + device + "/queues/rx-0/rps_cpus"
	got, err := nsenter.Local().Read(t.Context(), nsenter.Namespace{PID: pid}, path)
	if err != nil || len(got) != 1 {
		t.Fatalf("%s of %s: %v, %v", path, service, got, err)
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[4] == "/sys" && (!strings.HasPrefix(f[5], "ro") || !strings.HasPrefix(f[len(f)-1], "ro")) {
			t.Errorf("the own /sys of %s is not read-only: %s", service, line)
		}
	}
	return strings.TrimLeft(strings.TrimSpace(got[path]), "0,")
}

func noHelper(t *testing.T) {
	t.Helper()
	eventually(t, 15*time.Second, "no helper container is left", func() error {
		if left := docker(t, "ps", "-aq", "--filter", "label=org.zeekdemo.helper"); left != "" {
			return errors.New(left)
		}
		return nil
	})
}

// Both ways to the machine plan and do the same, on the machine and in the
// sensors' namespaces, and take it back; somebody else's change survives. Root
// goes directly, anybody else by a helper container.
func TestTuneHost(t *testing.T) {
	testenv.NeedRoot(t)
	p := stackTest(t)
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	before := keepHost(t)
	p.must(t, "up", "--pull", "never")
	device := fmt.Sprintf("zt%dt", os.Getpid())
	testenv.IP(t, "link add "+device+" type veth peer name "+device+"p")
	t.Cleanup(func() { testenv.IP(t, "link del "+device) })
	features := func() map[string]string {
		t.Helper()
		all, err := nsenter.Local().Read(t.Context(), nsenter.Namespace{}, nsenter.Feature(device, "*"))
		if err != nil || len(all) < 10 {
			t.Fatalf("features of %s: %v, %v", device, all, err)
		}
		return all
	}
	featuresBefore := features()
	var plans []string
	for _, way := range []string{"direct", "helper"} {
		plan := p.must(t, "tune-host", "--dry-run", "--json", "--reach", way, "--interface", device).stdout
		if r := tuneJSON(t, plan); r.Way != way || r.Applied || len(r.Changes) < 6 {
			t.Errorf("plan: %s", plan)
		}
		plans = append(plans, strings.Replace(plan, `"way": "`+way, `"way": "`, 1))
		if now := readHost(t); !maps.Equal(now, before) {
			t.Fatalf("a plan has changed something: %v", now)
		}

		r := tuneJSON(t, p.must(t, "tune-host", "--json", "--reach", way, "--interface", device).stdout)
		if r.Way != way || !r.Applied || len(r.Late) != 2 {
			t.Errorf("%s: %+v", way, r)
		}
		checkTuned(t, r)
		if now := features(); now[nsenter.Feature(device, "rx-gro")] != nsenter.Off || now[nsenter.Feature(device, "tx-tcp-segmentation")] != nsenter.Off {
			t.Errorf("%s: the features of %s are %v", way, device, now)
		}
		if again := tuneJSON(t, p.must(t, "tune-host", "--json", "--reach", way).stdout); len(again.Changes) != 0 {
			t.Errorf("%s: a second time changes %v", way, again.Changes)
		}
		if err := os.WriteFile("/proc/sys/net/core/rmem_default", []byte("300032"), 0o644); err != nil {
			t.Fatal(err)
		}
		p.must(t, "tune-host", "--revert", "--reach", way)
		after := maps.Clone(before)
		after["/proc/sys/net/core/rmem_default"] = "300032\n"
		if now := readHost(t); !maps.Equal(now, after) {
			t.Errorf("%s: taken back: %v, want %v", way, now, after)
		}
		if now := features(); !maps.Equal(now, featuresBefore) {
			t.Errorf("%s: taken back: %v, want %v", way, now, featuresBefore)
		}
		if mask := sensorMask(t, "zeek") + sensorMask(t, "zeek-geneve"); mask != "" {
			t.Errorf("%s: a sensor's mask is %q still", way, mask)
		}
		if err := os.WriteFile("/proc/sys/net/core/rmem_default", []byte(before["/proc/sys/net/core/rmem_default"]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if plans[0] != plans[1] {
		t.Errorf("directly planned:\n%s\nby a helper:\n%s", plans[0], plans[1])
	}
	tuneWithoutRoot(t, p, before)
	tunedByAnother(t, p, before)
	killedTuning(t, p, before)
	keptTuned(t, p, before)
	noHelper(t)
}

// checkTuned looks at the kernel itself.
func checkTuned(t *testing.T, r tuneResult) {
	t.Helper()
	now := readHost(t)
	online := strings.TrimLeft(strings.TrimSpace(now["/sys/class/net/lo/queues/rx-0/rps_cpus"]), "0,")
	for _, c := range r.Changes {
		if got, ok := now[c.Path]; ok && c.Where == "host" && strings.TrimLeft(strings.TrimSpace(got), "0,") != c.Wanted {
			t.Errorf("%s is %s, want %s", c.Setting, got, c.Wanted)
		}
	}
	if now["/proc/sys/net/core/rmem_max"] != "33554432\n" || now["/proc/sys/net/core/wmem_max"] != "50331648\n" { // that was higher
		t.Errorf("the machine's settings are %v", now)
	}
	if vxlan, geneve := sensorMask(t, "zeek"), sensorMask(t, "zeek-geneve"); vxlan != online || geneve != online {
		t.Errorf("the sensors' masks are %q and %q, want %q", vxlan, geneve, online)
	}
}

// tuneWithoutRoot tunes as a user who may do nothing but use the engine, and as
// one who may not even do that.
func tuneWithoutRoot(t *testing.T, p program, before map[string]string) {
	t.Helper()
	state := t.TempDir()
	for _, dir := range []string{state, filepath.Dir(state)} {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("XDG_STATE_HOME", state)
	if r := tuneJSON(t, asNobody(t, p, "tune-host", "--json")); r.Way != "helper" || !r.Applied {
		t.Errorf("as nobody: %+v", r)
	} else {
		checkTuned(t, r)
	}
	asNobody(t, p, "tune-host", "--revert")
	for _, args := range [][]string{{"tune-host"}, {"tune-host", "--reach", "direct"}, {"tune-host", "--revert"}} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(openCopy(t, p), "zeekdemo"), args...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix:///nonexistent/docker.sock")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if _ = cmd.Run(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "\nhint: ") ||
			!strings.Contains(stderr.String(), "reach the Docker engine") && !strings.Contains(stderr.String(), "only root may") {
			t.Errorf("%v without root and engine: exit code %d\n%s", args, cmd.ProcessState.ExitCode(), stderr.String())
		}
	}
	if now := readHost(t); !maps.Equal(now, before) {
		t.Errorf("without root and without engine: %v", now)
	}
}

// tunedByAnother tunes as one user, and looks and takes back as another one, of
// whom neither sees the other's home: root directly, somebody else by a helper,
// and somebody on another machine.
func tunedByAnother(t *testing.T, p program, before map[string]string) {
	t.Helper()
	type person func(args ...string) string
	root := func(args ...string) string { t.Helper(); return p.must(t, args...).stdout }
	nobody := func(args ...string) string { t.Helper(); return asNobody(t, p, args...) }
	elsewhere := func(args ...string) string { t.Helper(); return fromAnotherMachine(t, p, args...) }
	for name, people := range map[string]struct{ tunes, takesBack person }{
		"root, then nobody":                {root, nobody},
		"nobody, then root":                {nobody, root},
		"root, then from another machine":  {root, elsewhere},
		"from another machine, then root":  {elsewhere, root},
		"another machine, and here nobody": {elsewhere, nobody},
	} {
		t.Setenv("XDG_STATE_HOME", filepath.Join(t.TempDir(), "one"))
		r := tuneJSON(t, people.tunes("tune-host", "--json"))
		if !r.Applied || !strings.HasPrefix(r.Record, nsenter.RecordFolder+"/tuning-") {
			t.Errorf("%s: %+v", name, r)
		}
		checkTuned(t, r)
		t.Setenv("XDG_STATE_HOME", "")
		for _, other := range []person{people.takesBack, elsewhere} {
			if status := tuneJSON(t, other("tune-host", "--status", "--json")); !status.Tuned || !status.Recorded {
				t.Errorf("%s: tune-host --status: %+v", name, status)
			}
			if status := other("status", "--json"); !strings.Contains(status, `"recorded": true`) {
				t.Errorf("%s: status: %s", name, status)
			}
		}
		if again := tuneJSON(t, people.takesBack("tune-host", "--json")); len(again.Changes) != 0 {
			t.Errorf("%s: a second time changes %v", name, again.Changes)
		}
		if r := tuneJSON(t, people.takesBack("tune-host", "--revert", "--json")); len(r.Values) < 6 {
			t.Errorf("%s: taken back %+v", name, r)
		}
		if now := readHost(t); !maps.Equal(now, before) {
			t.Errorf("%s: taken back: %v, want %v", name, now, before)
		}
		if r := tuneJSON(t, people.tunes("tune-host", "--status", "--json")); r.Recorded {
			t.Errorf("%s: recorded still: %+v", name, r)
		}
	}
	noHelper(t)
}

// fromAnotherMachine runs a command of root's on a machine that has another name
// and does not see the records of this one; the engine is this one's.
func fromAnotherMachine(t *testing.T, p program, args ...string) string {
	t.Helper()
	const script = `hostname zeekdemo-elsewhere && mount -t tmpfs none "$0" && mount -t tmpfs none /var/lib && exec "$@"`
	cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"--uts", "--mount", "sh", "-c", script, nsenter.RecordFolder, p.path}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("from another machine: zeekdemo %v: %v\n%s%s", args, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// openCopy puts the program where everybody may run it.
func openCopy(t *testing.T, p program) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "zeekdemo-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if out, err := exec.Command("cp", p.path, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// killedTuning kills the command at different times, in the middle of its work
// by a helper as well: no helper stays, and what was changed can be taken back.
func killedTuning(t *testing.T, p program, before map[string]string) {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	half := 0
	for way, back := range map[string]string{"helper": "direct", "direct": "helper"} {
		for wait := range 3 {
			cmd := exec.CommandContext(t.Context(), p.path, "tune-host", "--reach", way)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, 10*time.Second, "it has recorded what it is about to do", func() error { return recorded(cmd) })
			time.Sleep(time.Duration(wait) * 5 * time.Millisecond) // a different point each time; any will do
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if now := readHost(t); !maps.Equal(now, before) {
				half++
			}
			p.must(t, "tune-host", "--revert", "--reach", back)
			if now := readHost(t); !maps.Equal(now, before) {
				t.Errorf("killed %s, taken back: %v, want %v", way, now, before)
			}
		}
	}
	if half == 0 {
		t.Error("it was never killed after a change")
	}
	noHelper(t)
}

// recorded returns nil once a record is on the disk, or the process has ended.
func recorded(cmd *exec.Cmd) error {
	if files, _ := filepath.Glob(nsenter.RecordFolder + "/tuning-*.json"); len(files) > 0 {
		return nil
	}
	if cmd.Process.Signal(syscall.Signal(0)) != nil {
		return nil
	}
	return errors.New("no record")
}

// keptTuned: up --tune on a stack that runs tells which sensors have to be
// restarted; restarted, they have the large buffers, and their exporters see
// them; one that is made anew is tuned by the next up.
func keptTuned(t *testing.T, p program, before map[string]string) {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	r := p.must(t, "up", "--pull", "never", "--tune")
	if !strings.Contains(r.stderr, "note: sensor zeek has to be restarted: its socket has a buffer of 0.406 MiB") {
		t.Errorf("up --tune: %s", r.stderr)
	}
	doc := tuneJSON(t, p.must(t, "tune-host", "--json", "--restart-sensors").stdout)
	if len(doc.Restarted) != 2 || len(doc.Late) != 0 {
		t.Errorf("restarted: %+v", doc)
	}
	for service, port := range map[string]uint16{"zeek": 4789, "zeek-geneve": 6081} {
		for _, size := range trueBuffers(t, service, port) {
			if size != 64<<20 { // the kernel doubles what is asked for
				t.Errorf("a socket of %s has %d bytes", service, size)
			}
		}
	}
	checkTuned(t, doc)
	eventually(t, 30*time.Second, "every service is healthy", func() error {
		if s := p.run(t, "status"); s.code != 0 || !strings.Contains(s.stdout, "way: tuned\n") {
			return errors.New(s.stdout + s.stderr)
		}
		return nil
	})
	docker(t, "rm", "-f", "zeekdemo-zeek-1")
	if r := p.must(t, "up", "--pull", "never"); !strings.Contains(r.stderr, "Tuned new sensors as before: 1 setting changed") {
		t.Errorf("up: %s", r.stderr)
	}
	checkTuned(t, doc)
	p.must(t, "tune-host", "--revert")
	if now := readHost(t); !maps.Equal(now, before) {
		t.Errorf("taken back: %v, want %v", now, before)
	}
}
