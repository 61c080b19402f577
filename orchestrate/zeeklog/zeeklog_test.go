package zeeklog

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

func jsonNumber(n int) json.Number { return json.Number(strconv.Itoa(n)) }

func TestParseNamesTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"{\"a\":1}\n{\"a\":":        "line 2",
		"#separator \\x09\n":        "line 1: this is Zeek's tab-separated form",
		"{\"a\":1}\n\n[1]\n":        "line 3",
		"{\"a\":1} {\"b\":2}\n":     "line 1: more than one",
		"null\n":                    "line 1: not a JSON object",
		"{\"a\":1}\n{\"a\":1}\n7\n": "line 3",
	} {
		if _, err := Parse(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want %q", text, err, want)
		}
	}
}

func TestReadFSAndTarAgree(t *testing.T) {
	files := map[string]string{"conn.log": "{\"id.orig_h\":\"10.0.0.1\"}\n{}\n", "dns.log": "", "notes.txt": "no log"}
	fsys := fstest.MapFS{}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, content := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(content)}
		if err := w.WriteHeader(&tar.Header{Name: "zeek/" + name, Size: int64(len(content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	fromFS, err := ReadFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	fromTar, err := ReadTar(&archive)
	if err != nil {
		t.Fatal(err)
	}
	for _, logs := range []Logs{fromFS, fromTar} {
		if len(logs["conn"]) != 2 || len(logs["dns"]) != 0 || logs["notes"] != nil {
			t.Errorf("read %v", logs)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("{\"a\":[1,\"b\",null],\"id.orig_h\":\"::1\"}\n"))
	f.Add([]byte("#fields\n"))
	f.Add([]byte("{\"a\":{\"b\":1e400}}\n{\"ts\":1.5}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := Parse(bytes.NewReader(data))
		if err != nil {
			return
		}
		logs := Logs{"x": records, "conn": records, "notice": records}
		if d := Compare(logs, logs); len(d) > 0 {
			t.Errorf("logs differ from themselves: %v", d)
		}
	})
}

// The counts name the hop; only where they agree do the connections speak.
func TestExplain(t *testing.T) {
	some := []Difference{{Log: "conn", Cause: Lost}}
	divided := []Difference{{Log: "conn", Cause: TimedOut}}
	sent := Path{Sent: 100, SentBytes: 5000, Counted: true, Received: 100, ReceivedBytes: 5000, DropsKnown: true}
	with := func(change func(*Path)) Path { p := sent; change(&p); return p }
	for _, c := range []struct {
		name  string
		path  Path
		diffs []Difference
		cause Cause
		hop   string
		text  string
	}{
		{"nothing wrong", sent, nil, "", "", ""},
		{"dropped at the socket", with(func(p *Path) { p.Received, p.Dropped = 97, 3 }), some, Lost, hopSocket, "3 datagrams were dropped"},
		{"lost before it", with(func(p *Path) { p.Received = 99 }), some, Lost, hopBefore, "1 of 100 datagrams were lost before"},
		{"lost though no line differs", with(func(p *Path) { p.Received = 99 }), nil, Lost, hopBefore, "1 of 100"},
		{"lost somewhere", with(func(p *Path) { p.Received, p.DropsKnown = 99, false }), some, Lost, hopBefore, "on the way or at"},
		{"doubled", with(func(p *Path) { p.Received = 101 }), some, Doubled, hopBefore, "1 datagrams more"},
		{"cut", with(func(p *Path) { p.ReceivedBytes = 4990 }), some, Cut, hopSocket, "10 of 5000 bytes"},
		{"in another order, as far as is known", sent, some, Unexplained, hopNone, "whether they had their order and their bytes was not looked at"},
		{"in order, altered or not", with(func(p *Path) { p.OrderKnown = true }), some, Unexplained, hopNone, "whether they were altered was not looked at"},
		{"whole, in order or not", with(func(p *Path) { p.BytesKnown = true }), some, Unexplained, hopNone, "whether they had their order was not looked at"},
		{"in order and whole", with(func(p *Path) { p.OrderKnown, p.BytesKnown = true, true }), some, Unexplained, hopNone, "not on the path"},
		{"seen in another order", with(func(p *Path) { p.OrderKnown, p.Disordered = true, 2 }), some, Reordered, hopBefore, "2 of 100 packets arrived in another order"},
		{"seen in another order though no line differs", with(func(p *Path) { p.OrderKnown, p.Disordered = true, 2 }), nil, Reordered, hopBefore, "2 of 100"},
		{"seen with other bytes", with(func(p *Path) { p.BytesKnown, p.Altered = true, 1 }), some, Altered, hopBefore, "1 of 100 packets arrived with other bytes"},
		{"replaced by longer ones", with(func(p *Path) { p.ReceivedBytes = 5010 }), some, Altered, hopBefore, "10 bytes more"},
		{"timed out", sent, divided, TimedOut, hopSensor, "timeout"},
		{"nobody listened", with(func(p *Path) { p.Refused, p.Counted = 4, false }), some, Lost, hopBefore, "refused"},
		{"no counts", Path{Sent: 100}, some, Lost, hopBefore, "told no counts"},
		{"the kernel's counts", Path{Sent: 100, Taken: 98, TakenKnown: true}, some, Lost, hopBefore, "2 of 100"},
		{"the kernel's counts, others' too", Path{Sent: 100, Taken: 101, TakenKnown: true}, some, Lost, hopBefore, "told no counts"},
		{"dropped by docker-proxy", with(func(p *Path) { p.Received, p.ProxyDropped = 97, 3 }), some, Lost, hopProxy, "3 datagrams were dropped"},
		{"counted elsewhere", with(func(p *Path) { p.Received, p.Elsewhere = 97, []string{"UdpNoPorts of the host (3)"} }), some, Lost, hopBefore,
			"3 of 100 datagrams were lost before the sensor's socket; meanwhile grew UdpNoPorts of the host (3)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Explain(c.path, c.diffs)
			if c.cause == "" {
				if len(f) > 0 {
					t.Errorf("found %v", f)
				}
				return
			}
			if len(f) == 0 || f[0].Cause != c.cause || f[0].Hop != c.hop || !strings.Contains(f[0].Text, c.text) {
				t.Errorf("found %v, want %s at %s: %q", f, c.cause, c.hop, c.text)
			}
		})
	}
}
