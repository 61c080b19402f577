//go:build unix

package statefile

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What somebody else has put where a record or its temporary file was to be is
// neither written through nor in the way.
func TestWhatIsPlantedIsNotFollowed(t *testing.T) {
	for name, plant := range map[string]func(folder, foreign string) error{
		"nothing":                     func(string, string) error { return nil },
		"a link at the name":          func(folder, foreign string) error { return os.Symlink(foreign, folder+"/record.json") },
		"a dangling link at the name": func(folder, foreign string) error { return os.Symlink(foreign+".none", folder+"/record.json") },
		"a hard link at the name":     func(folder, foreign string) error { return os.Link(foreign, folder+"/record.json") },
		"a link at the former temporary name": func(folder, foreign string) error {
			return os.Symlink(foreign, folder+"/record.json.new")
		},
		"a folder at the former temporary name": func(folder, _ string) error { return os.Mkdir(folder+"/record.json.new", 0o700) },
		"a link with a temporary file's name": func(folder, foreign string) error {
			return os.Symlink(foreign, folder+"/"+prefix+"x"+suffix)
		},
		"a hard link with a temporary file's name": func(folder, foreign string) error {
			return os.Link(foreign, folder+"/"+prefix+"x"+suffix)
		},
	} {
		t.Run(name, func(t *testing.T) {
			foreign, folder := filepath.Join(t.TempDir(), "foreign"), t.TempDir()
			if err := errors.Join(os.WriteFile(foreign, []byte("theirs"), 0o600), plant(folder, foreign)); err != nil {
				t.Fatal(err)
			}
			if err := Write(folder+"/record.json", []byte("ours"), 0o644); err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(folder + "/record.json")
			if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o644 {
				t.Errorf("the record is %v, %v", info, err)
			}
			if got, _ := os.ReadFile(folder + "/record.json"); string(got) != "ours" {
				t.Errorf("the record says %q", got)
			}
			if got, _ := os.ReadFile(foreign); string(got) != "theirs" {
				t.Errorf("the foreign file says %q", got)
			}
			if _, err := os.Lstat(foreign + ".none"); !errors.Is(err, fs.ErrNotExist) {
				t.Error("a file was made where the link pointed to")
			}
		})
	}
}

// Where it cannot be written, what was there stays, and nothing else is left.
func TestAFailureLeavesNothing(t *testing.T) {
	folder := t.TempDir()
	if err := os.MkdirAll(folder+"/record.json/occupied", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(folder+"/record.json", []byte("ours"), 0o644); err == nil {
		t.Error("a folder was replaced")
	}
	if left := temporaries(t, folder); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := Write(folder+"/none/record.json", nil, 0o644); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
}

// The temporary file of a process that was killed is removed by the next one; that
// of a process that lives is not.
func TestTheTemporaryFilesOfKilledProcesses(t *testing.T) {
	if folder := os.Getenv("STATEFILE_TEST_HOLD"); folder != "" {
		holdTemporary(folder)
	}
	folder := t.TempDir()
	holder := exec.Command(os.Args[0], "-test.run=^TestTheTemporaryFilesOfKilledProcesses$")
	holder.Env = append(os.Environ(), "STATEFILE_TEST_HOLD="+folder)
	out, err := holder.StdoutPipe()
	if err == nil {
		err = holder.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { holder.Process.Kill(); holder.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "held\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	for _, step := range []struct {
		name string
		left int
	}{{"while it lives", 1}, {"when it was killed", 0}} {
		if step.left == 0 {
			holder.Process.Kill()
			holder.Wait()
		}
		if err := Write(folder+"/record.json", []byte("ours"), 0o644); err != nil {
			t.Fatal(err)
		}
		if left := temporaries(t, folder); len(left) != step.left {
			t.Errorf("%s there are %v", step.name, left)
		}
	}
}

// holdTemporary is the other process.
func holdTemporary(folder string) {
	if _, err := Create(folder + "/record.json"); err != nil {
		println(err.Error())
		os.Exit(1)
	}
	os.Stdout.WriteString("held\n")
	select {}
}

func temporaries(t *testing.T, folder string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			list = append(list, e.Name())
		}
	}
	return list
}

func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(name); !errors.Is(err, ErrLocked) {
		t.Errorf("a second one: %v", err)
	}
	unlock()
	if again, err := Lock(name); err != nil {
		t.Error(err)
	} else {
		again()
	}
	if err := os.Symlink(name+".foreign", name+".link"); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(name + ".link"); err == nil {
		t.Error("a link was followed")
	}
	if _, err := os.Lstat(name + ".foreign"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file was made where the link pointed to")
	}
}
