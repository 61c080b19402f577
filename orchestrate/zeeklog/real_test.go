package zeeklog

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// offline reads and joins what a real Zeek wrote for captures as files.
func offline(t *testing.T, captures ...string) Logs {
	t.Helper()
	all := Logs{}
	for _, name := range captures {
		logs, err := ReadFS(os.DirFS(testenv.Shared(t, "zeek9", "offline", name)))
		if err != nil {
			t.Fatal(err)
		}
		for log, records := range logs {
			all[log] = append(all[log], records...)
		}
	}
	return all
}

func live(t *testing.T, encap string) Logs {
	t.Helper()
	logs, err := ReadFS(os.DirFS(testenv.Shared(t, "zeek9", "live", encap)))
	if err != nil {
		t.Fatal(err)
	}
	return logs
}

// The captures of the recorded runs of a real Zeek.
var (
	geneveRun = []string{"bro.org.pcap", "dns53.pcap", "methods.pcap"}
	vxlanRun  = []string{
		"206_example_b.pcap", "bro.org.pcap", "cwd-navigation.pcap", "dhcp_flood.pcap", "dns-edns-ecs.pcap", "dns53.pcap",
		"http-post-large.pcap", "http-qinq-0.pcap", "ipv6-fragmented-dns.pcap", "methods.pcap", "mqtt.pcap", "mysql.pcap",
		"nmap-vsn.pcap", "ntp.pcap", "quic_win11_firefox_google.pcap", "rdp-proprietary-encryption.pcap", "smb2.pcap",
		"snmpwalk-short.pcap", "socks-with-ssl.pcap", "ssh.pcap", "ssl.v3.pcap", "tls-1.2-stream-keylog.pcap",
		"workshop_2011_browse.pcap",
	}
)

func dump(t *testing.T, differences []Difference) {
	t.Helper()
	for _, d := range differences {
		t.Logf("%s %s %s\n  got  %s\n  want %s\n  %v", d.Log, d.Connection, d.Cause, d.Got, d.Want, d.Fields)
	}
}

// What a real Zeek wrote live and from the files is equal in everything that is
// compared.
func TestRealGeneveRunIsEqual(t *testing.T) {
	if d := Compare(live(t, "geneve"), offline(t, geneveRun...)); len(d) > 0 {
		dump(t, d)
		t.Errorf("%d differences", len(d))
	}
}

// In the longer run one certificate had expired between the capture and the
// replay: that is what an offline run with the times of sending is for. Nothing
// else differs.
func TestRealVXLANRunDiffersByACertificateOnly(t *testing.T) {
	d := Compare(live(t, "vxlan"), offline(t, vxlanRun...))
	var got []string
	for _, x := range d {
		fields := ""
		for _, f := range x.Fields {
			fields += " " + f.Field
		}
		got = append(got, x.Log+fields)
	}
	if want := []string{"notice", "ssl validation_status"}; !slices.Equal(got, want) {
		dump(t, d)
		t.Errorf("differences in %q, want %q", got, want)
	}
}

// Every capture's logs are equal to themselves and differ from those of a
// sensor that saw nothing.
func TestRealLogsAgainstThemselves(t *testing.T) {
	folders, err := filepath.Glob(filepath.Join(testenv.Shared(t, "zeek9", "offline"), "*"))
	if err != nil || len(folders) == 0 {
		t.Fatalf("no folders: %v", err)
	}
	for _, folder := range folders {
		logs, err := ReadFS(os.DirFS(folder))
		if err != nil {
			t.Fatal(err)
		}
		if d := Compare(logs, logs); len(d) > 0 {
			t.Errorf("%s differs from itself: %v", folder, d[0])
		}
		if d := Compare(Logs{}, logs); len(logs["conn"]) > 0 && len(d) < len(logs["conn"]) {
			t.Errorf("%s: %d differences from nothing, want at least %d", folder, len(d), len(logs["conn"]))
		}
	}
}

// clone copies logs two levels deep.
func clone(logs Logs) Logs {
	c := Logs{}
	for name, records := range logs {
		for _, r := range records {
			copied := Record{}
			for k, v := range r {
				copied[k] = v
			}
			c[name] = append(c[name], copied)
		}
	}
	return c
}

// Each fault in real logs is found, and explained by what changed.
func TestSeededFaultsInRealLogs(t *testing.T) {
	want := offline(t, "bro.org.pcap")
	busiest := func(logs Logs) Record {
		return slices.MaxFunc(logs["conn"], func(a, b Record) int { return int(a.number("resp_pkts")) - int(b.number("resp_pkts")) })
	}
	for name, c := range map[string]struct {
		seed  func(Logs)
		log   string
		cause Cause
		field string
	}{
		"a packet dropped": {func(l Logs) { less(busiest(l), "resp_pkts", 1); less(busiest(l), "resp_ip_bytes", 1500) }, "conn", Lost, "resp_pkts"},
		"a packet doubled": {func(l Logs) {
			r := busiest(l)
			less(r, "resp_pkts", -1)
			r["history"] = r.text("history") + "t"
		}, "conn", Doubled, "history"},
		"a packet cut":          {func(l Logs) { less(busiest(l), "resp_ip_bytes", 40) }, "conn", Cut, "resp_ip_bytes"},
		"a packet replaced":     {func(l Logs) { less(busiest(l), "resp_ip_bytes", -40) }, "conn", Altered, "resp_ip_bytes"},
		"a gap":                 {func(l Logs) { less(busiest(l), "missed_bytes", -1460) }, "conn", Unexplained, "missed_bytes"},
		"packets swapped":       {func(l Logs) { r := busiest(l); r["history"] = "^" + r.text("history") }, "conn", Unexplained, "history"},
		"a connection divided":  {divide, "conn", TimedOut, ""},
		"a connection missing":  {func(l Logs) { l["conn"] = l["conn"][1:] }, "conn", Lost, ""},
		"a service unseen":      {func(l Logs) { delete(busiest(l), "service") }, "conn", Unexplained, "service"},
		"a request missing":     {func(l Logs) { l["http"] = l["http"][1:] }, "http", Unexplained, ""},
		"another status":        {func(l Logs) { l["http"][3]["status_code"] = "404" }, "http", Unexplained, "status_code"},
		"a file's hash changed": {func(l Logs) { l["files"][0]["sha1"] = "00" }, "files", Unexplained, "sha1"},
		"a whole log missing":   {func(l Logs) { delete(l, "software") }, "software", Unexplained, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := clone(want)
			c.seed(got)
			d := Compare(got, want)
			i := slices.IndexFunc(d, func(d Difference) bool {
				return d.Log == c.log && d.Cause == c.cause && (c.field == "" || slices.ContainsFunc(d.Fields, func(f FieldChange) bool { return f.Field == c.field }))
			})
			if i < 0 {
				dump(t, d)
				t.Errorf("%d differences, none in %s.log by %s at %q", len(d), c.log, c.cause, c.field)
			}
		})
	}
}

func less(r Record, field string, by int) {
	r[field] = jsonNumber(int(r.number(field)) - by)
}

// divide makes two connections of one, as an inactivity timeout does.
func divide(l Logs) {
	first := l["conn"][0]
	second := clone(Logs{"conn": {first}})["conn"][0]
	for _, f := range []string{"orig_pkts", "resp_pkts", "orig_ip_bytes", "resp_ip_bytes"} {
		whole := int(first.number(f))
		first[f], second[f] = jsonNumber(whole/2), jsonNumber(whole-whole/2)
	}
	l["conn"] = append(l["conn"], second)
}

// What only the process is about is left out, whatever it says.
func TestProcessLogsAreLeftOut(t *testing.T) {
	want := offline(t, "bro.org.pcap")
	got := clone(want)
	for log := range process {
		got[log] = append(got[log], Record{"anything": "at all"})
	}
	got["notice"] = append(got["notice"], Record{"note": "CaptureLoss::Too_Little_Traffic", "msg": "x"})
	got["known_hosts"] = append(got["known_hosts"], got["known_hosts"]...)
	for _, r := range got["http"] {
		r["ts"], r["id.ctx.vxlan_vni"] = "1", "7"
	}
	redraw(got)
	if d := Compare(got, want); len(d) > 0 {
		dump(t, d)
		t.Errorf("%d differences", len(d))
	}
}

// A real Zeek counts what it received in stats.log: the datagrams' payloads.
func TestRealReceivedCounts(t *testing.T) {
	packets, payload, ok := live(t, "geneve").PacketsReceived()
	if packets != 1407 || payload != 734549 || !ok {
		t.Errorf("received %d packets, %d bytes, %v", packets, payload, ok)
	}
	if _, _, ok := offline(t, "bro.org.pcap").PacketsReceived(); ok {
		t.Error("a process that reads a file has counted a source")
	}
}

func TestReasonsAreGiven(t *testing.T) {
	for log, reason := range process {
		if strings.TrimSpace(reason) == "" {
			t.Errorf("%s is left out without a reason", log)
		}
	}
}
