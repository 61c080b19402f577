package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// runOn runs the stand-in as a process of its own would run on a capture, and
// returns its folder of logs.
func runOn(t *testing.T, capture string, environment map[string]string, more ...string) string {
	t.Helper()
	dir := t.TempDir()
	script := fmt.Sprintf("redef LogAscii::use_json = T;\nredef Log::default_logdir = %q;\n", dir)
	args := append([]string{"-C", "-r", sharedCapture(t, capture), "local", "-e", script}, more...)
	if code := run(t.Context(), args, func(k string) string { return environment[k] }, io.Discard, io.Discard); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	return dir
}

func sharedCapture(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(sharedDir(t), "pcaps", name+".pcap")
	if _, err := os.Stat(file); err != nil {
		file += ".gz"
	}
	return file
}

// readLines reads a log's lines; a log that is not there has none.
func readLines(t *testing.T, file string) (lines []map[string]any) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		var line map[string]any
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		lines = append(lines, line)
	}
	return lines
}

// tell is what the lines say in some fields, sorted.
func tell(lines []map[string]any, fields string) []string {
	var list []string
	for _, line := range lines {
		var values []string
		for field := range strings.FieldsSeq(fields) {
			values = append(values, fmt.Sprint(line[field]))
		}
		list = append(list, strings.Join(values, " "))
	}
	slices.Sort(list)
	return list
}

// The captures on which Zeek disagrees with itself, the logs that it wrote for
// them, and the fields in which both must say the same.
func TestRandomCapturesHaveZeeksLines(t *testing.T) {
	for capture, logs := range map[string]map[string]string{
		"ocsp-revoked": {
			"files": "source mime_type is_orig seen_bytes total_bytes md5 sha1 sha256 local_orig depth",
			"ocsp":  "hashAlgorithm issuerNameHash issuerKeyHash certStatus revoketime revokereason thisUpdate nextUpdate",
		},
		"pe-files-timestamp": {
			"files": "source mime_type seen_bytes total_bytes md5 sha1 sha256",
			"pe":    "machine compile_ts subsystem is_exe is_64bit uses_dep section_names",
		},
		"krb-kinit": {
			"x509":  "fingerprint certificate.version certificate.serial certificate.key_type certificate.key_length certificate.not_valid_before certificate.not_valid_after",
			"weird": "name notice peer",
		},
		"ftp-many-port-expected": {
			"ftp":   "user command arg reply_code reply_msg",
			"weird": "name addl source",
		},
	} {
		dir := runOn(t, capture, nil)
		for log, fields := range logs {
			got := tell(readLines(t, filepath.Join(dir, log+".log")), fields)
			want := tell(readLines(t, filepath.Join(sharedDir(t), "zeek9", "random", capture, "1", log+".log")), fields)
			if len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("%s, %s.log:\n got %s\nwant %s", capture, log, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
			}
		}
	}
}

// Two processes agree on no identifier; with one file of seeds on everything.
func TestProcessesAreRandomUnlessSeeded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "seeds")
	first := runOn(t, "ocsp-revoked", nil, "--save-seeds", file)
	for log, field := range map[string]string{"conn": "uid", "files": "fuid", "ocsp": "id"} {
		one := tell(readLines(t, filepath.Join(first, log+".log")), field)
		other := tell(readLines(t, filepath.Join(runOn(t, "ocsp-revoked", nil), log+".log")), field)
		if len(one) == 0 || slices.ContainsFunc(one, func(id string) bool { return slices.Contains(other, id) }) {
			t.Errorf("%s.log: %s is %v in one process, %v in another", log, field, one, other)
		}
	}
	for name, dir := range map[string]string{
		"--load-seeds":   runOn(t, "ocsp-revoked", nil, "--load-seeds", file),
		"ZEEK_SEED_FILE": runOn(t, "ocsp-revoked", map[string]string{"ZEEK_SEED_FILE": file}),
	} {
		for _, log := range []string{"conn.log", "files.log", "ocsp.log", "http.log"} {
			want, err := os.ReadFile(filepath.Join(first, log))
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(filepath.Join(dir, log)); string(got) != string(want) {
				t.Errorf("%s: %s differs:\n got %s\nwant %s", name, log, got, want)
			}
		}
	}
}

func TestBrokenSeedsAreFatal(t *testing.T) {
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("1\n2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{short, short + "-missing"} {
		var errs strings.Builder
		if code := run(t.Context(), []string{"-r", "x", "-G", name}, func(string) string { return "" }, io.Discard, &errs); code == 0 || !strings.Contains(errs.String(), "could not load seeds") {
			t.Errorf("%s: exit code %d, %s", name, code, errs.String())
		}
	}
}

// Sets, and which of twenty commands has the data connection, follow the seeds.
func TestOrderFollowsTheSeeds(t *testing.T) {
	orders, channels := map[string]bool{}, map[string]bool{}
	for i := range uint32(30) {
		dir, file := "", filepath.Join(t.TempDir(), "seeds")
		if err := os.WriteFile(file, (&seeds{i, 7}).text(), 0o600); err != nil {
			t.Fatal(err)
		}
		dir = runOn(t, "pe-files-timestamp", map[string]string{"ZEEK_SEED_FILE": file})
		orders[fmt.Sprint(readLines(t, filepath.Join(dir, "files.log"))[1]["analyzers"])] = true
		dir = runOn(t, "ftp-many-port-expected", map[string]string{"ZEEK_SEED_FILE": file})
		for _, line := range readLines(t, filepath.Join(dir, "ftp.log")) {
			if line["data_channel.resp_h"] == "10.0.0.200" && line["data_channel.resp_p"] == 20500.0 {
				channels[fmt.Sprint(line["arg"])] = true
			}
		}
	}
	if len(orders) < 10 || len(channels) < 10 {
		t.Errorf("thirty seeds gave %d orders of analyzers and %d commands with a data connection", len(orders), len(channels))
	}
}

// Like Zeek, a process opens its logs anew.
func TestLogsOfAnEarlierProcessAreGone(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		s := newTestSensor(defaultScript(), dir)
		s.frame(1, noTunnel(), linkEthernet, udpFrame(), len(udpFrame()))
		if err := s.finish(); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(readLines(t, filepath.Join(dir, "conn.log"))); n != 1 {
		t.Errorf("%d lines after two processes with one connection each", n)
	}
}

// A name server is asked for the ends of SSH connections, unless ZEEK_DNS_FAKE
// is set.
func TestAsksForNames(t *testing.T) {
	for _, fake := range []string{"", "1"} {
		server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		conf := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(conf, []byte("search x\nnameserver 127.0.0.1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := newResolver(func(string) string { return fake }, conf)
		if fake != "" {
			if r.server != "" {
				t.Errorf("asks %s though ZEEK_DNS_FAKE is set", r.server)
			}
			continue
		}
		if r.server != "127.0.0.1:53" {
			t.Fatalf("would ask %q", r.server)
		}
		r.server = server.LocalAddr().String()
		s := newSensor(defaultScript(), newLogSet(t.TempDir()), seeds{}, r)
		if err := readCapture(t.Context(), sharedCapture(t, "ssh"), s); err != nil {
			t.Fatal(err)
		}
		if err := server.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1500)
		n, from, err := server.ReadFromUDP(b)
		if err != nil {
			t.Fatalf("no question: %v", err)
		}
		if !strings.Contains(string(b[:n]), "\x07in-addr\x04arpa\x00\x00\x0c\x00\x01") {
			t.Errorf("asked %q", b[:n])
		}
		if _, err := server.WriteToUDP(b[:n], from); err != nil {
			t.Error(err)
		}
	}
}

// A script that prints the types of the logs' fields finds them; every field that
// the captures bring is among them.
func TestColumnsAreDescribed(t *testing.T) {
	for _, capture := range []string{"ocsp-revoked", "pe-files-timestamp", "krb-kinit", "ftp-many-port-expected", "ssl.v3", "bro.org", "dns53"} {
		dir := t.TempDir()
		script := fmt.Sprintf("redef Log::default_logdir = %q;\nevent zeek_init()\n{\nlocal out = open(\"columns.txt\");\n"+
			"for ( id in Log::active_streams ) print out, record_fields(Log::active_streams[id]$columns);\n}\n", dir)
		if code := run(t.Context(), []string{"-r", sharedCapture(t, capture), "-e", script}, func(string) string { return "" }, io.Discard, io.Discard); code != 0 {
			t.Fatalf("exit code %d", code)
		}
		described := map[string]bool{}
		text, err := os.ReadFile(filepath.Join(dir, "columns.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			words := strings.SplitN(strings.TrimSpace(line), " ", 3)
			described[words[0]+" "+words[1]] = true
		}
		logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
		for _, log := range logs {
			name := strings.TrimSuffix(filepath.Base(log), ".log")
			for _, line := range readLines(t, log) {
				for field := range line {
					if !described[name+" "+field] {
						t.Fatalf("%s: field %s of %s.log has no type", capture, field, name)
					}
				}
			}
		}
	}
}
