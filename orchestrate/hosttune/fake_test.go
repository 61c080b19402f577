package hosttune

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
	"github.com/zeekdemo/zeekdemo/testdata/testenv/fakehelper"
)

var _ orchestrate.HelperEngine = (*fakeEngine)(nil)

type helpers = fakehelper.Engine

// fakeEngine runs on the machine of a scene. Its helpers run the real script on
// the copies of the kernel's files.
type fakeEngine struct {
	orchestrate.Engine // nil: the rest is not asked for
	*helpers
	root       string
	list       []orchestrate.Container
	infoErr    error
	listErr    error
	hostErr    error
	restartErr error
	folderErr  error
	images     []string // of the helpers that were made
	programs   []string
	// onExec is called before a command runs in a container.
	onExec func()
	// restarted is what a sensor is after it was restarted.
	restarted orchestrate.Container
}

func (e *fakeEngine) Info(context.Context) (orchestrate.EngineInfo, error) {
	return orchestrate.EngineInfo{OS: "linux", Arch: "riscv64"}, e.infoErr
}

func (e *fakeEngine) Containers(context.Context, string) ([]orchestrate.Container, error) {
	return e.list, e.listErr
}

// Host describes a machine that is not this one.
func (e *fakeEngine) Host(ctx context.Context) (orchestrate.EngineHost, error) {
	if e.hostErr != nil {
		return orchestrate.EngineHost{}, e.hostErr
	}
	return e.helpers.Host(ctx)
}

func (e *fakeEngine) MachineFolder(ctx context.Context, folder string) (map[string]string, error) {
	if e.folderErr != nil {
		return nil, e.folderErr
	}
	return e.helpers.MachineFolder(ctx, folder)
}

func (e *fakeEngine) CreateCompanion(ctx context.Context, spec orchestrate.CompanionSpec) (string, error) {
	if helper, ok := spec.(orchestrate.HelperSpec); ok {
		e.images, e.programs = append(e.images, helper.Image), append(e.programs, helper.Program)
	}
	return e.helpers.CreateCompanion(ctx, spec)
}

func (e *fakeEngine) Exec(ctx context.Context, id string, cmd []string, stdout, _ io.Writer) (int, error) {
	if e.onExec != nil {
		e.onExec()
	}
	for _, c := range e.list {
		if c.ID == id && fakehelper.Look(ctx, e.root, c.PID, cmd, stdout) {
			return 0, nil
		}
	}
	return 1, nil
}

func (e *fakeEngine) RestartContainer(_ context.Context, id string) error {
	if e.restartErr != nil {
		return e.restartErr
	}
	for i, c := range e.list {
		if c.ID == id {
			e.list[i] = e.restarted
		}
	}
	return nil
}

// zeek is the container of the sensor, or another one of the same name: what a
// restart makes of it.
func zeek(pid int, started time.Time) orchestrate.Container {
	return orchestrate.Container{ID: "c1", Service: "zeek", Image: "zeek:here", State: "running", PID: pid, StartedAt: started,
		Addresses: map[string]netip.Addr{orchestrate.MonitoringNetwork: sensor.Address}}
}

// scene is an untuned machine with an engine and one sensor. Its process is 42;
// restarted, it is 43, in another namespace.
type scene struct {
	setup
	engine *fakeEngine
	tuner  *Tuner
	before map[string]string // what all files hold
	events []string          // the steps that were told
	closed int
}

func newScene(t *testing.T) *scene {
	t.Helper()
	files := untuned()
	files["/43/proc/net/route"] = route
	files["/43/proc/net/udp"] = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n" +
		"    1: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0\n"
	files["/43/sys/class/net/eth1/queues/rx-0/rps_cpus"] = "0\n"
	files["/proc/43/stat"] = "43 (zeek) S " + strings.Repeat("1 ", 18) + "200000 1\n"
	files["/proc/1/stat"] = "1 (init) S\n"
	files["/proc/net/route"] = "\n"
	s := &scene{setup: newSetup(t, files)}
	if err := os.MkdirAll(s.root+"/etc/sysctl.d", 0o755); err != nil {
		t.Fatal(err)
	}
	s.engine = &fakeEngine{helpers: &helpers{Root: s.root, Work: t.TempDir()}, root: s.root,
		list: []orchestrate.Container{zeek(42, sensor.Started)}, restarted: zeek(43, sensor.Started.Add(time.Hour))}
	s.before = s.values(t)
	s.tuner = &Tuner{Engine: s.engine, EngineID: "fake", Machine: s.machine(), Way: nsenter.Helper, Store: s.own, Sensors: Sensors(s.engine.list),
		Observer: Observer{Progress: func(e orchestrate.Event) { s.events = append(s.events, e.ID+": "+e.Text) }}}
	return s
}

// byHelper lets the scene be reached by a helper container. The engine's host is
// another machine, so that it makes no difference who runs the test.
func (s *scene) byHelper(t *testing.T) Options {
	t.Helper()
	for _, err := range []error{os.Symlink("../..", s.root+"/proc/1/root"), fakehelper.Link(s.root, "42", "43")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return Options{Store: s.own}
}

// machine is the scene's, to be replaced by one that has faults.
func (s *scene) machine() *hooked { return &hooked{Machine: nsenter.Tree(s.root), scene: s} }

// hooked is a machine to whose operations something happens before they are
// done. Like a real one it does nothing once ctx is done.
type hooked struct {
	nsenter.Machine
	scene *scene
	// hook is told each operation: "read" or "write", and the paths.
	hook func(operation string, paths ...string) error
	told *string // the operation that the hook let fail; nil where nobody wants to know
}

func (h *hooked) before(ctx context.Context, operation string, paths ...string) error {
	if h.hook != nil {
		if err := h.hook(operation, paths...); err != nil {
			if h.told != nil {
				*h.told = operation
			}
			return err
		}
	}
	return ctx.Err()
}

func (h *hooked) Read(ctx context.Context, ns nsenter.Namespace, paths ...string) (map[string]string, error) {
	if err := h.before(ctx, "read", paths...); err != nil {
		return nil, err
	}
	return h.Machine.Read(ctx, ns, paths...)
}

func (h *hooked) Write(ctx context.Context, ns nsenter.Namespace, path, value string) error {
	if err := h.before(ctx, "write", path); err != nil {
		return err
	}
	return h.Machine.Write(ctx, ns, path, value)
}

func (h *hooked) Close() error {
	h.scene.closed++
	return nil
}

var errFault = errors.New("the kernel does not want to")

// at makes the operation of a number, from 0 on, do something first, and
// returns how many there were by then.
func (s *scene) at(number int, do func() error) (seen *int) {
	h, n := s.machine(), 0
	h.hook = func(string, ...string) error {
		n++
		if n == number+1 {
			return do()
		}
		return nil
	}
	s.tuner.Machine = h
	return &n
}

// whole says that nothing of a tuning is left, on the machine and on the disk.
func (s *scene) whole(t *testing.T, when string) {
	t.Helper()
	if changed := changes(s.before, s.values(t)); len(changed) > 0 {
		t.Errorf("%s: changed are %v", when, changed)
	}
	if r, err := s.store.Load(t.Context(), testBoot); err != nil || len(r.Entries) > 0 {
		t.Errorf("%s: recorded still: %v, %v", when, r, err)
	}
}

// changes names the files that hold something else, are new or are gone.
func changes(before, after map[string]string) (files []string) {
	all := maps.Clone(before)
	maps.Copy(all, after)
	for _, file := range slices.Sorted(maps.Keys(all)) {
		old, was := before[file]
		if now, is := after[file]; was != is || old != now {
			files = append(files, file)
		}
	}
	return files
}

// value is what one file holds now.
func (s *scene) value(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.root, path))
	if err != nil {
		t.Fatal(err)
	}
	return value(string(data))
}

// hint is the advice that an error carries.
func hint(err error) string {
	var has interface{ Hint() string }
	if errors.As(err, &has) {
		return has.Hint()
	}
	return ""
}

// settings names items: "SETTING of the PLACE".
func settings(items []Item) string {
	var names []string
	for _, i := range items {
		names = append(names, fmt.Sprint(i))
	}
	return strings.Join(names, ", ")
}

// anotherTunes holds the lock until the test ends.
func anotherTunes(t *testing.T, s *scene) {
	unlock, err := nsenter.Tree(s.root).Lock(t.Context(), nsenter.RecordFolder+"/"+lockName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
}

// recordFile is where the record is; its folder is there.
func (s *scene) recordFile(t *testing.T) string {
	t.Helper()
	if err := os.MkdirAll(s.root+nsenter.RecordFolder, 0o755); err != nil {
		t.Fatal(err)
	}
	return s.root + s.store.File(testBoot)
}

// unreadableRecord is one that was cut.
func unreadableRecord(t *testing.T, s *scene) {
	if err := os.WriteFile(s.recordFile(t), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// unwritableRecord lets no record be written: between its reading and its
// writing, where a tuning asks for the time and a revert for the configuration, a
// folder takes its place.
func unwritableRecord(t *testing.T, s *scene) {
	file := s.recordFile(t)
	h := s.machine()
	h.hook = func(_ string, paths ...string) error {
		if _, err := os.Stat(file); paths[0] != "/proc/uptime" && (paths[0] != PersistFile || err != nil) {
			return nil
		}
		return errors.Join(os.RemoveAll(file), os.MkdirAll(filepath.Join(file, "occupied"), 0o755))
	}
	s.tuner.Machine = h
}
