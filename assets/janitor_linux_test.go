package assets_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// house is a root with stores for the janitor to look after.
type house struct {
	*testing.T
	root string
}

// chunk makes a file of Loki's store.
func (h house) chunk(name string, kib int, age time.Duration) {
	h.Helper()
	path := filepath.Join(h.root, "loki/chunks/fake", name)
	then := time.Now().Add(-age)
	for _, err := range []error{os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, kib<<10), 0o644), os.Chtimes(path, then, then)} {
		if err != nil {
			h.Fatal(err)
		}
	}
}

// look lets the janitor look once, with 100 000 KiB for Loki and a week; it returns
// the file of limits, the account, and what it said.
func (h house) look(shell []string) (limits, account, said string) {
	h.Helper()
	script := append(shell, "-c", readFile(h, "stack/janitor/janitor.sh"), "janitor")
	cmd := exec.Command(script[0], script[1:]...)
	cmd.Env = append(os.Environ(), "JANITOR_ROOT="+h.root, "TMPDIR="+h.root, "JANITOR_EVERY=0", "JANITOR_KEEP=604800", "JANITOR_LOKI_DISK=100000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.Fatalf("%v: %s", err, out)
	}
	return readFile(h, filepath.Join(h.root, "loki/limits.yaml")), readFile(h, filepath.Join(h.root, "stores")), string(out)
}

// The age of what Loki keeps follows the size of its store.
func TestTheJanitorKeepsLokiWithinItsShare(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name        string
		kib         []int // of a day each, today's last
		age         string
		blocked     bool
		said, store string
	}{
		{"little", []int{5000, 5000}, "604800", false, "", ""},
		{"nearly all", []int{20000, 20000, 20000, 28000}, "604800", false, "", ""},
		{"nine tenths exceeded", []int{10000, 10000, 20000, 20000, 32000}, `(?:25920\d|25919\d)`, false, "lines older than", ""},
		{"in one day", []int{95000}, "1200", false, "lines older than 1200 s go", ""},
		{"full", []int{60000, 45000}, `8640\d|8639\d`, true, "it refuses lines until there is room", " refuses"},
	} {
		for name, shell := range shells(t) {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				h := house{t, t.TempDir()}
				for i, kib := range tt.kib {
					h.chunk(fmt.Sprint(i), kib, time.Duration(len(tt.kib)-1-i)*day)
				}
				limits, account, said := h.look(shell)
				if !regexp.MustCompile(`(?m)^    retention_period: (?:` + tt.age + `)s$`).MatchString(limits) {
					t.Errorf("limits, want an age of %s:\n%s%s", tt.age, limits, said)
				}
				if blocked := strings.Contains(limits, "block_ingestion_until"); blocked != tt.blocked {
					t.Errorf("lines are refused: %v, want %v", blocked, tt.blocked)
				}
				if (tt.said == "") != (said == "") || !strings.Contains(said, tt.said) {
					t.Errorf("it says %q, want %q", said, tt.said)
				}
				if !regexp.MustCompile(`(?m)^loki \d+ 100000 \d+ \d+ ?` + tt.store + `$`).MatchString(account) {
					t.Errorf("the account:\n%s", account)
				}
			})
		}
	}
}
