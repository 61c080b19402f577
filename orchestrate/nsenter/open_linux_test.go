package nsenter_test

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
	"github.com/zeekdemo/zeekdemo/testdata/testenv/fakehelper"
)

// thisHost describes this machine as an engine on it does.
func thisHost(t *testing.T) orchestrate.EngineHost {
	t.Helper()
	var uts unix.Utsname
	var info unix.Sysinfo_t
	if err := errors.Join(unix.Uname(&uts), unix.Sysinfo(&info)); err != nil {
		t.Fatal(err)
	}
	return orchestrate.EngineHost{ID: "here", Name: unix.ByteSliceToString(uts.Nodename[:]), Kernel: unix.ByteSliceToString(uts.Release[:]),
		Memory: int64(info.Totalram) * int64(info.Unit)}
}

// The machine is reached directly only by root, and only where all that is
// known says that the engine's machine is this one; else by a helper.
func TestWhichWay(t *testing.T) {
	testenv.NeedRoot(t)
	here := thisHost(t)
	elsewhere, larger := here, here
	elsewhere.Name, larger.Memory = "elsewhere", here.Memory*2
	sensor := orchestrate.Container{ID: "0123456789abcdef", Service: "zeek", State: "running", Image: "zeek:1", PID: os.Getpid(),
		Addresses: map[string]netip.Addr{"monitoring": netip.MustParseAddr("203.0.113.77")}}
	mine := sensor // whose process has an address of the container
	mine.Addresses = map[string]netip.Addr{"monitoring": netip.MustParseAddr("127.0.0.1")}
	stopped := sensor
	stopped.State = "exited"
	for _, tt := range []struct {
		name       string
		host       orchestrate.EngineHost
		containers []orchestrate.Container
		gone       error
		asked      nsenter.Way
		image      string
		want       nsenter.Way
		err        string
	}{
		{name: "this machine, without a stack", host: here, want: nsenter.Direct},
		{name: "this machine, its sensor seen", host: here, containers: []orchestrate.Container{stopped, mine}, want: nsenter.Direct},
		{name: "its sensor not running", host: here, containers: []orchestrate.Container{stopped}, want: nsenter.Direct},
		{name: "its sensor's number is another process's", host: here, containers: []orchestrate.Container{sensor}, want: nsenter.Helper},
		{name: "the same, but directly", host: here, containers: []orchestrate.Container{sensor}, asked: nsenter.Direct, err: "processes are not seen from here"},
		{name: "another machine", host: elsewhere, containers: []orchestrate.Container{mine}, want: nsenter.Helper},
		{name: "a virtual machine with its name", host: larger, containers: []orchestrate.Container{mine}, want: nsenter.Helper},
		{name: "another machine, but directly", host: elsewhere, asked: nsenter.Direct, err: "has the host name elsewhere"},
		{name: "another machine without a stack or an image", host: elsewhere, err: "no stack is here"},
		{name: "with an image", host: elsewhere, image: "zeek:1", want: nsenter.Helper},
		{name: "by a helper though it is here", host: here, image: "zeek:1", asked: nsenter.Helper, want: nsenter.Helper},
		{name: "no engine", gone: errors.New("no engine answers"), err: "no engine answers"},
		{name: "no engine, but directly", gone: errors.New("no engine answers"), asked: nsenter.Direct, want: nsenter.Direct},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := engine{Engine: &fakehelper.Engine{Root: tree(t), Work: t.TempDir()}, host: tt.host, containers: tt.containers, gone: tt.gone}
			m, way, err := nsenter.Open(t.Context(), e, nsenter.Options{Way: tt.asked, Image: tt.image})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, %v", way, err)
				}
				return
			}
			if err != nil || way != tt.want {
				t.Fatalf("got %q, %v, want %q", way, err, tt.want)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Without a privilege a container's files are read in it, the machine's where
// they can be seen.
func TestPeek(t *testing.T) {
	sensor := orchestrate.Container{ID: "c1", Service: "zeek", State: "running", PID: 1 << 30}
	e := engine{Engine: &fakehelper.Engine{}, host: orchestrate.EngineHost{Name: "elsewhere"}, containers: []orchestrate.Container{sensor},
		inside: "%[1]s /sys/a\nin %[2]s\n\n%[1]s /proc/b\n\n"}
	e.Root = tree(t)
	const record = nsenter.RecordFolder + "/tuning-1.json"
	if err := nsenter.Tree(e.Root).Write(t.Context(), nsenter.Namespace{}, record, "{}\n"); err != nil {
		t.Fatal(err)
	}
	m := nsenter.Peek(t.Context(), e, e.containers)
	got, err := m.Read(t.Context(), nsenter.Namespace{PID: sensor.PID}, "/sys/*")
	if err != nil || len(got) != 2 || got["/sys/a"] != "in c1\n" || got["/proc/b"] != "" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, patterns := range [][]string{{nsenter.RecordFolder + "/tuning-*.json"}, {"/sys/*", record}} { // alone, and with what a container shows
		got, err := m.Read(t.Context(), nsenter.Namespace{}, patterns...)
		if err != nil || got[record] != "{}\n" || len(got) != 1 && got["/sys/a"] != "in c1\n" {
			t.Errorf("%q: got %q, %v", patterns, got, err)
		}
	}
	if _, err := m.Read(t.Context(), nsenter.Namespace{PID: 7}, "/sys/*"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another process: %v", err)
	}
	if err := m.Write(t.Context(), nsenter.Namespace{}, "/proc/x", "1"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("wrote: %v", err)
	}
	if _, err := m.Lock(t.Context(), record); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("locked: %v", err)
	}
	e.host = thisHost(t)
	m = nsenter.Peek(t.Context(), e, e.containers)
	if got, err := m.Read(t.Context(), nsenter.Namespace{}, "/proc/uptime"); err != nil || got["/proc/uptime"] == "" {
		t.Errorf("this machine: %q, %v", got, err)
	}
}
