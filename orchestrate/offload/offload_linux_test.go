package offload

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// bench is an interface, and where its records lie.
type bench struct {
	t        *testing.T
	ns, dir  string
	original string
}

func newBench(t *testing.T) bench {
	testenv.NeedTool(t, "ethtool")
	b := bench{t: t, ns: testenv.Namespace(t), dir: filepath.Join(t.TempDir(), "state", "offloads")}
	testenv.IP(t, "-n "+b.ns+" link add eth0 type veth peer name eth1")
	b.original = b.settings()
	return b
}

// settings are all that ethtool -k shows.
func (b bench) settings() (all string) {
	b.do(func() error {
		out, err := exec.Command("ethtool", "-k", "eth0").Output()
		all = string(out)
		return err
	})
	return all
}

func (b bench) do(f func() error) { b.t.Helper(); testenv.Inside(b.t, b.ns, f) }

func (b bench) off() (h *Hold) {
	b.t.Helper()
	b.do(func() (err error) { h, err = Off(b.dir, "eth0"); return err })
	return h
}

// is checks whether the features are as they were, or all off.
func (b bench) is(original bool) {
	b.t.Helper()
	now := b.settings()
	b.do(func() error {
		on, err := Merging("eth0")
		if original != (now == b.original) || original == (len(on) == 0) {
			b.t.Errorf("as before: %v, want %v; on are %v", now == b.original, original, on)
		}
		return err
	})
	records, err := os.ReadDir(b.dir)
	if original != errors.Is(err, fs.ErrNotExist) { // the folder goes with the last record
		b.t.Errorf("%d records: %v", len(records), err)
	}
}

func (b bench) restore(which func(dir, name string) ([]string, error), want error) {
	b.t.Helper()
	b.do(func() error {
		if _, err := which(b.dir, ""); !errors.Is(err, want) {
			b.t.Errorf("restore: %v, want %v", err, want)
		}
		return nil
	})
}

func TestFeaturesAreOffUntilTheLastReleases(t *testing.T) {
	b := newBench(t)
	first := b.off()
	b.is(false)
	second := b.off()
	if len(first.record.On) == 0 || !slices.Equal(second.record.On, first.record.On) {
		t.Errorf("%v, then %v", first.record.On, second.record.On)
	}
	b.restore(Restore, ErrHeld)
	b.do(first.Release)
	b.is(false)
	b.do(second.Release)
	b.is(true)
	b.restore(Restore, nil)
}

// die is what a SIGKILL does to a Hold.
func (h *Hold) die() { h.file.Close() }

func TestWhatADeadProcessLeftIsTakenBack(t *testing.T) {
	b := newBench(t)
	b.off().die()
	b.is(false)
	b.restore(Restore, nil)
	b.is(true)
	b.off().die()
	b.do(b.off().Release) // the next one finds it
	b.is(true)
	t.Run("before anything was written", func(t *testing.T) {
		if err := os.MkdirAll(b.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(b.dir, "0-eth0.json"))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		b.restore(Restore, nil)
		b.is(true)
	})
}

func TestDetachedFeaturesStayOff(t *testing.T) {
	b := newBench(t)
	b.do(b.off().Detach)
	b.restore(Restore, nil)
	b.is(false)
	b.do(b.off().Release) // nor does one who came later
	b.is(false)
	b.restore(RestoreDetached, nil)
	b.is(true)
}

// A device that was replaced by another one of its name has other settings.
func TestANewDeviceIsLeftAlone(t *testing.T) {
	b := newBench(t)
	b.off().die()
	testenv.IP(t, "-n "+b.ns+" link del eth0")
	testenv.IP(t, "-n "+b.ns+" link add eth0 type veth peer name eth1")
	b.restore(Restore, nil)
	b.is(true)
}
