package zeeklog

import (
	"strings"
	"testing"
)

// The order of a real Zeek's table is Zeek's own as soon as a control shows it,
// and a fault without one.
func TestControlExplainsARealTablesOrder(t *testing.T) {
	one, two := randomRun(t, "ftp-many-port-expected", "1"), randomRun(t, "ftp-many-port-expected", "2")
	rules := Rules{Jitter: PathJitter}
	if a := rules.Attribute(one, two); len(a.Faults) == 0 || len(a.Own) > 0 {
		t.Errorf("without a control: %d faults, %d of Zeek's own", len(a.Faults), len(a.Own))
	}
	third := clone(two) // remembers yet another one
	for _, r := range third["ftp"] {
		delete(r, "data_channel.passive")
		delete(r, "data_channel.orig_h")
		delete(r, "data_channel.resp_h")
		delete(r, "data_channel.resp_p")
	}
	last := third["ftp"][7]
	last["data_channel.passive"], last["data_channel.orig_h"], last["data_channel.resp_h"], last["data_channel.resp_p"] = false, "10.0.0.2", "10.0.0.200", jsonNumber(20500)
	for name, control := range map[string]Logs{"the same as live": one, "another": third} {
		if a := rules.Attribute(one, two, control); len(a.Faults) > 0 || len(a.Own) == 0 {
			dump(t, a.Faults)
			t.Errorf("%s: %d faults, %d of Zeek's own", name, len(a.Faults), len(a.Own))
		}
	}
	if a := rules.Attribute(one, two, two); len(a.Faults) == 0 {
		t.Error("a control that shows nothing has explained something")
	}
}

// A control explains what it shows and nothing beside it.
func TestControlHidesNoFault(t *testing.T) {
	one, two := randomRun(t, "ftp-many-port-expected", "1"), randomRun(t, "ftp-many-port-expected", "2")
	for name, c := range map[string]struct {
		fault func(Logs)
		field string
	}{
		"a packet fewer":        {func(l Logs) { less(l["conn"][0], "orig_pkts", 1) }, "orig_pkts"},
		"another reply":         {func(l Logs) { l["ftp"][3]["reply_msg"] = "steady" }, "reply_msg"},
		"another reply to that": {func(l Logs) { l["ftp"][0]["reply_msg"] = "steady" }, "reply_msg"},
		"a line missing":        {func(l Logs) { l["ftp"] = l["ftp"][:len(l["ftp"])-1] }, ""},
		"a weird missing":       {func(l Logs) { delete(l, "weird") }, ""},
	} {
		live := clone(one)
		c.fault(live)
		a := Rules{Jitter: PathJitter}.Attribute(live, two, clone(one))
		found := false
		for _, d := range a.Faults {
			found = found || c.field == "" && len(d.Fields) == 0
			for _, f := range d.Fields {
				found = found || f.Field == c.field
				if strings.HasPrefix(f.Field, "data_channel.") {
					t.Errorf("%s: %s is called a fault", name, f.Field)
				}
			}
		}
		if !found {
			dump(t, a.Faults)
			t.Errorf("%s: not among %d faults", name, len(a.Faults))
		}
	}
}

// What is Zeek's own is not the pace's.
func TestPaceIsToldFromZeeksOwn(t *testing.T) {
	one, two := randomRun(t, "ftp-many-port-expected", "1"), randomRun(t, "ftp-many-port-expected", "2")
	captured := clone(two)
	captured["conn"][0]["conn_state"] = "S1"
	if d := (Rules{}).Pace(one, captured); len(d) < 3 {
		t.Errorf("without a control: %v", d)
	}
	if d := (Rules{}).Pace(one, captured, two); len(d) != 1 || d[0].Log != "conn" {
		t.Errorf("with a control: %v", d)
	}
}

// Lines that belong to no connection are told apart by their kind.
func TestControlKnowsKindsOfLines(t *testing.T) {
	offline := parse(t, `weird {"ts":1,"name":"random"}`)
	control := parse(t, ``)
	live := parse(t, "weird {\"ts\":1,\"name\":\"random\"}\nweird {\"ts\":1,\"name\":\"random\"}\nweird {\"ts\":1,\"name\":\"truncated\"}")
	a := Rules{}.Attribute(live, offline, control)
	if len(a.Own) != 1 || len(a.Faults) != 1 || !strings.Contains(a.Faults[0].Got, "truncated") {
		t.Errorf("%+v", a)
	}
}
