package zeeklog

import (
	"fmt"
	"testing"
)

func TestSummarise(t *testing.T) {
	var list []Difference
	for range 3 {
		list = append(list, Difference{Log: "http", Fields: []FieldChange{{Field: "status_code"}, {Field: "uri"}}, Cause: Unexplained})
	}
	list = append(list,
		Difference{Log: "dns", Got: "a", Cause: Unexplained}, Difference{Log: "dns", Want: "b", Cause: Unexplained},
		Difference{Log: "conn", Got: "c", Cause: TimedOut}, Difference{Log: "conn", Want: "d", Cause: TimedOut},
		Difference{Log: "conn", Fields: []FieldChange{{Field: "orig_pkts"}}, Cause: Lost},
		Difference{Log: "http", Got: "e", Cause: TimedOut})
	want := []string{
		"conn 2 connections divided otherwise", "conn 1 connections of fewer packets",
		"http 3 status_code, uri", "dns 2 lines that only one has", "http 1 connections divided otherwise",
	}
	kinds := Summarise(list)
	var got []string
	lines := 0
	for _, k := range kinds {
		got = append(got, fmt.Sprintf("%s %d %s", k.Log, k.Lines, k.Reason))
		lines += k.Lines
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || lines != len(list) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if len(Summarise(nil)) != 0 {
		t.Error("nothing has kinds")
	}
}

// However many lines differ, a person reads a line for each log and reason.
func TestSummaryOfManyRealLines(t *testing.T) {
	want := offline(t, "dhcp_flood.pcap", "bro.org.pcap", "nmap-vsn.pcap")
	d := Compare(Logs{}, want)
	if kinds := Summarise(d); len(d) < 100 || len(kinds) > 2*len(want) {
		t.Errorf("%d kinds of %d differences in %d logs", len(kinds), len(d), len(want))
	}
}
