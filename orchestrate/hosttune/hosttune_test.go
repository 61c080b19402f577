package hosttune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

const testBoot = "6d1b7a1e-0000-4000-8000-00000000b007"

// untuned is a machine with two processors and one sensor, process 42. The
// interface on its monitoring network is eth1.
func untuned() map[string]string {
	return map[string]string{
		bootID:                                        testBoot + "\n",
		"/proc/uptime":                                "1000.00 1.00\n",
		"/proc/42/stat":                               "42 (zeek) (x) S " + strings.Repeat("1 ", 18) + "50000 1\n",
		"/proc/sys/net/core/rmem_max":                 "212992\n",
		"/proc/sys/net/core/rmem_default":             "212992\n",
		"/proc/sys/net/core/wmem_max":                 "67108864\n", // higher than wanted
		"/proc/sys/net/core/wmem_default":             "212992\n",
		"/proc/sys/net/core/netdev_max_backlog":       "1000\n",
		cpuOnline:                                     "0-1\n",
		"/sys/class/net/lo/ifindex":                   "1\n",
		"/sys/class/net/ens5/ifindex":                 "2\n",
		"/sys/class/net/lo/queues/rx-0/rps_cpus":      "0\n",
		"/ethtool/ens5/rx-gro":                        "on\n",
		"/ethtool/ens5/rx-gro-hw":                     "on [fixed]\n",
		"/ethtool/ens5/tx-tcp-segmentation":           "off\n",
		"/42/proc/net/route":                          route,
		"/42/sys/class/net/eth0/queues/rx-0/rps_cpus": "0\n",
		"/42/sys/class/net/eth1/queues/rx-0/rps_cpus": "0\n",
	}
}

const route = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth1	00000000	010016AC	0003	0	0	0	00000000	0	0	0
eth0	000017AC	00000000	0001	0	0	0	0000FFFF	0	0	0
eth1	000016AC	00000000	0001	0	0	0	0000FFFF	0	0	0
`

var sensor = Place{Name: "zeek", Container: "c1", Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Namespace: nsenter.Namespace{PID: 42},
	Address: netip.MustParseAddr("172.22.0.3"), Port: 4789}

// setup is a machine, its files, and a store.
type setup struct {
	root string
	Machine
	store Records // on the machine
	own   Store   // with the client
}

func newSetup(t *testing.T, files map[string]string) setup {
	t.Helper()
	s := setupIn(t.TempDir(), t.TempDir())
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(s.root+name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.root+name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func setupIn(root, client string) setup {
	s := setup{root: root, Machine: nsenter.Tree(root), own: Store{Dir: client}}
	s.store = &machineRecords{machine: s.Machine, client: s.own}
	return s
}

// values returns what all the files but records hold now, without line breaks.
func (s setup) values(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Type() == fs.ModeSymlink || strings.HasPrefix(path, s.root+nsenter.RecordFolder) {
			return err
		}
		data, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, s.root)] = value(string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// write makes somebody else change a value.
func (s setup) write(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(s.root+path, []byte(value+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tune applies what there is to apply, by the machine given, and returns how
// many values changed.
func (s setup) tune(t *testing.T, m Machine, records Records, interfaces ...string) (int, error) {
	t.Helper()
	p, err := NewPlan(t.Context(), s, []Place{sensor}, interfaces)
	if err != nil {
		t.Fatal(err)
	}
	session, err := NewSession(t.Context(), m, records, p.Boot, "engine", interfaces)
	if err != nil {
		t.Fatal(err)
	}
	session.Running([]Place{sensor})
	changed, err := session.Apply(t.Context(), p)
	return len(changed), err
}

// revert takes everything back that is recorded and returns the fates by path.
func (s setup) revert(t *testing.T, sensors ...Place) map[string]Fate {
	t.Helper()
	r, err := s.store.Load(t.Context(), testBoot)
	if err != nil {
		t.Fatal(err)
	}
	list, err := NewUndo(t.Context(), s, r, sensors)
	if err != nil {
		t.Fatal(err)
	}
	if err := Revert(t.Context(), s, s.store, r, list); err != nil {
		t.Fatal(err)
	}
	fates := map[string]Fate{}
	for _, u := range list {
		fates[u.Path] = u.Fate
	}
	return fates
}

// What is wanted of the machine above; the rest stays.
var tuned = map[string]string{
	"/proc/sys/net/core/rmem_max":                 "33554432",
	"/proc/sys/net/core/rmem_default":             "33554432",
	"/proc/sys/net/core/wmem_default":             "33554432",
	"/proc/sys/net/core/netdev_max_backlog":       "10000",
	"/sys/class/net/lo/queues/rx-0/rps_cpus":      "3",
	"/ethtool/ens5/rx-gro":                        "off",
	"/42/sys/class/net/eth1/queues/rx-0/rps_cpus": "3",
}

func TestApplyTwiceAndTakeBack(t *testing.T) {
	s := newSetup(t, untuned())
	before := s.values(t)
	want := maps.Clone(before)
	maps.Copy(want, tuned)
	for run, changes := range []int{len(tuned), 0, 0} {
		if n, err := s.tune(t, s, s.store, "ens5"); err != nil || n != changes {
			t.Fatalf("run %d: %d changes, %v, want %d", run, n, err, changes)
		}
		if got := s.values(t); !maps.Equal(got, want) {
			t.Fatalf("run %d: got %v, want %v", run, got, want)
		}
	}
	for _, fate := range s.revert(t, sensor) {
		if fate != Restore {
			t.Errorf("a value is not restored: %s", fate)
		}
	}
	if got := s.values(t); !maps.Equal(got, before) {
		t.Errorf("got %v, want %v", got, before)
	}
	if r, err := s.store.Load(t.Context(), testBoot); err != nil || len(r.Entries)+len(r.Interfaces) > 0 {
		t.Errorf("something is recorded still: %v, %v", r, err)
	}
	if files, _ := filepath.Glob(s.root + nsenter.RecordFolder + "/*.json*"); len(files) > 0 {
		t.Errorf("a record is left: %v", files)
	}
	if fates := s.revert(t, sensor); len(fates) > 0 {
		t.Errorf("a second time: %v", fates)
	}
}

// faulty is a machine that fails or dies at a certain write, and a store that
// counts as a write as well.
type faulty struct {
	setup
	at    int  // the write at which it happens, from 0 on; before that one is done
	after bool // or after it
	dies  bool // the process is killed: nothing runs any more
	stays bool // every later write fails as well
	count int
}

type killed struct{}

func (f *faulty) step(do func() error) error {
	n := f.count
	f.count++
	hit := n == f.at || f.stays && n > f.at
	if !hit || f.after {
		if err := do(); err != nil || !hit {
			return err
		}
	}
	if f.dies {
		panic(killed{})
	}
	return errors.New("the kernel does not want to")
}

func (f *faulty) Write(ctx context.Context, ns nsenter.Namespace, path, value string) error {
	return f.step(func() error { return f.Machine.Write(ctx, ns, path, value) })
}

func (f *faulty) Load(ctx context.Context, boot string) (Record, error) {
	return f.store.Load(ctx, boot)
}

func (f *faulty) Save(ctx context.Context, r Record) error {
	return f.step(func() error { return f.store.Save(ctx, r) })
}

func (f *faulty) File(boot string) string { return f.store.File(boot) }

// run calls fn and reports whether it was killed.
func (f *faulty) run(fn func()) (wasKilled bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
			wasKilled = true
		}
	}()
	fn()
	return false
}

// Killed at any point of tuning, of tuning again after somebody's change, or of
// taking back: taking back afterwards restores everything.
func TestKilledBetweenAnyTwoWrites(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 0; ; at++ {
			s := newSetup(t, untuned())
			before := s.values(t)
			f := &faulty{setup: s, at: at, after: after, dies: true}
			hit := f.run(func() { _, _ = s.tune(t, f, f, "ens5") })
			fates := s.revert(t, sensor)
			if got := s.values(t); !maps.Equal(got, before) {
				t.Fatalf("killed at write %d (after: %v): taken back %v, got %v", at, after, fates, got)
			}
			if !hit {
				if at < len(tuned)+1 {
					t.Fatalf("only %d writes were seen", at)
				}
				break
			}
			// And killed while taking back.
			if _, err := s.tune(t, s, s.store, "ens5"); err != nil {
				t.Fatal(err)
			}
			r, _ := s.store.Load(t.Context(), testBoot)
			f = &faulty{setup: s, at: at, after: after, dies: true}
			f.run(func() {
				list, err := NewUndo(t.Context(), f, r, []Place{sensor})
				if err == nil {
					_ = Revert(t.Context(), f, f, r, list)
				}
			})
			s.revert(t, sensor)
			if got := s.values(t); !maps.Equal(got, before) {
				t.Fatalf("killed at write %d (after: %v) of taking back: got %v", at, after, got)
			}
		}
	}
}

// The same with a process that is really killed, by itself after a write.
func TestKilledForReal(t *testing.T) {
	if dirs := os.Getenv("ZEEKDEMO_TUNE_CHILD"); dirs != "" {
		root, dir, _ := strings.Cut(dirs, ":")
		s := setupIn(root, dir)
		_, _ = s.tune(t, mortal{s}, s.store, "ens5")
		t.Fatal("it goes on")
	}
	s := newSetup(t, untuned())
	before := s.values(t)
	child := exec.Command(os.Args[0], "-test.run=^TestKilledForReal$")
	child.Env = append(os.Environ(), "ZEEKDEMO_TUNE_CHILD="+s.root+":"+s.own.Dir)
	if out, err := child.CombinedOutput(); err == nil || strings.Contains(string(out), "FAIL") {
		t.Fatalf("it was not killed: %v\n%s", err, out)
	}
	if got := s.values(t); got["/proc/sys/net/core/rmem_default"] != "33554432" || got["/proc/sys/net/core/netdev_max_backlog"] != "1000" {
		t.Fatalf("it was not killed half-way: %v", got)
	}
	s.revert(t, sensor)
	if got := s.values(t); !maps.Equal(got, before) {
		t.Errorf("got %v, want %v", got, before)
	}
}

// mortal is a machine whose process ends without a word after the second value.
type mortal struct{ setup }

func (s mortal) Write(ctx context.Context, ns nsenter.Namespace, path, value string) error {
	err := s.Machine.Write(ctx, ns, path, value)
	if strings.HasSuffix(path, "rmem_default") {
		self, _ := os.FindProcess(os.Getpid())
		_ = self.Kill()
		select {}
	}
	return err
}

// A value that cannot be set takes back those of this call, and no others.
func TestFailureRollsBackThisCall(t *testing.T) {
	for at := 0; ; at++ {
		s := newSetup(t, untuned())
		if _, err := s.tune(t, s, s.store); err != nil {
			t.Fatal(err)
		}
		s.write(t, "/sys/class/net/lo/queues/rx-0/rps_cpus", "1") // somebody else
		s.write(t, "/proc/sys/net/core/netdev_max_backlog", "2000")
		before := s.values(t)
		record, _ := s.store.Load(t.Context(), testBoot)
		f := &faulty{setup: s, at: at, after: at%2 == 1}
		_, err := s.tune(t, f, f, "ens5")
		if err == nil {
			if at < 4 { // the record and three values
				t.Fatalf("write %d did not fail", at)
			}
			return
		}
		if got := s.values(t); !maps.Equal(got, before) {
			t.Fatalf("failed at write %d with %q: got %v, want %v", at, err, got, before)
		}
		if got, _ := s.store.Load(t.Context(), testBoot); fmt.Sprint(got) != fmt.Sprint(record) {
			t.Fatalf("failed at write %d: recorded %v, want %v", at, got, record)
		}
	}
}

// Where not even the way back works, it stays recorded and is said.
func TestFailureToRollBackStaysRecorded(t *testing.T) {
	s := newSetup(t, untuned())
	before := s.values(t)
	f := &faulty{setup: s, at: 3, stays: true}
	_, err := s.tune(t, f, f, "ens5")
	if err == nil || !strings.Contains(err.Error(), "take back net.core.") || !strings.Contains(err.Error(), "--revert` tries again") {
		t.Errorf("got %v", err)
	}
	if fates := s.revert(t, sensor); fates["/proc/sys/net/core/rmem_max"] != Restore || fates["/ethtool/ens5/rx-gro"] != Already {
		t.Errorf("taken back: %v", fates)
	}
	if got := s.values(t); !maps.Equal(got, before) {
		t.Errorf("got %v, want %v", got, before)
	}
}

func TestInterruptedIsTakenBack(t *testing.T) {
	s := newSetup(t, untuned())
	before := s.values(t)
	ctx, cancel := context.WithCancel(t.Context())
	p, err := NewPlan(ctx, s, []Place{sensor}, nil)
	if err != nil {
		t.Fatal(err)
	}
	session, err := NewSession(t.Context(), interrupter{s, cancel}, s.store, p.Boot, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Apply(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := s.values(t); !maps.Equal(got, before) {
		t.Errorf("got %v, want %v", got, before)
	}
}

// interrupter is a machine on which the user interrupts after the first write.
type interrupter struct {
	setup
	cancel func()
}

func (i interrupter) Write(ctx context.Context, ns nsenter.Namespace, path, value string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	defer i.cancel()
	return i.Machine.Write(ctx, ns, path, value)
}

func TestSomebodyElsesChangeSurvives(t *testing.T) {
	s := newSetup(t, untuned())
	before := s.values(t)
	if _, err := s.tune(t, s, s.store); err != nil {
		t.Fatal(err)
	}
	s.write(t, "/proc/sys/net/core/rmem_max", "50000000")            // higher
	s.write(t, "/proc/sys/net/core/rmem_default", "300000")          // lower
	s.write(t, "/proc/sys/net/core/wmem_default", "212992")          // back
	s.write(t, "/sys/class/net/lo/queues/rx-0/rps_cpus", "00000003") // the same, printed otherwise
	fates := s.revert(t, sensor)
	want := map[string]Fate{
		"/proc/sys/net/core/rmem_max": Foreign, "/proc/sys/net/core/rmem_default": Foreign, "/proc/sys/net/core/wmem_default": Already,
		"/proc/sys/net/core/netdev_max_backlog": Restore, "/sys/class/net/lo/queues/rx-0/rps_cpus": Restore,
		"/sys/class/net/eth1/queues/rx-0/rps_cpus": Restore,
	}
	if !maps.Equal(fates, want) {
		t.Errorf("got %v, want %v", fates, want)
	}
	before["/proc/sys/net/core/rmem_max"], before["/proc/sys/net/core/rmem_default"] = "50000000", "300000"
	if got := s.values(t); !maps.Equal(got, before) {
		t.Errorf("got %v, want %v", got, before)
	}
}

// Tuned over somebody else's change, what is restored is theirs.
func TestTunedAgainOverSomebodyElsesChange(t *testing.T) {
	s := newSetup(t, untuned())
	for range 2 {
		if _, err := s.tune(t, s, s.store); err != nil {
			t.Fatal(err)
		}
		s.write(t, "/proc/sys/net/core/rmem_max", "300000")
	}
	if n, err := s.tune(t, s, s.store); err != nil || n != 1 {
		t.Fatalf("%d changes, %v", n, err)
	}
	s.revert(t, sensor)
	if got := s.values(t)["/proc/sys/net/core/rmem_max"]; got != "300000" {
		t.Errorf("restored %s", got)
	}
}

// A sensor that was restarted, even with the same process number, has another
// namespace: nothing of the old one is restored in it, and it is forgotten.
func TestRestartedSensor(t *testing.T) {
	s := newSetup(t, untuned())
	if _, err := s.tune(t, s, s.store); err != nil {
		t.Fatal(err)
	}
	again := sensor
	again.Started = sensor.Started.Add(time.Hour)
	s.write(t, "/42/sys/class/net/eth1/queues/rx-0/rps_cpus", "3") // somebody else's, there
	r, _ := s.store.Load(t.Context(), testBoot)
	if !r.Covers(sensor) || r.Covers(again) {
		t.Error("the record does not tell the two apart")
	}
	session, err := NewSession(t.Context(), s, s.store, testBoot, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if session.Running([]Place{again}); session.Record().Covers(sensor) {
		t.Error("the old one is not forgotten")
	}
	if fate := s.revert(t, again)["/sys/class/net/eth1/queues/rx-0/rps_cpus"]; fate != Gone {
		t.Errorf("got %s", fate)
	}
	if got := s.values(t)["/42/sys/class/net/eth1/queues/rx-0/rps_cpus"]; got != "3" {
		t.Errorf("got %s", got)
	}
}

func TestStatus(t *testing.T) {
	s := newSetup(t, untuned())
	look := func() (Status, map[string]State) {
		t.Helper()
		st, err := Look(t.Context(), s, s.own, []Place{sensor})
		if err != nil {
			t.Fatal(err)
		}
		states := map[string]State{}
		for _, l := range st.Lines {
			states[l.Setting+" "+l.Where] = l.State
		}
		return st, states
	}
	st, states := look()
	if st.Tuned || st.Recorded || st.Summary() != "6 of 7 settings are not as wanted" || states["net.core.wmem_max host"] != Fine ||
		states["net.core.rmem_max host"] != Wants || st.In("zeek") || st.In(Host) {
		t.Errorf("untuned: %q %v", st.Summary(), states)
	}
	if _, err := s.tune(t, s, s.store, "ens5"); err != nil {
		t.Fatal(err)
	}
	st, states = look()
	if !st.Tuned || !st.Recorded || st.Summary() != "tuned" || states["net.core.rmem_max host"] != Tuned || states["rx-gro of ens5 host"] != Tuned || !st.In("zeek") {
		t.Errorf("tuned: %q %v", st.Summary(), states)
	}
	s.write(t, "/proc/sys/net/core/rmem_max", "300000")
	st, states = look()
	if st.Tuned || states["net.core.rmem_max host"] != Drift || st.Count(Drift, "") != 1 || st.In(Host) || !st.In("zeek") {
		t.Errorf("drifted: %q %v", st.Summary(), states)
	}
}

func TestPlansThatCannotBe(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(files map[string]string)
		device string
		want   string
	}{
		"another namespace's settings": {func(f map[string]string) { delete(f, "/proc/sys/net/core/rmem_max") }, "", "net.core.rmem_max: it is not there"},
		"no boot ID":                   {func(f map[string]string) { delete(f, bootID) }, "", "no boot ID"},
		"processors that are none":     {func(f map[string]string) { f[cpuOnline] = "all" }, "", `list of processors "all"`},
		"no such interface":            {func(map[string]string) {}, "eth7", "interface eth7: the engine's machine has none of that name, but ens5, lo"},
		"an interface without":         {func(map[string]string) {}, "lo", "interface lo: its offloads cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			files := untuned()
			tt.change(files)
			var devices []string
			if tt.device != "" {
				devices = []string{tt.device}
			}
			if _, err := NewPlan(t.Context(), newSetup(t, files), nil, devices); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// What a machine has not, or a sensor has not any more, is noted; the rest is
// planned.
func TestPlansWithNotes(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(files map[string]string)
		note   string
		items  int
	}{
		"one processor":            {func(f map[string]string) { f[cpuOnline] = "0" }, "one processor", 5},
		"a kernel without RPS":     {func(f map[string]string) { delete(f, "/sys/class/net/lo/queues/rx-0/rps_cpus") }, "lo of the host has no rps_cpus", 6},
		"a sensor elsewhere":       {func(f map[string]string) { f["/42/proc/net/route"] = "" }, "zeek has no interface with the address 172.22.0.3", 6},
		"a route that is no route": {func(f map[string]string) { f["/42/proc/net/route"] = "eth1 x 00000000 1 2 3 4 y\neth1\n" }, "zeek has no interface", 6},
	} {
		t.Run(name, func(t *testing.T) {
			files := untuned()
			tt.change(files)
			p, err := NewPlan(t.Context(), newSetup(t, files), []Place{sensor}, nil)
			if err != nil || len(p.Items) != tt.items || !slices.ContainsFunc(p.Notes, func(n string) bool { return strings.HasPrefix(n, tt.note) }) {
				t.Errorf("got %d items, notes %q, %v", len(p.Items), p.Notes, err)
			}
		})
	}
}

func TestInterfaceByItsAddress(t *testing.T) {
	const wide = "tun0	000010AC	00000000	0001	0	0	0	0000F0FF	0	0	0\n" // 172.16.0.0/12, which holds the others
	files := map[string]string{"/proc/net/route": wide + route, "/proc/net/if_inet6": `fd00000000000000000000000000000a 17 40 00 80     eth2
fe80000000000000001122fffe334455 17 40 20 80     eth2
00000000000000000000000000000001 01 80 10 80       lo
`}
	for address, want := range map[string]string{"172.22.0.3": "eth1", "172.23.9.1": "eth0", "172.24.0.1": "tun0", "10.0.0.1": "", "fd00::a": "eth2", "fd00::b": ""} {
		if got := deviceOf(files, netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: got %q, want %q", address, got, want)
		}
	}
}

func TestLateSensors(t *testing.T) {
	s := newSetup(t, untuned())
	buffers := func(bytes int, known bool) SocketBuffer {
		return func(_ Place, proxy bool) (int, bool) {
			if proxy && known {
				return 32 << 20, true
			}
			return bytes, known
		}
	}
	late := func(ask SocketBuffer) string {
		t.Helper()
		r, err := s.store.Load(t.Context(), testBoot)
		if err != nil {
			t.Fatal(err)
		}
		list, err := LateSensors(t.Context(), s, r, []Place{sensor}, ask)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			return ""
		}
		return list[0].Name + ": " + list[0].Reason
	}
	if got := late(buffers(0, false)); got != "" {
		t.Errorf("nothing was tuned: %s", got)
	}
	if got := late(buffers(425984, true)); got != "" {
		t.Errorf("nothing was tuned, so a new socket would not get more: %s", got)
	}
	if _, err := s.tune(t, s, s.store); err != nil {
		t.Fatal(err)
	}
	if got := late(buffers(425984, true)); got != "zeek: its socket has a buffer of 0.406 MiB, a new one gets 64 MiB" {
		t.Errorf("got %s", got)
	}
	if got := late(buffers(64<<20, true)); got != "" {
		t.Errorf("its socket is large: %s", got)
	}
	proxied := func(_ Place, proxy bool) (int, bool) { return map[bool]int{false: 64 << 20, true: 212992}[proxy], true }
	if got := late(proxied); got != "zeek: docker-proxy's socket for it has a buffer of 0.203 MiB, a new one gets 32 MiB" {
		t.Errorf("got %s", got)
	}
	if got := late(buffers(0, false)); got != "zeek: it was started before net.core.rmem_max was raised" { // at 500 s; tuned at 1000 s
		t.Errorf("got %s", got)
	}
	s.write(t, "/proc/42/stat", "42 (zeek) (x) S "+strings.Repeat("1 ", 18)+"100100 1")
	if got := late(buffers(0, false)); got != "" {
		t.Errorf("it was started later: %s", got)
	}
	if err := os.Remove(s.root + "/proc/42/stat"); err != nil {
		t.Fatal(err)
	}
	if got := late(buffers(0, false)); got != "" {
		t.Errorf("it has ended: %s", got)
	}
}
