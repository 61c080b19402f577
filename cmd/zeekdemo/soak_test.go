package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// soakTime is how long traffic flows: as ZEEKDEMO_SOAK says, such as 5m, or as long as
// all that is done to the stack meanwhile takes.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("ZEEKDEMO_SOAK")
	if text == "" {
		return 100 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("ZEEKDEMO_SOAK: %v", err)
	}
	return d
}

// A stack that is left running: ten thousand connections a minute, logs that rotate
// every five seconds and are kept for one minute, sensors that are restarted and
// killed, a collector that is killed, and Loki's disk full in between. Everything
// stays within its bounds, each line that a sensor had written is in Loki once, and
// the alerts fire and rest.
func TestLeftRunning(t *testing.T) {
	p := stackTest(t)
	testenv.NeedRoot(t)
	// In memory, so that it can be filled.
	docker(t, "volume", "create", "--label", "com.docker.compose.project=zeekdemo", "--label", "com.docker.compose.volume=loki-data",
		"--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=200m,uid=10001,gid=10001", "zeekdemo_loki-data")
	t.Cleanup(func() { _ = exec.Command("docker", "volume", "rm", "-f", "zeekdemo_loki-data").Run() })
	// What is in memory is there as long as somebody has it mounted, and Compose copies
	// a file into it before anything runs.
	docker(t, "run", "-d", "--name", "zeekdemo-soak-holder", "-v", "zeekdemo_loki-data:/loki", "zeek/zeek:9.0", "sleep", "3600")
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", "zeekdemo-soak-holder").Run() })
	p.must(t, "up", "--pull", "never", "--retention", "1m", "--max-disk", "200M")
	w := watchFiles(t)
	length, began := soakTime(t), time.Now()
	traffic := keepReplaying(t, p, length)

	trouble := []struct {
		what string
		do   func()
	}{
		{"restart a sensor", func() { docker(t, "restart", "zeekdemo-zeek-1") }},
		{"kill the collector", func() { docker(t, "kill", "zeekdemo-collector-1"); docker(t, "start", "zeekdemo-collector-1") }},
		{"kill a sensor", func() { docker(t, "kill", "zeekdemo-zeek-1"); docker(t, "start", "zeekdemo-zeek-1") }},
		{"fill Loki's disk", func() { fillLoki(t) }},
		{"restart a sensor", func() { docker(t, "restart", "zeekdemo-zeek-1") }},
	}
	for i, step := range trouble {
		due := began.Add(length * time.Duration(i+1) / time.Duration(len(trouble)+1))
		eventually(t, length, step.what, func() error { return after(due) })
		t.Logf("%s: %s", time.Since(began).Round(time.Second), step.what)
		step.do()
		checkBounds(t, p)
	}
	eventually(t, length+time.Minute, "the traffic ends", traffic)
	p.must(t, "up", "--pull", "never", "--retention", "1m", "--max-disk", "200M")
	eventually(t, 60*time.Second, "the last flows are logged", func() error { return w.rests(12 * time.Second) })
	lines := w.end()
	eventually(t, 60*time.Second, "each line is in Loki once", func() error { return eachOnce(lines, began) })
	t.Logf("%d lines of conn.log", len(lines))
	if want := int(length.Minutes() * 5000); len(lines) < want {
		t.Errorf("only %d connections were logged, want %d: the test does not test", len(lines), want)
	}
	eventually(t, 60*time.Second, "no alert of the logs' way fires", func() error {
		for _, name := range firing(t) {
			if slices.Contains([]string{"CollectorCannotDeliver", "CollectorReadsNothing", "DiskFull", "DiskNearlyFull", "LokiShareUsedUp", "ServiceDown collector", "LogLinesRefused"}, name) {
				return errors.New(name + " fires")
			}
		}
		return nil
	})
	checkBounds(t, p)
}

func after(due time.Time) error {
	if left := time.Until(due); left > 0 {
		return fmt.Errorf("%s to go", left)
	}
	return nil
}

// keepReplaying replays the sample again and again, about ten thousand connections a
// minute, whatever becomes of it: the sensor dies in between. It returns what to ask
// for the end.
func keepReplaying(t *testing.T, p program, length time.Duration) func() error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = exec.CommandContext(ctx, p.path, "replay", "--json", "--loop", "40", "--unique-flows", "--pps", "1700", "--patience", "5s").Run()
			select { // a sensor that starts is not asked at once again
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return func() error {
		select {
		case <-done:
			return nil
		default:
			return errors.New("it goes on")
		}
	}
}

// fillLoki fills the disk of Loki's store, until the alerts fire, and empties it again
// until they rest.
func fillLoki(t *testing.T) {
	t.Helper()
	docker(t, "exec", "zeekdemo-janitor-1", "sh", "-c", "dd if=/dev/zero of=/loki/filler bs=1024k 2>/dev/null; rm -f /loki/filler; "+
		"free=$(df -Pk /loki | awk 'NR==2 {print $4}'); dd if=/dev/zero of=/loki/filler bs=1024 count=$((free - 8192)) 2>/dev/null; true")
	want := []string{"CollectorCannotDeliver", "DiskFull"}
	eventually(t, 60*time.Second, "alerts fire", func() error {
		got := firing(t)
		for _, name := range want {
			if !slices.Contains(got, name) {
				return fmt.Errorf("%q without %s", got, name)
			}
		}
		return nil
	})
	docker(t, "exec", "zeekdemo-janitor-1", "rm", "-f", "/loki/filler")
	eventually(t, 90*time.Second, "alerts rest", func() error {
		for _, name := range firing(t) {
			if slices.Contains(want, name) {
				return fmt.Errorf("%s fires", name)
			}
		}
		return nil
	})
}

// checkBounds wants every store within its share, as `status` shows it.
func checkBounds(t *testing.T, p program) {
	t.Helper()
	var document struct {
		Stores []struct {
			Name  string
			Bytes int64
			Most  int64 `json:"bytes_at_most"`
		}
	}
	r := p.run(t, "status", "--json") // whether all are healthy at this moment is no matter
	if err := json.Unmarshal([]byte(r.stdout), &document); err != nil {
		t.Fatalf("%v\n%s%s", err, r.stdout, r.stderr)
	}
	var names []string
	for _, s := range document.Stores {
		names = append(names, s.Name)
		if s.Most == 0 || s.Bytes > s.Most {
			t.Errorf("%s takes %d bytes, its share is %d", s.Name, s.Bytes, s.Most)
		}
	}
	slices.Sort(names)
	if want := []string{"collector", "loki", "prometheus", "zeek", "zeek-geneve"}; !slices.Equal(names, want) {
		t.Errorf("status shows the stores %q, want %q", names, want)
	}
}

// files watches a sensor's conn.log, and what it becomes, by the engine's volume: every
// line that was ever on the disk, as long as a file lasts longer than two looks.
type files struct {
	*testing.T
	folder string
	stop   context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	lines map[string]int // by line; how often in one look is no matter
	grown time.Time      // when there was a new one
	kept  int            // the most finished files at a time
}

func watchFiles(t *testing.T) *files {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &files{T: t, folder: filepath.Join(docker(t, "volume", "inspect", "--format", "{{.Mountpoint}}", "zeekdemo_zeek-logs"), "zeek"),
		stop: cancel, done: make(chan struct{}), lines: map[string]int{}, grown: time.Now()}
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			w.look()
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { w.end() })
	return w
}

// look reads all files. A line counts when it is whole.
func (w *files) look() {
	list, _ := filepath.Glob(filepath.Join(w.folder, "conn*.log"))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = max(w.kept, len(list))
	for _, name := range list {
		text, _ := os.ReadFile(name) // one that is gone was read before
		for line := range bytes.Lines(text) {
			if whole, ok := bytes.CutSuffix(line, []byte("\n")); ok {
				if _, known := w.lines[string(whole)]; !known {
					w.lines[string(whole)], w.grown = 1, time.Now()
				}
			}
		}
	}
}

// rests wants that nothing was written for a while.
func (w *files) rests(quiet time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if since := time.Since(w.grown); since < quiet {
		return fmt.Errorf("the last line came %s ago", since)
	}
	return nil
}

// end returns the lines. Files are kept for a minute in pieces of five seconds, and
// what was moved aside comes on top.
func (w *files) end() map[string]int {
	w.stop()
	<-w.done
	if w.kept > 60 {
		w.Errorf("%d files of conn.log at a time: they are not removed", w.kept)
	}
	return w.lines
}

// eachOnce compares the lines in Loki with those that were on the disk.
func eachOnce(want map[string]int, since time.Time) error {
	const step = 2 * time.Second
	got := map[string]int{}
	for from := since.Add(-time.Minute); from.Before(time.Now()); from = from.Add(step) {
		var answer struct {
			Data struct {
				Result []struct{ Values [][2]string }
			}
		}
		values := url.Values{"query": {`{service_name="zeek",sensor="zeek",log="conn"}`}, "limit": {"5000"},
			"start": {strconv.FormatInt(from.UnixNano(), 10)}, "end": {strconv.FormatInt(from.Add(step).UnixNano(), 10)}}
		if err := fetch("http://127.0.0.1:13100/loki/api/v1/query_range?"+values.Encode(), &answer); err != nil {
			return err
		}
		for _, stream := range answer.Data.Result {
			for _, v := range stream.Values {
				got[v[1]]++
			}
		}
	}
	missing, twice := 0, 0
	example := ""
	for line := range maps.Keys(want) {
		switch got[line] {
		case 0:
			missing++
			example = line
		case 1:
		default:
			twice++
		}
	}
	if missing > 0 || twice > 0 {
		return fmt.Errorf("of %d lines, %d are missing and %d are there more than once; %d are in Loki: %s", len(want), missing, twice, len(got), strings.TrimSpace(example))
	}
	return nil
}
