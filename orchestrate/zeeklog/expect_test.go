package zeeklog

import (
	"strings"
	"testing"
)

func sampleLogs(t *testing.T) Logs {
	t.Helper()
	logs := Logs{}
	for name, text := range map[string]string{
		"notice.log": `{"note":"HTTP::SQL_Injection","msg":"a b","actions":["Notice::ACTION_LOG","Notice::ACTION_DROP"]}` + "\n" +
			`{"note":"Scan::Port_Scan","msg":"c","actions":[]}`,
		"conn.log": `{"id.orig_h":"10.0.0.1","id.orig_p":1025,"id.resp_h":"10.0.0.2","id.resp_p":80,"proto":"tcp","missed_bytes":0,"local_orig":true}` + "\n" +
			`{"id.orig_h":"10.0.0.1","id.orig_p":1026,"id.resp_h":"10.0.0.2","id.resp_p":53,"proto":"udp","missed_bytes":12,"service":"dns"}`,
	} {
		if err := logs.add(name, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	return logs
}

func TestExpectations(t *testing.T) {
	logs := sampleLogs(t)
	for text, fails := range map[string]string{
		"notice.log note=HTTP::SQL_Injection >= 1":           "",
		"notice.log note=HTTP::SQL_Injection == 2":           "there are 1",
		"notice.log == 2  # all":                             "",
		`notice.log msg="a b" note=HTTP::SQL_Injection == 1`: "",
		"notice.log actions=Notice::ACTION_DROP < 2":         "",
		"notice.log msg=c actions=Notice::ACTION_LOG == 0":   "",
		"weird.log == 0":                            "",
		"weird.log > 0":                             "there are 0",
		"conn.log missed_bytes == 0":                `missed_bytes is "12" in udp 10.0.0.1:1026 → 10.0.0.2:53`,
		"conn.log proto=tcp missed_bytes == 0":      "",
		"conn.log missed_bytes <= 12":               "",
		"conn.log id.resp_p != 443":                 "",
		"conn.log proto=udp service == dns":         "",
		"conn.log proto=tcp service == dns":         `service is ""`,
		`conn.log service="" == 1`:                  "",
		"conn.log local_orig=true == 1":             "",
		"conn.log id.orig_p == 1025.0":              `id.orig_p is "1026"`,
		"notice.log actions != Notice::ACTION_PAGE": "",
		"notice.log actions == Notice::ACTION_LOG":  `actions is ""`,
		"conn.log proto == \"tcp\"":                 `proto is "udp"`,
		"conn.log service < 3":                      `service is ""`,
	} {
		list, err := ParseExpectations(strings.NewReader(text))
		if err != nil || len(list) != 1 {
			t.Errorf("%s: %v, %v", text, list, err)
			continue
		}
		switch err := list[0].Check(logs); {
		case fails == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case fails != "" && (err == nil || !strings.Contains(err.Error(), fails)):
			t.Errorf("%s: %v, want %q", text, err, fails)
		}
	}
}

func TestExpectationsForCaptures(t *testing.T) {
	list, err := ParseExpectations(strings.NewReader("# head\n\nbro.org.pcap: conn.log >= 1\r\n*.pcapng: dns.log == 0\n  conn.log missed_bytes == 0\n"))
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	for i, want := range []struct {
		line  int
		yes   string
		notTo string
	}{{3, "bro.org.pcap", "bro.org.pcapng"}, {4, "x.pcapng", "x.pcap"}, {5, "anything", ""}} {
		e := list[i]
		if e.Line != want.line || !e.For(want.yes) || want.notTo != "" && e.For(want.notTo) {
			t.Errorf("%+v: want line %d, for %q, not for %q", e, want.line, want.yes, want.notTo)
		}
	}
}

func TestExpectationMistakesNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"conn.log >= 1\nconn >= 1":           "line 2: want the name of a log",
		"conn.log":                           "line 1: want an operator",
		"conn.log missed_bytes 0":            "line 1: want an operator",
		"conn.log missed_bytes == 0 or so":   "line 1: want an operator",
		"conn.log >= many":                   `line 1: "many": want a number of lines`,
		"conn.log >= -1":                     "want a number of lines",
		"conn.log service > dns":             "only numbers have an order",
		`conn.log service == "dns`:           "the quotes do not close",
		"[: conn.log >= 1":                   `line 1: capture "["`,
		": conn.log >= 1":                    `line 1: capture ""`,
		"x.pcap:":                            "want the name of a log",
		".log >= 1":                          "want the name of a log",
		"conn.log >= 1\n\n\nx\nconn.log < y": "line 5",
	} {
		if _, err := ParseExpectations(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// Whatever parses is found again in its own text, and can be checked.
func FuzzExpectations(f *testing.F) {
	f.Add("bro.org.pcap: notice.log note=\"a b\" >= 1 # c")
	f.Add("conn.log missed_bytes == 0\n*.pcap: x.log a=b c=d e != \"\\x00\"")
	f.Add("[a-: conn.log >= 1")
	f.Add("\v.log > 0")
	f.Add("\v\v: x.log a=b c=d e != \"\xf7\"")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseExpectations(strings.NewReader(text))
		logs := Logs{"conn": {{"a": "b", "c": []any{"d"}}}}
		for _, e := range list {
			if e.Line < 1 || e.Log == "" || e.Op == "" || err == nil && e.Text == "" {
				t.Fatalf("%q became %+v", text, e)
			}
			again, err := ParseExpectations(strings.NewReader(e.Text))
			if err != nil || len(again) != 1 {
				t.Fatalf("%q does not parse again: %v", e.Text, err)
			}
			_ = e.Check(logs)
			_ = e.For("x.pcap")
		}
	})
}
