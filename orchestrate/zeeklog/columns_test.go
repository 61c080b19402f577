package zeeklog

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestParseColumns(t *testing.T) {
	c, err := ParseColumns(strings.NewReader("conn id.orig_h addr\n\nhttp tags set[enum HTTP::Tags]\nradius ttl interval\n"))
	if err != nil || c["conn"]["id.orig_h"] != "addr" || c["http"]["tags"] != "set[enum HTTP::Tags]" || c["radius"]["ttl"] != "interval" {
		t.Errorf("read %v, %v", c, err)
	}
	if _, err := ParseColumns(strings.NewReader("conn ts time\nconn uid\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("half a line: %v", err)
	}
	if known, err := ParseColumns(strings.NewReader(knownColumns)); err != nil || known["radius"]["ttl"] != "interval" || known["dns"]["answers"] != "vector of string" {
		t.Errorf("the known ones: %v, %v", known, err)
	}
}

// The script must write the file that is looked for, and be a script by itself.
func TestColumnsScriptWritesTheFile(t *testing.T) {
	if s := ColumnsScript(); !strings.Contains(s, `open("`+ColumnsFile+`")`) || strings.Count(s, "{") != strings.Count(s, "}") {
		t.Errorf("script %s", s)
	}
}

func TestReadRunTakesTheColumns(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, text := range map[string]string{"zeek/conn.log": "{}\n", "zeek/" + ColumnsFile: "conn ts time\n"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	run, err := ReadRun(&archive)
	if err != nil || len(run.Logs["conn"]) != 1 || run.Columns["conn"]["ts"] != "time" {
		t.Errorf("read %+v, %v", run, err)
	}
}

// What the types make of values: a set has no order, a vector has; times and
// intervals are measured, whatever their field is called.
func TestTypesDecideHowValuesAreCompared(t *testing.T) {
	columns := Columns{"x": {"ts": "time", "took": "interval", "names": "set[string]", "steps": "vector of string", "at": "time"}}
	base := `x {"ts":100,"took":1.5,"names":["a","b"],"steps":["a","b"],"at":5000,"n":1}`
	for name, c := range map[string]struct {
		from, to string
		columns  Columns
		jitter   time.Duration
		equal    bool
	}{
		"a set in another order":                            {`"names":["a","b"]`, `"names":["b","a"]`, columns, 0, true},
		"a vector in another order":                         {`"steps":["a","b"]`, `"steps":["b","a"]`, columns, 0, false},
		"a list of unknown type in another order":           {`"steps":["a","b"]`, `"steps":["b","a"]`, nil, 0, true},
		"another interval":                                  {`"took":1.5`, `"took":2.5`, columns, 0, true},
		"another interval, of unknown type":                 {`"took":1.5`, `"took":2.5`, nil, 0, false},
		"another time":                                      {`"at":5000`, `"at":9000`, columns, 0, true},
		"another interval, within the jitter":               {`"took":1.5`, `"took":2.5`, columns, PathJitter, true},
		"an interval that no jitter explains":               {`"took":1.5`, `"took":2000.5`, columns, PathJitter, false},
		"a time that no jitter explains":                    {`"at":5000`, `"at":9000`, columns, PathJitter, false},
		"a time that keeps its distance from the line's":    {`"ts":100,"took":1.5,"names":["a","b"],"steps":["a","b"],"at":5000`, `"ts":900100,"took":1.5,"names":["a","b"],"steps":["a","b"],"at":905001`, columns, PathJitter, true},
		"a time in the packets, with the line at another":   {`"ts":100`, `"ts":900100`, columns, PathJitter, true},
		"an interval that one process leaves out":           {`"took":1.5,`, ``, columns, PathJitter, true},
		"another number":                                    {`"n":1`, `"n":2`, columns, PathJitter, false},
		"the start of the line, as a number of another day": {`"ts":100`, `"ts":200`, nil, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(base, c.from, c.to, 1)
			if changed == base {
				t.Fatal("nothing changed")
			}
			d := Rules{Columns: c.columns, Jitter: c.jitter}.Compare(parse(t, changed), parse(t, base))
			if equal := len(d) == 0; equal != c.equal {
				t.Errorf("equal: %v, want %v: %v", equal, c.equal, d)
			}
		})
	}
}

// Lines that say the same are told apart by the times in their packets, also
// where one process gave all of them one time.
func TestLinesThatSayTheSameAreMatchedByTheirTimes(t *testing.T) {
	columns := Columns{"ntp": {"ts": "time", "xmt_time": "time"}}
	rules := Rules{Columns: columns, Jitter: PathJitter}
	live := parse(t, "ntp {\"ts\":9,\"xmt_time\":3000}\nntp {\"ts\":9,\"xmt_time\":1000}\nntp {\"ts\":9,\"xmt_time\":2000}")
	sent := parse(t, "ntp {\"ts\":7,\"xmt_time\":1000}\nntp {\"ts\":8,\"xmt_time\":2000}\nntp {\"ts\":9,\"xmt_time\":3000}")
	if d := rules.Compare(live, sent); len(d) > 0 {
		t.Errorf("differs: %v", d)
	}
	live["ntp"][1]["xmt_time"] = jsonNumber(5000)
	if d := rules.Compare(live, sent); len(d) != 1 || len(d[0].Fields) != 1 || d[0].Fields[0].Field != "xmt_time" {
		t.Errorf("one that is altered: %v", d)
	}
}

// Times that text quotes are measured too, if they are this line's and no other.
func TestTimesInText(t *testing.T) {
	for _, c := range []struct {
		got, want string
		equal     bool
	}{
		{`files {"ts":1700000000.5,"extracted":"extract-1700000001.25-HTTP-FKi7Pk47Xmw8dswjRh"}`, `files {"ts":1600000000.5,"extracted":"extract-1600000003.5-HTTP-FmjWkD2FgbDdTTGIGa"}`, true},
		{`http {"ts":1700000000.5,"uri":"/1700000001.25"}`, `http {"ts":1600000000.5,"uri":"/1700000001.25"}`, true},
		{`http {"ts":1700000000.5,"uri":"/1234567890.25"}`, `http {"ts":1700000000.5,"uri":"/1234567891.25"}`, false},
		{`notice {"ts":1,"msg":"10.0.0.1 scanned 15 ports of 10.0.0.2 in 0m1s"}`, `notice {"ts":1,"msg":"10.0.0.1 scanned 15 ports of 10.0.0.2 in 0m2s"}`, true},
		{`notice {"ts":1,"msg":"10.0.0.1 scanned 15 ports of 10.0.0.2 in 0m1s"}`, `notice {"ts":1,"msg":"10.0.0.1 scanned 16 ports of 10.0.0.2 in 0m1s"}`, false},
	} {
		files := "\nfiles {\"ts\":1,\"fuid\":\"FKi7Pk47Xmw8dswjRh\"}\n"
		got, want := parse(t, c.got+files), parse(t, c.want+strings.Replace(files, "FKi7Pk47Xmw8dswjRh", "FmjWkD2FgbDdTTGIGa", 1))
		if equal := len(Compare(got, want)) == 0; equal != c.equal {
			t.Errorf("%s and %s: equal %v", c.got, c.want, equal)
		}
	}
}

// radius.log's ttl, and whatever else is known of Zeek's own logs, is measured
// also for a process that told no types.
func TestKnownMeasuredFields(t *testing.T) {
	got := parse(t, `radius {"ts":1,"uid":"CAAAAAAAAAAAAAAAa1","ttl":0.5,"username":"u"}`)
	want := parse(t, `radius {"ts":1,"uid":"CAAAAAAAAAAAAAAAa1","ttl":0.7,"username":"u"}`)
	if d := Compare(got, want); len(d) > 0 {
		t.Errorf("differs: %v", d)
	}
}
