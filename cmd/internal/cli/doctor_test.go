package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/doctor"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

var updateScreens = flag.Bool("update-screens", false, "renew the screens in testdata/machines")

// machine is a fixture: files of /proc, /sys and /etc in root ("ns/PID" being a
// container's namespace), and what the engine and the kernel say.
type machine struct {
	*fakeEngine
	root string
	says says
}

// says is the file "says.json" of a fixture.
type says struct {
	Engine       orchestrate.EngineInfo
	Machine      doctor.Machine
	Networks     []doctor.Network
	Owners       map[string]string // of ports, by host:port/protocol
	Disk         doctor.Disk
	Synchronised bool
	Sensors      map[string]struct { // by service; without any there is no stack
		PID     int
		Sockets []doctor.SensorSocket
		Reach   string // why it cannot be reached
	}
}

func (m machine) Info(context.Context) (orchestrate.EngineInfo, error) { return m.says.Engine, nil }

func (m machine) Machine(context.Context) (doctor.Machine, error) {
	answer := m.says.Machine
	answer.Time = time.Now()
	return answer, nil
}

func (m machine) Networks(context.Context) ([]doctor.Network, error) { return m.says.Networks, nil }

// Containers publishes the stack's own ports beside the ones that answer.
func (m machine) Containers(ctx context.Context, project string) ([]orchestrate.Container, error) {
	list, err := m.fakeEngine.Containers(ctx, project)
	stack, completeErr := m.Complete(ctx, newProber(&App{Getenv: func(string) string { return "" }}, m, nil).Project)
	for i := range list {
		list[i].Project, list[i].PID = orchestrate.ProjectName, m.says.Sensors[list[i].Service].PID
		for _, p := range stack.Ports {
			if p.Service == list[i].Service {
				list[i].Ports = append(list[i].Ports, orchestrate.PublishedPort{HostIP: p.Address.Addr(), HostPort: p.Address.Port(), Protocol: p.Protocol})
			}
		}
	}
	return list, errors.Join(err, completeErr)
}

// kernel is the fixture's.
type kernel struct{ machine }

// Close leaves the machine alone.
func (kernel) Close() error { return nil }

// Read reads the fixture's files; those of a container are below ns/PID.
func (m kernel) Read(_ context.Context, ns nsenter.Namespace, patterns ...string) (map[string]string, error) {
	root := m.root
	if ns.PID != 0 {
		root = filepath.Join(root, "ns", strconv.Itoa(ns.PID))
	}
	found := map[string]string{}
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			found[strings.TrimPrefix(file, root)] = string(data)
		}
	}
	return found, nil
}

func (kernel) Lock(context.Context, string) (func(), error) {
	return nil, errors.New("a doctor locks nothing")
}

func (kernel) Write(context.Context, nsenter.Namespace, string, string) error {
	return errors.New("a doctor writes nothing")
}

// prober looks at the fixture and nowhere else.
func (m machine) prober(t *testing.T) *doctor.Prober {
	p := newProber(&App{Getenv: func(string) string { return "" }}, m, nil)
	p.Root, p.Platform, p.Store = m.root, "linux/amd64", hosttune.Store{Dir: t.TempDir()}
	p.Filter = func(context.Context) (string, error) { return "/usr/bin/tcpdump compiles filters", nil }
	p.PortOwner = func(_ context.Context, address, protocol string) string { return m.says.Owners[address+"/"+protocol] }
	p.Disk = func(_ context.Context, path string) (doctor.Disk, error) {
		m.says.Disk.Path = path
		return m.says.Disk, nil
	}
	p.Synchronised = func() (bool, error) { return m.says.Synchronised, nil }
	p.Sockets = func(pid int, _ uint16) ([]doctor.SensorSocket, error) {
		for _, s := range m.says.Sensors {
			if s.PID == pid {
				return s.Sockets, nil
			}
		}
		return nil, errors.New("no such process")
	}
	p.Reach = func(_ context.Context, s orchestrate.Sensor) error {
		if why := m.says.Sensors[s.Service.Name].Reach; why != "" {
			return errors.New(why)
		}
		return nil
	}
	p.Settings = func(context.Context, bool) (nsenter.Machine, error) { return kernel{m}, nil }
	return p
}

// newMachine unpacks a fixture.
func newMachine(t *testing.T, archive *txtar.Archive) machine {
	t.Helper()
	m := machine{root: t.TempDir()}
	for _, f := range archive.Files {
		path := filepath.Join(m.root, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(f.Data, []byte("^@"), []byte{0}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(m.root, "says.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &m.says); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(m.root, "engine")
	fake, err := connectFake(func(name string) string { return map[string]string{"ZEEKDEMO_FAKE": state}[name] })
	if err != nil {
		t.Fatal(err)
	}
	m.fakeEngine = fake.(*fakeEngine)
	t.Cleanup(func() { m.Close() })
	if err := m.save(fakeState{Up: len(m.says.Sensors) > 0}); err != nil {
		t.Fatal(err)
	}
	return m
}

// The whole screen on machines with 2, 8, 64 and 200 processors: 80 columns, and
// few enough rows unless there is much to mend.
func TestDoctorScreens(t *testing.T) {
	files, err := filepath.Glob("testdata/machines/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no machines: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			last := len(archive.Files) - 1
			if archive.Files[last].Name != "screen" {
				t.Fatal("the last file is not the screen")
			}
			m := newMachine(t, &txtar.Archive{Files: archive.Files[:last]})
			var screen bytes.Buffer
			writeDoctor(&screen, doctor.Diagnose(m.prober(t).Probe(t.Context())))
			for line := range strings.Lines(screen.String()) {
				if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			if rows := strings.Count(screen.String(), "\n"); rows > 18+3*strings.Count(screen.String(), " -> ") {
				t.Errorf("%d rows", rows)
			}
			if *updateScreens {
				archive.Files[last].Data = screen.Bytes()
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(archive.Files[last].Data); screen.String() != want {
				t.Errorf("got\n%s\nwant\n%s", screen.String(), want)
			}
		})
	}
}

// A word that is longer than the screen is not broken, and nothing is lost.
func TestWrapping(t *testing.T) {
	long := strings.Repeat("x", 100)
	for text, want := range map[string]string{
		"":                    "head\n",
		"a b":                 "head a b\n",
		long:                  "head " + long + "\n",
		"a " + long + " b":    "head a\n   - " + long + "\n   - b\n",
		long[:75]:             "head " + long[:75] + "\n",
		long[:70] + " 12 34 ": "head " + long[:70] + " 12\n   - 34\n",
	} {
		var out bytes.Buffer
		writeWrapped(&out, "head ", "   - ", text)
		if out.String() != want {
			t.Errorf("%q: got\n%swant\n%s", text, out.String(), want)
		}
	}
}
