package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// An engine serves several people: what one verifies is not in the way of another
// one's `down`, whether their processes see each other or not, and is named.
func TestDownLeavesOthersVerificationsAlone(t *testing.T) {
	capture := testenv.Shared(t, "pcaps", "bro.org.pcap")
	p := verifyTest(t)
	for name, tt := range map[string]struct {
		wrap  []string // in front of the command
		named string
	}{
		"another process":          {nil, ")."},
		"in another PID namespace": {[]string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}, "), which cannot be seen from here."},
	} {
		t.Run(name, func(t *testing.T) {
			if len(tt.wrap) > 0 && os.Getuid() != 0 {
				t.Skip("SKIPPED: only root makes PID namespaces")
			}
			args := append(tt.wrap, p.path, "verify", "--pull", "never", "--json", "--pps", "200", capture)
			cmd := exec.Command(args[0], args[1:]...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }() // where the test ends before
			sensorRuns(t)
			p.must(t, "verify", "--pull", "never", testenv.Shared(t, "pcaps", "dns53.pcap")) // tidies first
			r := p.must(t, "down")
			if !strings.Contains(r.stderr, "Left alone: a verification of ") || !strings.Contains(r.stderr, tt.named) || !strings.Contains(r.stderr, "`zeekdemo down --all` removes it now") {
				t.Errorf("down says\n%s", r.stderr)
			}
			err := cmd.Wait()
			var doc verified
			if jsonErr := json.Unmarshal(stdout.Bytes(), &doc); err != nil || jsonErr != nil || doc.Verdict != "equal" {
				t.Errorf("the verification ends with %v, %v\n%s%s", err, jsonErr, stdout.String(), stderr.String())
			}
		})
	}
}

// What a client in another container left that was killed stays until somebody
// asks for it: nobody here can tell it from one that runs.
func TestDownAllRemovesWhatNobodyCanJudge(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root makes PID namespaces")
	}
	capture := testenv.Shared(t, "pcaps", "bro.org.pcap")
	p := verifyTest(t)
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", p.path, "verify", "--pull", "never", "--pps", "2", capture)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sensorRuns(t)
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait() // killed
	if r := p.must(t, "down"); !strings.Contains(r.stderr, "which cannot be seen from here") || leftOfVerify(t) == "" {
		t.Errorf("down says\n%s", r.stderr)
	}
	if r := p.must(t, "down", "--all"); strings.Contains(r.stderr, "Left alone") {
		t.Errorf("down --all says\n%s", r.stderr)
	}
	removeTemporaries(t) // which another PID namespace's files are, too
}

// One command at a time changes the stack. The next one says who does, and an
// interrupt ends its waiting; what a killed one left is taken over.
func TestOneCommandAtATime(t *testing.T) {
	p := verifyTest(t)
	p.must(t, "down") // what reads the lock's image has it by now
	holder := exec.Command(p.path, "tune-host", "--reach", "helper", "--image", "zeekdemo-none:1")
	_ = holder.Run() // it fails, for there is no such image, and leaves no lock
	if left := docker(t, "ps", "-aq", "--filter", "label=org.zeekdemo.lock"); left != "" {
		t.Fatalf("a lock is left: %s", left)
	}
	self := orchestrate.ThisClient() // a living process
	lock := func(client string) {
		docker(t, "create", "--name", orchestrate.LockName, "--network", "none", "--label", orchestrate.LockLabel+"=up", "--label", orchestrate.ClientLabel+"="+client, orchestrate.LockName+":1", "/never")
	}
	lock(self.String())
	p.fails(t, []string{"another one does still: `zeekdemo up` of " + self.Person() + ", since "}, "down", "--lock-timeout", "0")
	waiting := exec.Command(p.path, "down")
	said, err := waiting.StderrPipe()
	if err == nil {
		err = waiting.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "Waiting for another one: `zeekdemo up` of "+self.Person()) {
		t.Errorf("down says %q, %v", line, err)
	}
	begun := time.Now()
	_ = waiting.Process.Signal(os.Interrupt)
	_ = waiting.Wait() // its exit code is looked at
	if code, took := waiting.ProcessState.ExitCode(), time.Since(begun); code != 130 || took > 10*time.Second {
		t.Errorf("interrupted: exit code %d after %s", code, took)
	}
	docker(t, "rm", orchestrate.LockName)
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	lock(orchestrate.ClientOfProcess(ended.Process.Pid).String())
	p.must(t, "down", "--lock-timeout", "0")
	if left := docker(t, "ps", "-aq", "--filter", "label=org.zeekdemo.lock"); left != "" {
		t.Errorf("a lock is left: %s", left)
	}
}

// However following a log ends, no tail goes on in the sensor's container.
func TestFollowingALogLeavesNoTail(t *testing.T) {
	p := stackTest(t)
	p.must(t, "up", "--pull", "never")
	tails := func() int {
		return strings.Count(docker(t, "top", "zeekdemo-zeek-1", "-eo", "pid,args"), "tail -n +1 -F followed.log")
	}
	for name, end := range map[string]func(p *os.Process, out io.Closer) error{
		"interrupted": func(p *os.Process, _ io.Closer) error { return p.Signal(os.Interrupt) },
		"terminated":  func(p *os.Process, _ io.Closer) error { return p.Signal(syscall.SIGTERM) },
		"killed":      func(p *os.Process, _ io.Closer) error { return p.Kill() },
		"nobody reads": func(_ *os.Process, out io.Closer) error {
			docker(t, "exec", "zeekdemo-zeek-1", "sh", "-c", "echo another line >>followed.log") // which cannot be passed on
			return out.Close()
		},
	} {
		docker(t, "exec", "zeekdemo-zeek-1", "sh", "-c", "echo a line >followed.log")
		follow := exec.Command(p.path, "logs", "zeek", "--log", "followed", "-f")
		out, err := follow.StdoutPipe()
		if err == nil {
			err = follow.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "a line\n" || tails() == 0 {
			t.Errorf("%s: it shows %q, %v, by %d tails", name, line, err, tails())
		}
		if err := end(follow.Process, out); err != nil {
			t.Error(err)
		}
		if name == "nobody reads" {
			docker(t, "exec", "zeekdemo-zeek-1", "sh", "-c", "echo a third line >>followed.log")
		}
		_ = follow.Wait() // however it ended
		eventually(t, 30*time.Second, name+", and no tail is left", func() error {
			if n := tails(); n > 0 {
				return errors.New(docker(t, "top", "zeekdemo-zeek-1", "-eo", "pid,args"))
			}
			return nil
		})
	}
	docker(t, "exec", "zeekdemo-zeek-1", "rm", "followed.log")
}

// sensorRuns waits for the sensor of a verification that listens.
func sensorRuns(t *testing.T) {
	t.Helper()
	eventually(t, time.Minute, "the sensor runs", func() error {
		if docker(t, "ps", "-q", "--filter", "label=org.zeekdemo.verify", "--filter", "status=running") == "" {
			return os.ErrNotExist
		}
		return nil
	})
}

// removeTemporaries empties the folder for temporary files, which is this test's.
func removeTemporaries(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "zeekdemo-verify-") {
			if err := os.RemoveAll(os.TempDir() + "/" + e.Name()); err != nil {
				t.Error(err)
			}
		}
	}
}
