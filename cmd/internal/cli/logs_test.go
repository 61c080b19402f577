package cli

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The last lines of a log are those of all its files, in their order: what was finished
// before, what a logger of its own folder writes, and the one that is being written.
func TestLastLinesOfALog(t *testing.T) {
	dir := t.TempDir()
	at := time.Now().Add(-time.Hour)
	for _, f := range [][2]string{{"conn.2026-01-01-00-00-00.log", "1\n2\n"}, {"conn.2026-01-01-01-00-00-left1.log", "3\n"}, {"logger-2/conn.log", "4\n"}, {"conn.log", "5\n6\n"},
		{"conn_more.log", "another\n"}, {"dns.2026-01-01-00-00-00.log", "7\n"}} {
		file := filepath.Join(dir, f[0])
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(f[1]), 0o644); err != nil {
			t.Fatal(err)
		}
		at = at.Add(time.Minute)
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ lines, log, want string }{
		{"+1", "conn", "1 2 3 4 5 6"}, {"1", "conn", "6"}, {"4", "conn", "3 4 5 6"}, {"99", "conn", "1 2 3 4 5 6"}, {"0", "conn", ""}, {"5", "dns", "7"},
	} {
		for name, script := range map[string]string{"read": readScript, "follow": followScript} {
			cmd := exec.Command("sh", "-c", script, name, tt.lines, tt.log)
			cmd.Dir = dir
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(300*time.Millisecond, func() { in.Close() }) // the follower ends with it
			text, err := io.ReadAll(out)
			if err != nil {
				t.Fatal(err)
			}
			err = cmd.Wait()
			if got := strings.Join(strings.Fields(string(text)), " "); got != tt.want || name == "read" && err != nil {
				t.Errorf("%s %s of %s: %q, want %q (%v)", name, tt.lines, tt.log, got, tt.want, err)
			}
		}
	}
	cmd := exec.Command("sh", "-c", readScript, "read", "5", "none")
	cmd.Dir = dir
	if cmd.Run() == nil {
		t.Error("a log that is not there was read")
	}
}
