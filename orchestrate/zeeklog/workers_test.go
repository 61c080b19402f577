package zeeklog

import (
	"encoding/json"
	"testing"
)

// What differs because workers analyse for themselves is told with its reason, and is
// a fault of one process. Nothing else becomes less of a fault by it.
func TestWhatWorkersCannotAgreeOn(t *testing.T) {
	conn := func(uid, service string) Record {
		r := Record{"ts": json.Number("1"), "uid": uid, "id.orig_h": "10.0.0.1", "id.orig_p": json.Number("1025"), "id.resp_h": "10.0.0.2", "id.resp_p": json.Number("80"),
			"proto": "tcp", "conn_state": "SF", "history": "ShADadFf", "orig_pkts": json.Number("5"), "resp_pkts": json.Number("5")}
		if service != "" {
			r["service"] = service
		}
		return r
	}
	note := func(kind string) Record { return Record{"ts": json.Number("2"), "note": kind, "msg": "m"} }
	cert := Record{"ts": json.Number("3"), "fingerprint": "aa", "certificate.subject": "CN=a"}
	ssl := func(status string) Record {
		r := conn("C1", "")
		delete(r, "service")
		r["validation_status"], r["server_name"] = status, "a"
		return r
	}
	icmp := func(packets string) Record {
		r := conn("C1", "")
		r["proto"], r["id.orig_p"], r["id.resp_p"], r["orig_pkts"] = "icmp", json.Number("3"), json.Number("1"), json.Number(packets)
		return r
	}
	opaque := func(uid, packets string) Record {
		r := conn(uid, "")
		r["proto"], r["orig_pkts"], r["resp_pkts"] = "unknown_transport", json.Number(packets), json.Number("0")
		return r
	}
	teredo := func(uid, packets string) Record {
		r := opaque(uid, packets)
		r["proto"], r["id.resp_p"] = "udp", json.Number("3544")
		return r
	}
	part := func(uid string) Record {
		r := conn(uid, "")
		r["status_code"], r["uri"] = json.Number("206"), "/a"
		return r
	}
	file := func(uid string) Record {
		r := conn(uid, "")
		r["fuid"], r["source"], r["mime_type"] = "F1", "HTTP", "text/html"
		return r
	}
	for name, c := range map[string]struct {
		live, offline Logs
		own           bool
	}{
		"a scan that only one saw":             {Logs{}, Logs{"notice": {note("Scan::Port_Scan")}}, true},
		"guessed passwords":                    {Logs{"notice": {note("SSH::Password_Guessing")}}, Logs{}, true},
		"any other notice":                     {Logs{}, Logs{"notice": {note("SSL::Invalid_Server_Cert")}}, false},
		"the same notice again":                {Logs{"notice": {note("SSL::Weak_Key"), note("SSL::Weak_Key")}}, Logs{"notice": {note("SSL::Weak_Key")}}, true},
		"a weird less":                         {Logs{}, Logs{"weird": {{"ts": json.Number("1"), "name": "bad_x"}}}, true},
		"a host more":                          {Logs{"known_hosts": {{"ts": json.Number("1"), "host": "10.0.0.1"}}}, Logs{}, true},
		"a certificate logged by two":          {Logs{"x509": {cert, cert}}, Logs{"x509": {cert}}, true},
		"a certificate missing":                {Logs{}, Logs{"x509": {cert}}, false},
		"a chain not yet known":                {Logs{"ssl": {ssl("unable to get local issuer certificate")}}, Logs{"ssl": {ssl("ok")}}, true},
		"an announced connection":              {Logs{"conn": {conn("C1", "")}}, Logs{"conn": {conn("C2", "ftp-data")}}, true},
		"a service that the connection tells":  {Logs{"conn": {conn("C1", "")}}, Logs{"conn": {conn("C2", "http")}}, false},
		"a service that is announced too much": {Logs{"conn": {conn("C1", "ftp-data")}}, Logs{"conn": {conn("C2", "")}}, false},
		"a connection less":                    {Logs{}, Logs{"conn": {conn("C2", "http")}}, false},
		"a line of a protocol":                 {Logs{}, Logs{"http": {conn("C2", "")}}, false},
		"errors about two flows":               {Logs{"conn": {icmp("2"), icmp("3")}}, Logs{"conn": {func() Record { r := icmp("5"); r["resp_pkts"] = json.Number("10"); return r }()}}, true},
		"an error less":                        {Logs{"conn": {icmp("2")}}, Logs{"conn": {icmp("5")}}, false},
		"a tunnel seen by two": {Logs{"conn": {conn("C1", "teredo"), conn("C2", "teredo")}}, Logs{"conn": {func() Record {
			r := conn("C3", "teredo")
			r["orig_pkts"], r["resp_pkts"] = json.Number("10"), json.Number("10")
			return r
		}()}}, true},
		"a tunnel that is not opened": {Logs{"conn": {opaque("C1", "5"), opaque("C2", "5")}}, Logs{"conn": {opaque("C3", "10")}}, true},
		"a tunnel by its port":        {Logs{"conn": {teredo("C1", "5"), teredo("C2", "5")}}, Logs{"conn": {teredo("C3", "10")}}, true},
		"a packet of it less":         {Logs{"conn": {opaque("C1", "5"), opaque("C2", "4")}}, Logs{"conn": {opaque("C3", "10")}}, false},
		"a connection in two": {Logs{"conn": {conn("C1", "http"), conn("C2", "http")}}, Logs{"conn": {func() Record {
			r := conn("C3", "http")
			r["orig_pkts"], r["resp_pkts"] = json.Number("10"), json.Number("10")
			return r
		}()}}, false},
		"a file of an announced connection": {Logs{}, Logs{"files": {{"ts": json.Number("1"), "fuid": "F1", "source": "FTP_DATA"}}}, true},
		"a part of a file":                  {Logs{"http": {part("C1")}}, Logs{"http": {part("C2")}, "files": {file("C2")}}, true},
		"a file of another connection":      {Logs{}, Logs{"files": {file("C2")}}, false},
		"a file":                            {Logs{}, Logs{"files": {{"ts": json.Number("1"), "fuid": "F1", "mime_type": "text/html"}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := Rules{Workers: 3}.Attribute(c.live, c.offline)
			if got := len(cluster.Own) > 0 && len(cluster.Faults) == 0; got != c.own {
				dump(t, cluster.Faults)
				t.Errorf("of a cluster: %d faults, %d of Zeek's own", len(cluster.Faults), len(cluster.Own))
			}
			for _, d := range cluster.Own {
				if d.Why == "" {
					t.Error("no reason is told")
				}
			}
			if one := (Rules{Workers: 1}).Attribute(c.live, c.offline); len(one.Own) > 0 || len(one.Faults) == 0 {
				t.Errorf("of one process: %d faults, %d of Zeek's own", len(one.Faults), len(one.Own))
			}
		})
	}
}
