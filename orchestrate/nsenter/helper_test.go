package nsenter_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
	"github.com/zeekdemo/zeekdemo/testdata/testenv/fakehelper"
)

// engine is one with a stack, on the machine that it says.
type engine struct {
	*fakehelper.Engine
	host       orchestrate.EngineHost
	containers []orchestrate.Container
	gone       error
	inside     string // what is printed in a container
}

func (e engine) Info(context.Context) (orchestrate.EngineInfo, error) {
	return orchestrate.EngineInfo{}, e.gone
}

func (e engine) Host(context.Context) (orchestrate.EngineHost, error) { return e.host, e.gone }

func (e engine) Containers(context.Context, string) ([]orchestrate.Container, error) {
	return e.containers, e.gone
}

func (e engine) Exec(_ context.Context, id string, cmd []string, stdout, _ io.Writer) (int, error) {
	if e.inside == "" {
		return 127, nil
	}
	_, err := fmt.Fprintf(stdout, e.inside, cmd[4], id)
	return 0, err
}

func (engine) Up(context.Context, orchestrate.Project, orchestrate.Progress) error { return nil }

func (engine) Down(context.Context, string, bool, orchestrate.Progress) error { return nil }

func (engine) Logs(context.Context, orchestrate.LogRequest) error { return nil }

// helper opens the way by a helper of that engine.
func helper(t *testing.T, e *fakehelper.Engine) (nsenter.Machine, error) {
	t.Helper()
	m, _, err := nsenter.Open(t.Context(), engine{Engine: e}, nsenter.Options{Way: nsenter.Helper, Image: "any"})
	return m, err
}

// files are the copies that both ways read in these tests; process 42 is in a
// namespace of its own.
var files = map[string]string{
	"/proc/sys/net/core/rmem_max":                       "212992\n",
	"/proc/uptime":                                      "10.00 20.00\n",
	"/proc/net/route":                                   "Iface\tDestination\n\nlast line",
	"/proc/empty":                                       "",
	"/sys/class/net/lo/queues/rx-0/rps_cpus":            "0\n",
	"/etc/sysctl.d/10-other.conf":                       "a = 1\n",
	"/etc/sysctl.d/.zeekdemo-killed.new":                "half of o",
	"/42/proc/net/route":                                "Iface of the container\n",
	"/42/sys/class/net/eth0/queues/rx-0/rps_cpus":       "00000000,00000000\n",
	"/42/sys/class/net/eth0/queues/rx-1/rps_cpus":       "0\n",
	"/42/sys/class/net/with space/queues/rx-0/rps_cpus": "1\n",
}

func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(root+name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(root+"/proc/1", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fakehelper.Link(root, "42"), os.Symlink("../..", root+"/proc/1/root")); err != nil {
		t.Fatal(err)
	}
	return root
}

// shells are those of the images that a helper is made of: Debian's, and the
// one of busybox; bash keeps the script honest.
func shells() [][]string { return [][]string{{"dash"}, {"busybox", "sh"}, {"bash", "--posix"}} }

// ways calls fn for each way to a machine, each on its own copies.
func ways(t *testing.T, fn func(t *testing.T, m nsenter.Machine, root string)) {
	t.Run("tree", func(t *testing.T) {
		root := tree(t)
		fn(t, nsenter.Tree(root), root)
	})
	for _, shell := range shells() {
		t.Run(shell[0], func(t *testing.T) {
			if _, err := exec.LookPath(shell[0]); err != nil {
				t.Skipf("SKIPPED: no %s", shell[0])
			}
			root := tree(t)
			e := &fakehelper.Engine{Root: root, Work: t.TempDir(), Shell: shell}
			m, err := helper(t, e)
			if err != nil {
				t.Fatal(err)
			}
			fn(t, m, root)
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if left, _ := e.Companions(t.Context(), orchestrate.HelperKind); len(left) > 0 {
				t.Errorf("a helper is left: %v", left)
			}
			if mounts := e.Remounts(); mounts != "" {
				t.Errorf("something was remounted though nothing was read-only: %s", mounts)
			}
		})
	}
}

func TestBothWaysReadTheSame(t *testing.T) {
	for _, tt := range []struct {
		name     string
		ns       nsenter.Namespace
		patterns []string
		want     map[string]string
	}{
		{"a file", nsenter.Namespace{}, []string{"/proc/uptime"}, map[string]string{"/proc/uptime": "10.00 20.00\n"}},
		{"content without a last line break, and an empty file", nsenter.Namespace{}, []string{"/proc/net/route", "/proc/empty"},
			map[string]string{"/proc/net/route": "Iface\tDestination\n\nlast line", "/proc/empty": ""}},
		{"what is missing is absent", nsenter.Namespace{}, []string{"/proc/nothing", "/sys/none*/x", "/proc/sys"}, map[string]string{}},
		{"the machine's own interface", nsenter.Namespace{}, []string{"/sys/class/net/*/queues/rx-*/rps_cpus"},
			map[string]string{"/sys/class/net/lo/queues/rx-0/rps_cpus": "0\n"}},
		{"a container's interfaces", nsenter.Namespace{PID: 42}, []string{"/sys/class/net/*/queues/rx-*/rps_cpus", "/proc/net/route"},
			map[string]string{"/sys/class/net/eth0/queues/rx-0/rps_cpus": "00000000,00000000\n", "/sys/class/net/eth0/queues/rx-1/rps_cpus": "0\n",
				"/sys/class/net/with space/queues/rx-0/rps_cpus": "1\n", "/proc/net/route": "Iface of the container\n"}},
		{"nothing asked", nsenter.Namespace{}, nil, map[string]string{}},
		{"sysctl's configuration", nsenter.Namespace{}, []string{"/etc/sysctl.d/10-other.conf"}, map[string]string{"/etc/sysctl.d/10-other.conf": "a = 1\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ways(t, func(t *testing.T, m nsenter.Machine, _ string) {
				for range 2 { // the session goes on
					got, err := m.Read(t.Context(), tt.ns, tt.patterns...)
					if err != nil || !maps.Equal(got, tt.want) {
						t.Fatalf("got %q, %v, want %q", got, err, tt.want)
					}
				}
			})
		})
	}
}

func TestBothWaysWriteTheSame(t *testing.T) {
	const config = "/etc/sysctl.d/60-zeekdemo.conf"
	for _, tt := range []struct {
		name, path, value string
		ns                nsenter.Namespace
		want              map[string]string // below the root; "" for a file that must not be there
		planted           []string          // links to /etc/foreign
		is                error
	}{
		{name: "a sysctl", path: "/proc/sys/net/core/rmem_max", value: "33554432", want: map[string]string{"/proc/sys/net/core/rmem_max": "33554432"}},
		{name: "a container's interface", ns: nsenter.Namespace{PID: 42}, path: "/sys/class/net/eth0/queues/rx-1/rps_cpus", value: "ff,ffffffff",
			want: map[string]string{"/42/sys/class/net/eth0/queues/rx-1/rps_cpus": "ff,ffffffff", "/sys/class/net/lo/queues/rx-0/rps_cpus": "0\n"}},
		{name: "the machine's interface", path: "/sys/class/net/lo/queues/rx-0/rps_cpus", value: "3",
			want: map[string]string{"/sys/class/net/lo/queues/rx-0/rps_cpus": "3"}},
		{name: "nothing the shell could take for its own", path: "/proc/sys/net/core/rmem_max", value: "$(date) `id` 'x' \\n %s",
			want: map[string]string{"/proc/sys/net/core/rmem_max": "$(date) `id` 'x' \\n %s"}},
		{name: "no such file", path: "/proc/sys/net/core/none", value: "1", want: map[string]string{"/proc/sys/net/core/none": ""}, is: fs.ErrNotExist},
		{name: "no such interface", ns: nsenter.Namespace{PID: 42}, path: "/sys/class/net/eth9/queues/rx-0/rps_cpus", value: "1", is: fs.ErrNotExist},
		{name: "no such process", ns: nsenter.Namespace{PID: 43}, path: "/sys/class/net/eth0/queues/rx-0/rps_cpus", value: "1", is: fs.ErrNotExist},
		{name: "a configuration", path: config, value: "# one\nnet.a = 1\n", want: map[string]string{config: "# one\nnet.a = 1\n", config + ".new": "", "/etc/sysctl.d/.zeekdemo-killed.new": ""}},
		{name: "a configuration where others have planted links", path: config, value: "net.a = 1\n", planted: []string{config, config + ".new", "/etc/sysctl.d/.zeekdemo-x.new"},
			want: map[string]string{config: "net.a = 1\n", "/etc/foreign": "theirs"}},
		{name: "a configuration to remove", path: "/etc/sysctl.d/10-other.conf", want: map[string]string{"/etc/sysctl.d/10-other.conf": ""}},
		{name: "a configuration that is not there, to remove", path: config, want: map[string]string{config: ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ways(t, func(t *testing.T, m nsenter.Machine, root string) {
				for _, link := range tt.planted {
					if err := errors.Join(os.WriteFile(root+"/etc/foreign", []byte("theirs"), 0o600), os.Symlink(root+"/etc/foreign", root+link)); err != nil {
						t.Fatal(err)
					}
				}
				err := m.Write(t.Context(), tt.ns, tt.path, tt.value)
				if !errors.Is(err, tt.is) {
					t.Fatalf("got %v, want %v", err, tt.is)
				}
				if tt.is != nil && !strings.Contains(err.Error(), tt.path) {
					t.Errorf("%q does not name the file", err)
				}
				for name, want := range tt.want {
					got, err := os.ReadFile(root + name)
					if want == "" && !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("%s is there: %q, %v", name, got, err)
					} else if string(got) != want {
						t.Errorf("%s has %q, want %q", name, got, want)
					}
				}
			})
		})
	}
}

// A record is for everybody to read, and nobody but root and who reads it can have
// had a hand in it: what others could have written is as if it were not there, and
// nothing is written beside it.
func TestBothWaysTrustTheSameRecords(t *testing.T) {
	const record, folder = nsenter.RecordFolder + "/tuning-1.json", nsenter.RecordFolder
	for name, tt := range map[string]struct {
		change func(root string) error
		safe   bool
	}{
		"as it was written":                {func(string) error { return nil }, true},
		"others may write it":              {func(root string) error { return os.Chmod(root+record, 0o646) }, false},
		"a group may write it":             {func(root string) error { return os.Chmod(root+record, 0o664) }, false},
		"others may write into its folder": {func(root string) error { return os.Chmod(root+folder, 0o757) }, false},
		"its folder is a link": {func(root string) error {
			return errors.Join(os.Rename(root+folder, root+folder+"2"), os.Symlink(root+folder+"2", root+folder))
		}, false},
		"a link": {func(root string) error {
			return errors.Join(os.Rename(root+record, root+"/etc/record"), os.Symlink(root+"/etc/record", root+record))
		}, false},
		"another user's":        {func(root string) error { return os.Chown(root+record, 4242, -1) }, false},
		"another user's folder": {func(root string) error { return os.Chown(root+folder, 4242, -1) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			ways(t, func(t *testing.T, m nsenter.Machine, root string) {
				const text = "{\"a\": 1}\n"
				if err := m.Write(t.Context(), nsenter.Namespace{}, record, text); err != nil {
					t.Fatal(err)
				}
				for file, want := range map[string]fs.FileMode{record: 0o644, folder: 0o755} {
					if info, err := os.Stat(root + file); err != nil || info.Mode().Perm() != want {
						t.Errorf("%s: %v, %v", file, info, err)
					}
				}
				if err := tt.change(root); errors.Is(err, fs.ErrPermission) {
					t.Skip("SKIPPED: only root gives files away")
				} else if err != nil {
					t.Fatal(err)
				}
				got, err := m.Read(t.Context(), nsenter.Namespace{}, folder+"/tuning-*.json")
				if want := map[bool]map[string]string{true: {record: text}, false: {}}[tt.safe]; err != nil || !maps.Equal(got, want) {
					t.Errorf("read: %q, %v", got, err)
				}
				for _, value := range []string{"{}\n", ""} {
					err := m.Write(t.Context(), nsenter.Namespace{}, record, value)
					if (err == nil) != tt.safe || err != nil && !errors.Is(err, fs.ErrPermission) {
						t.Errorf("write %q: %v", value, err)
					}
				}
				if data, err := os.ReadFile(root + record); (string(data) == text) == tt.safe {
					t.Errorf("it is %q now, %v", data, err)
				}
			})
		})
	}
}

// However one comes to a machine, one at a time has the lock there: until it is
// released, or who has it has ended.
func TestBothWaysLockOutEachOther(t *testing.T) {
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("SKIPPED: no flock")
	}
	const lock = nsenter.RecordFolder + "/lock"
	ways(t, func(t *testing.T, m nsenter.Machine, root string) {
		other := nsenter.Tree(root)
		for range 2 {
			unlock, err := m.Lock(t.Context(), lock)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := other.Lock(t.Context(), lock); !errors.Is(err, nsenter.ErrLocked) || !strings.Contains(err.Error(), lock) {
				t.Errorf("another one: %v", err)
			}
			if err := m.Write(t.Context(), nsenter.Namespace{}, nsenter.RecordFolder+"/tuning-1.json", "{}\n"); err != nil {
				t.Errorf("write while it is locked: %v", err)
			}
			unlock()
			unlock, err = other.Lock(t.Context(), lock)
			if err != nil {
				t.Fatalf("released: %v", err)
			}
			if _, err := m.Lock(t.Context(), lock); !errors.Is(err, nsenter.ErrLocked) || !strings.Contains(err.Error(), lock) {
				t.Errorf("the other has it: %v", err)
			}
			unlock()
		}
		if err := os.Chmod(root+nsenter.RecordFolder, 0o777); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Lock(t.Context(), lock); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("in a folder of everybody's: %v", err)
		}
	})
}

func TestAHelpersLockEndsWithIt(t *testing.T) {
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("SKIPPED: no flock")
	}
	const lock = nsenter.RecordFolder + "/lock"
	e := &fakehelper.Engine{Root: tree(t), Work: t.TempDir()}
	m, err := helper(t, e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Lock(t.Context(), lock); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	unlock, err := nsenter.Tree(e.Root).Lock(t.Context(), lock)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestReadingForAProcessThatIsGone(t *testing.T) {
	e := &fakehelper.Engine{Root: tree(t), Work: t.TempDir()}
	m, err := helper(t, e)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Read(t.Context(), nsenter.Namespace{PID: 77}, "/sys/class/net/*/ifindex"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if got, err := m.Read(t.Context(), nsenter.Namespace{}, "/proc/uptime"); err != nil || len(got) != 1 {
		t.Errorf("the helper does not go on: %v, %v", got, err)
	}
}

func TestAHelperThatEndsIsAnErrorAtOnce(t *testing.T) {
	e := &fakehelper.Engine{Root: tree(t), Work: t.TempDir()}
	m, err := helper(t, e)
	if err != nil {
		t.Fatal(err)
	}
	list, _ := e.Companions(t.Context(), orchestrate.HelperKind)
	if err := e.RemoveCompanion(t.Context(), list[0].ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := m.Read(t.Context(), nsenter.Namespace{}, "/proc/uptime"); err == nil || !strings.Contains(err.Error(), "the helper container ended") {
			t.Errorf("got %v", err)
		}
	}
	_ = m.Close() // it has ended
}

func TestAHelperThatMayNotMountSaysSo(t *testing.T) {
	e := &fakehelper.Engine{Root: tree(t), Work: t.TempDir(),
		Shell: []string{"sh", "-c", `echo "mount: permission denied (are you root?)" >&2; exit 1`}}
	_, err := helper(t, e)
	var advice interface{ Hint() string }
	if !errors.Is(err, fs.ErrPermission) || !errors.As(err, &advice) || !strings.Contains(advice.Hint(), "as root") {
		t.Errorf("got %v", err)
	}
}

// Whose client is gone, or which never was started, is removed when the next
// one is made.
func TestForgottenHelpersAreRemoved(t *testing.T) {
	ended := exec.Command(os.Args[0], "-test.run=^$")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	e := &forgotten{dead: orchestrate.ClientOfProcess(ended.Process.Pid)}
	n, err := orchestrate.RemoveCompanions(t.Context(), e, orchestrate.HelperKind, orchestrate.Companion.Forgotten)
	slices.Sort(e.removed)
	if err != nil || n != 2 || !slices.Equal(e.removed, []string{"dead", "never started"}) {
		t.Errorf("removed %q, %v", e.removed, err)
	}
}

type forgotten struct {
	fakehelper.Engine
	dead    orchestrate.Client
	removed []string
}

func (f *forgotten) Companions(_ context.Context, kind orchestrate.CompanionKind) ([]orchestrate.Companion, error) {
	return []orchestrate.Companion{{ID: "dead", Kind: kind, Client: f.dead, State: "running"}, {ID: "in use", Kind: kind, Client: orchestrate.ThisClient(), State: "running"}, {ID: "never started", Kind: kind, State: "created"}}, nil
}

func (f *forgotten) RemoveCompanion(_ context.Context, id string) error {
	f.removed = append(f.removed, id)
	return nil
}
