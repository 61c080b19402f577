package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// verified is what the scenarios look at of `verify --json`.
type verified struct {
	Verdict  string
	Captures []struct {
		Capture     string
		Verdict     string
		Error       string
		Via         string
		ViaReason   string `json:"via_reason"`
		Connections int
		Lossless    struct {
			Governed bool
			Ledger   struct{ Sent, Taken uint64 }
		}
		Path struct {
			Sent, Received uint64
			Counted        bool
		}
		Findings []struct{ Hop, Text string }
		ByPace   int `json:"different_by_pace"`
	}
}

// verifyTest builds the program and makes sure that nothing stays: no
// container, network, volume or temporary file. It needs no port of the stack.
func verifyTest(t *testing.T) program {
	t.Helper()
	if os.Getenv("ZEEKDEMO_E2E") != "1" && !testenv.CI() {
		t.Skip("SKIPPED: starts containers; ZEEKDEMO_E2E=1 runs it")
	}
	testenv.NeedTool(t, "docker")
	if out, err := exec.Command("docker", "info").CombinedOutput(); err != nil {
		testenv.Missing(t, "no engine: "+string(out))
	}
	t.Setenv("TMPDIR", t.TempDir())
	volumes := docker(t, "volume", "ls", "-q", "--filter", "dangling=true")
	p := build(t)
	t.Cleanup(func() {
		if list := leftOfVerify(t); list != "" {
			t.Errorf("left: %s", list)
		}
		for name := range strings.FieldsSeq(docker(t, "volume", "ls", "-q", "--filter", "dangling=true")) {
			if !strings.Contains(volumes, name) {
				t.Errorf("a volume is left: %s", name)
			}
		}
	})
	return p
}

// leftOfVerify names what is there that a verification made.
func leftOfVerify(t *testing.T) string {
	t.Helper()
	label, sidecar := "label=org.zeekdemo.verify", "label=org.zeekdemo.sidecar"
	files, err := filepath.Glob(filepath.Join(os.TempDir(), "zeekdemo-*"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(docker(t, "ps", "-a", "--filter", label, "--format", "{{.Names}}") + " " +
		docker(t, "ps", "-a", "--filter", sidecar, "--format", "{{.Names}}") + " " +
		docker(t, "network", "ls", "--filter", label, "--format", "{{.Name}}") + " " + strings.Join(files, " "))
}

func decodeVerified(t *testing.T, r result) verified {
	t.Helper()
	var doc verified
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil {
		t.Fatalf("verify --json (exit code %d): %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	return doc
}

// checkProof looks whether every capture went by the way and lost nothing, in
// what the sensor, the kernel and this program counted.
func checkProof(t *testing.T, doc verified, via string) {
	t.Helper()
	for _, c := range doc.Captures {
		if l := c.Lossless; c.Verdict != "equal" || c.Via != via || !l.Governed || !c.Path.Counted || c.Path.Received != c.Path.Sent ||
			l.Ledger.Taken != l.Ledger.Sent || l.Ledger.Sent != c.Path.Sent {
			t.Errorf("%+v", c)
		}
	}
}

// Every capture of the collection passes the live path as it was sent, at the
// highest speed that the sensor takes, over both encapsulations in turn.
func TestVerifyEveryCapture(t *testing.T) {
	folder := testenv.Shared(t, "pcaps")
	p := verifyTest(t)
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	captures := map[string][]string{}
	for i, entry := range entries {
		switch name := entry.Name(); {
		case strings.HasSuffix(name, ".md"), name == "ieee80211.15.4.pcap": // no network packets in Ethernet: refused by name
		case i%2 == 0:
			captures["geneve"] = append(captures["geneve"], filepath.Join(folder, name))
		default:
			captures["vxlan"] = append(captures["vxlan"], filepath.Join(folder, name))
		}
	}
	for kind, names := range captures {
		r := p.run(t, append([]string{"verify", "--pull", "never", "--json", "--jobs", "3", "--encap", kind}, names...)...)
		doc := decodeVerified(t, r)
		if r.code != 0 || doc.Verdict != "equal" || len(doc.Captures) != len(names) {
			t.Errorf("%s: exit code %d, verdict %s, %d rows", kind, r.code, doc.Verdict, len(doc.Captures))
		}
		checkProof(t, doc, "direct")
		t.Logf("%s: %d captures in %s", kind, len(names), r.took)
	}
}

// The other ways carry as much: some thousands of packets, captures of other
// link types and a compressed one.
func TestVerifyByEveryWay(t *testing.T) {
	folder := testenv.Shared(t, "pcaps")
	p := verifyTest(t)
	for _, c := range []struct {
		via, kind string
		captures  []string
	}{
		{"sidecar", "geneve", []string{"modbusBig.pcap", "irc-dcc-send.pcapng", "echo-connections.pcap.gz"}},
		{"published", "vxlan", []string{"modbusBig.pcap", "nmap-vsn.pcap"}},
	} {
		args := []string{"verify", "--pull", "never", "--json", "--jobs", "2", "--via", c.via, "--encap", c.kind, "--lossless", "require"}
		for _, name := range c.captures {
			args = append(args, filepath.Join(folder, name))
		}
		r := p.run(t, args...)
		doc := decodeVerified(t, r)
		if r.code != 0 || len(doc.Captures) != len(c.captures) {
			t.Errorf("%s: exit code %d, %d rows", c.via, r.code, len(doc.Captures))
		}
		checkProof(t, doc, c.via)
		t.Logf("%s: %d captures in %s", c.via, len(c.captures), r.took)
	}
}

// Open-loop, as other programs send, docker-proxy loses packets; verify finds
// them and names the queue that overflowed.
func TestVerifyNamesDockerProxy(t *testing.T) {
	capture := testenv.Shared(t, "pcaps", "mix.pcap")
	p := verifyTest(t)
	r := p.run(t, "verify", "--pull", "never", "--json", "--via", "published", "--lossless", "off", capture)
	c := decodeVerified(t, r).Captures[0]
	if r.code != 3 || c.Verdict != "differs" || len(c.Findings) == 0 || c.Findings[0].Hop != "docker-proxy's socket" || c.Lossless.Governed {
		t.Errorf("exit code %d, %+v", r.code, c)
	}
}

// A capture that no Ethernet can carry is named, and fails.
func TestVerifyNamesWhatCannotPass(t *testing.T) {
	capture := testenv.Shared(t, "pcaps", "ieee80211.15.4.pcap")
	p := verifyTest(t)
	r := p.run(t, "verify", "--pull", "never", capture)
	if r.code != 1 || !strings.Contains(r.stdout, "link type IEEE802_15_4_NOFCS (230) is none of those that are normalised to Ethernet here") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// At the recorded pace Zeek sees live what it sees in the capture itself, also
// where the capture pauses for longer than a timeout.
func TestVerifyAtTheRecordedPace(t *testing.T) {
	quick := testenv.Shared(t, "pcaps", "bro.org.pcap")
	pausing := testenv.Shared(t, "pcaps", "ipv6-fragmented-dns.pcap")
	p := verifyTest(t)
	doc := decodeVerified(t, p.must(t, "verify", "--pull", "never", "--json", "--speed", "4x", "--pace", "recorded", quick))
	if doc.Captures[0].ByPace != 0 {
		t.Errorf("%d lines changed by pace", doc.Captures[0].ByPace)
	}
	p.must(t, "verify", "--pull", "never", "--pace", "recorded", pausing)
}

// Expectations make a test of detections: what is met passes, what is not is
// named with its line, and JUnit reads the same.
func TestVerifyExpectations(t *testing.T) {
	capture := testenv.Shared(t, "pcaps", "bro.org.pcap")
	p := verifyTest(t)
	dir := t.TempDir()
	expect, junit := filepath.Join(dir, "expect.txt"), filepath.Join(dir, "junit.xml")
	write := func(text string) {
		if err := os.WriteFile(expect, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("conn.log orig_pkts >= 0\nbro.org.pcap: conn.log proto=tcp >= 1\n")
	r := p.must(t, "verify", "--pull", "never", "--expect", expect, "--junit", junit, capture)
	if !strings.Contains(r.stdout, "2 of 2") {
		t.Errorf("met: %s", r.stdout)
	}
	write("conn.log proto=tcp >= 1\n*.pcap: notice.log note=HTTP::SQL_Injection >= 1\n")
	r = p.run(t, "verify", "--pull", "never", "--expect", expect, "--junit", junit, capture)
	if r.code != 3 || !strings.Contains(r.stdout, "line 2: *.pcap: notice.log note=HTTP::SQL_Injection >= 1: there are 0") {
		t.Errorf("unmet: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	document, err := os.ReadFile(junit)
	if err != nil || !bytes.Contains(document, []byte(`failures="1"`)) || !bytes.Contains(document, []byte("SQL_Injection")) {
		t.Errorf("JUnit: %v\n%s", err, document)
	}
}

// startSlow starts a verification that would take minutes and waits until its
// sensor runs, and its sidecar where there is to be one.
func startSlow(t *testing.T, p program, via, capture string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(p.path, "verify", "--pull", "never", "--pps", "2", "--via", via, capture)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	label := map[bool]string{true: "label=org.zeekdemo.sidecar", false: "label=org.zeekdemo.verify"}[via == "sidecar"]
	eventually(t, time.Minute, "the sensor runs", func() error {
		if docker(t, "ps", "-q", "--filter", label, "--filter", "status=running") == "" {
			return os.ErrNotExist
		}
		return nil
	})
	return cmd, &stderr
}

func TestVerifyInterrupted(t *testing.T) {
	capture := testenv.Shared(t, "pcaps", "bro.org.pcap")
	p := verifyTest(t)
	for _, via := range []string{"direct", "sidecar", "published"} {
		cmd, stderr := startSlow(t, p, via, capture)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its exit code is looked at
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("%s: exit code %d, want 130\n%s", via, code, stderr)
		}
		if list := leftOfVerify(t); list != "" {
			t.Errorf("left of %s: %s", via, list)
		}
	}
}

// What a killed client leaves is removed by the next one, and by `down`; a
// sidecar goes by itself.
func TestVerifyKilled(t *testing.T) {
	capture := testenv.Shared(t, "pcaps", "dns53.pcap")
	slow := testenv.Shared(t, "pcaps", "bro.org.pcap")
	p := verifyTest(t)
	for via, next := range map[string][]string{"sidecar": {"verify", "--pull", "never", capture}, "published": {"down"}} {
		cmd, _ := startSlow(t, p, via, slow)
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if leftOfVerify(t) == "" {
			t.Fatal("nothing is left of a killed client: the scenario shows nothing")
		}
		p.must(t, next...)
		eventually(t, 30*time.Second, "what "+via+" left goes with "+next[0], func() error {
			if list := leftOfVerify(t); list != "" {
				return errors.New(list)
			}
			return nil
		})
	}
}
