package zeeklog

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// redraw gives every identifier in the logs another one of the same form, as
// another process draws it, wherever it is quoted.
func redraw(logs Logs) {
	drawn := map[string]string{}
	draw := func(text string) string {
		return identifier.ReplaceAllStringFunc(text, func(word string) string {
			if !likeIdentifier(word) {
				return word
			}
			if drawn[word] == "" {
				drawn[word] = fmt.Sprintf("%cx7Y%04dbQ9mK2vR1z", word[0], len(drawn))
			}
			return drawn[word]
		})
	}
	for _, records := range logs {
		for _, r := range records {
			for field, value := range r {
				switch value := value.(type) {
				case string:
					r[field] = draw(value)
				case []any:
					list := slices.Clone(value)
					for i := range list {
						list[i] = draw(valueText(list[i]))
					}
					r[field] = list
				}
			}
		}
	}
}

// parse reads logs from text, a line each: LOG JSON.
func parse(t *testing.T, text string) Logs {
	t.Helper()
	logs := Logs{}
	for line := range strings.Lines(text) {
		if name, record, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			if err := logs.add(name, strings.NewReader(record)); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
	return logs
}

// Whatever quotes an identifier is compared by what it names.
func TestIdentifiersAreComparedByWhatTheyName(t *testing.T) {
	const quoting = `
conn {"ts":1,"uid":"CAAAAAAAAAAAAAAAa1","id.orig_h":"10.0.0.1","id.orig_p":1,"id.resp_h":"10.0.0.2","id.resp_p":80,"proto":"tcp"}
conn {"ts":2,"uid":"CBBBBBBBBBBBBBBBb2","id.orig_h":"10.0.0.1","id.orig_p":2,"id.resp_h":"10.0.0.2","id.resp_p":80,"proto":"tcp","tunnel_parents":["CAAAAAAAAAAAAAAAa1"]}
conn {"ts":3,"uid":"CCCCCCCCCCCCCCCCc3","id.orig_h":"10.0.0.1","id.orig_p":1,"id.resp_h":"10.0.0.2","id.resp_p":80,"proto":"tcp"}
files {"ts":1.5,"fuid":"FAAAAAAAAAAAAAAAa1","conn_uids":["CAAAAAAAAAAAAAAAa1","CBBBBBBBBBBBBBBBb2"],"tx_hosts":["10.0.0.2"],"rx_hosts":["10.0.0.1"],"source":"HTTP","md5":"1"}
files {"ts":1.6,"fuid":"FBBBBBBBBBBBBBBBb2","parent_fuid":"FAAAAAAAAAAAAAAAa1","uid":"CAAAAAAAAAAAAAAAa1","id.orig_h":"10.0.0.1","id.orig_p":1,"id.resp_h":"10.0.0.2","id.resp_p":80,"source":"HTTP","md5":"2"}
files {"ts":1.6,"fuid":"FCCCCCCCCCCCCCCCc3","uid":"CAAAAAAAAAAAAAAAa1","id.orig_h":"10.0.0.1","id.orig_p":1,"id.resp_h":"10.0.0.2","id.resp_p":80,"source":"HTTP","md5":"3"}
http {"ts":1.5,"uid":"CAAAAAAAAAAAAAAAa1","id.orig_h":"10.0.0.1","id.orig_p":1,"id.resp_h":"10.0.0.2","id.resp_p":80,"resp_fuids":["FBBBBBBBBBBBBBBBb2","FAAAAAAAAAAAAAAAa1"]}
pe {"ts":1.5,"id":"FBBBBBBBBBBBBBBBb2","section_names":[".text",".data"]}
ocsp {"ts":1.5,"id":"FCCCCCCCCCCCCCCCc3"}
dhcp {"ts":1.5,"uids":["CBBBBBBBBBBBBBBBb2","CAAAAAAAAAAAAAAAa1"]}
weird {"ts":2,"name":"x","addl":"FCCCCCCCCCCCCCCCc3"}
weird {"ts":2,"name":"y","addl":"no log knows Fz9Xw2Qq7LkPd3mN4v"}
notice {"ts":2,"note":"N","msg":"file FAAAAAAAAAAAAAAAa1, of CCCCCCCCCCCCCCCCc3","sub":"CBBBBBBBBBBBBBBBb2","fuid":"FAAAAAAAAAAAAAAAa1"}
`
	want := parse(t, quoting)
	got := parse(t, quoting)
	redraw(got)
	for log := range got { // in any order of lines, where that tells nothing
		slices.Reverse(got[log])
	}
	for _, r := range got["files"] { // read at once
		r["ts"] = jsonNumber(2)
	}
	if d := Compare(got, want); len(d) > 0 {
		dump(t, d)
		t.Errorf("%d differences between processes that differ in identifiers alone", len(d))
	}
	for _, swap := range [][2]string{
		{`"addl":"FCCCCCCCCCCCCCCCc3"`, `"addl":"FBBBBBBBBBBBBBBBb2"`}, {`pe {"ts":1.5,"id":"FBBBBBBBBBBBBBBBb2"`, `pe {"ts":1.5,"id":"FCCCCCCCCCCCCCCCc3"`},
		{`ocsp {"ts":1.5,"id":"FCCCCCCCCCCCCCCCc3"`, `ocsp {"ts":1.5,"id":"FAAAAAAAAAAAAAAAa1"`},
		{`"parent_fuid":"FAAAAAAAAAAAAAAAa1"`, `"parent_fuid":"FCCCCCCCCCCCCCCCc3"`}, {`"tunnel_parents":["CAAAAAAAAAAAAAAAa1"]`, `"tunnel_parents":["CCCCCCCCCCCCCCCCc3"]`},
		{`of CCCCCCCCCCCCCCCCc3`, `of CAAAAAAAAAAAAAAAa1`}, {`"sub":"CBBBBBBBBBBBBBBBb2"`, `"sub":"CAAAAAAAAAAAAAAAa1"`},
		{`"uids":["CBBBBBBBBBBBBBBBb2",`, `"uids":["CCCCCCCCCCCCCCCCc3",`}, {`"resp_fuids":["FBBBBBBBBBBBBBBBb2","FAAAAAAAAAAAAAAAa1"]`, `"resp_fuids":["FAAAAAAAAAAAAAAAa1","FBBBBBBBBBBBBBBBb2"]`},
		{`[".text",".data"]`, `[".data",".text"]`},
	} {
		if changed := strings.Replace(quoting, swap[0], swap[1], 1); changed == quoting || len(Compare(parse(t, changed), want)) == 0 {
			t.Errorf("%s instead of %s is no difference", swap[1], swap[0])
		}
	}
}

// Words that people made are no identifiers.
func TestWordsAreNoIdentifiers(t *testing.T) {
	for word, want := range map[string]bool{
		"FL511m4RBY8kPxoE59": true, "CGXFuj33Z8Tfb3d19": true, "CvrrlnpFNPXFxOzBe": true,
		"ConfigurationManager": false, "FirefoxDeveloperTools": false, "CERTIFICATE00000001": false, "File20150102130405": false,
		"C": false, "Firefox140": false, "deadbeefdeadbeef12": false,
	} {
		if likeIdentifier(word) != want {
			t.Errorf("%s: %v", word, !want)
		}
	}
	n := names{}
	if text := "GET /FL511m4RBY8kPxoE59"; n.rename("http", text) != text {
		t.Error("a part of a URI is taken for an identifier")
	}
	for _, logs := range []Logs{offline(t, "bro.org.pcap"), offline(t, "smb2.pcap")} {
		for log, records := range logs {
			for _, r := range records {
				for field, value := range r {
					if word, ok := value.(string); ok && likeIdentifier(word) && !slices.Contains([]string{"uid", "fuid", "id"}, field) {
						t.Errorf("%s.log %s: %q is taken for an identifier", log, field, word)
					}
				}
			}
		}
	}
}

// Other identifiers make no difference in the logs of any real capture.
func TestRealLogsWithOtherIdentifiersAreEqual(t *testing.T) {
	folders, err := filepath.Glob(filepath.Join(testenv.Shared(t, "zeek9", "offline"), "*"))
	if err != nil || len(folders) == 0 {
		t.Fatalf("no folders: %v", err)
	}
	for _, folder := range folders {
		want, err := ReadFS(os.DirFS(folder))
		if err != nil {
			t.Fatal(err)
		}
		got := clone(want)
		redraw(got)
		if d := Compare(got, want); len(d) > 0 {
			dump(t, d[:1])
			t.Errorf("%s: %d differences", filepath.Base(folder), len(d))
		}
	}
}

// randomRun is what one of two real processes wrote for a capture.
func randomRun(t *testing.T, capture, run string) Logs {
	t.Helper()
	logs, err := ReadFS(os.DirFS(testenv.Shared(t, "zeek9", "random", capture, run)))
	if err != nil {
		t.Fatal(err)
	}
	return logs
}

// Two real processes on the same capture are equal, but where which of many data
// connections is remembered follows the order of a table.
func TestRealRandomRuns(t *testing.T) {
	for capture, want := range map[string]string{
		"ocsp-revoked": "", "pe-files-timestamp": "", "krb-kinit": "",
		"ftp-many-port-expected": "data_channel.orig_h data_channel.passive data_channel.resp_h data_channel.resp_p",
	} {
		for _, rules := range []Rules{{}, {Jitter: PathJitter}} {
			differing := map[string]bool{}
			for _, d := range rules.Compare(randomRun(t, capture, "1"), randomRun(t, capture, "2")) {
				for _, f := range d.Fields {
					differing[f.Field] = true
				}
			}
			if got := strings.Join(slices.Sorted(maps.Keys(differing)), " "); got != want {
				t.Errorf("%s: fields %q differ, want %q", capture, got, want)
			}
		}
	}
}

// Live and offline, file identifiers differ too: they hash when a connection
// starts.
func TestRealRandomRunsWithOtherFileIdentifiers(t *testing.T) {
	for _, capture := range []string{"ocsp-revoked", "pe-files-timestamp", "krb-kinit"} {
		got := clone(randomRun(t, capture, "1"))
		redraw(got)
		if d := (Rules{Jitter: PathJitter}).Compare(got, randomRun(t, capture, "2")); len(d) > 0 {
			dump(t, d)
			t.Errorf("%s: %d differences", capture, len(d))
		}
	}
}
