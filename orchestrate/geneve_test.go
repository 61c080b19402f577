package orchestrate

import (
	"context"
	"maps"
	"net/netip"
	"strings"
	"testing"
)

func TestGeneveModes(t *testing.T) {
	for text, want := range map[string]GeneveMode{"ethernet": GeneveEthernet, "ip": GeneveIP, "gwlb": GeneveGWLB, "": "", "raw": "", "IP": ""} {
		got, err := ParseGeneveMode(text)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// The mode of a sensor is read from what its Zeek was told, whoever told it.
func TestTheModeIsWhatTheCommandSays(t *testing.T) {
	for source, want := range map[string]GeneveMode{
		"udp::0.0.0.0:6081:geneve":               GeneveEthernet,
		"udp::0.0.0.0:6081:geneve:dlt=en10mb":    GeneveEthernet,
		"udp::0.0.0.0:6081:geneve:dlt=raw":       GeneveIP,
		"udp::[::]:6081:geneve:dlt=raw":          GeneveIP,
		"udp::0.0.0.0:6081:geneve+vxlan":         GeneveGWLB,
		"udp::0.0.0.0:6081:geneve:dlt=ppp":       "geneve:dlt=ppp",
		"udp::0.0.0.0:6081:geneve+vxlan:dlt=raw": "geneve+vxlan:dlt=raw",
		"udp::0.0.0.0:4789:vxlan":                GeneveEthernet,
		"eth0":                                   GeneveEthernet,
	} {
		if got := modeOf([]string{"zeek", "-i", source, "local", "-e", "redef x = T;"}); got != want {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
	for _, command := range [][]string{nil, {"zeek"}, {"zeek", "-i"}, {"zeek", "-r", "capture"}} {
		if got := modeOf(command); got != GeneveEthernet {
			t.Errorf("%q: %q", command, got)
		}
	}
}

// What the settings tell Compose is what is read back from the container.
func TestTheModeThatIsSetIsTheModeThatIsRead(t *testing.T) {
	for _, mode := range GeneveModes() {
		s := defaults()
		s.Geneve = mode
		env := s.Environment()
		source := env["ZEEKDEMO_GENEVE_SOURCE"]
		if source == "" {
			source = "geneve" // the Compose file's default
		}
		if got := modeOf([]string{"zeek", "-i", "udp::0.0.0.0:6081:" + source}); got != mode {
			t.Errorf("%s: %q, read from %q", mode, got, source)
		}
		if both := env["ZEEKDEMO_GENEVE_VNI"] == "geneve_vxlan_vni"; both != (mode == GeneveGWLB) {
			t.Errorf("%s: the script of the VNIs is %q", mode, env["ZEEKDEMO_GENEVE_VNI"])
		}
	}
	plain, ethernet := defaults(), defaults()
	ethernet.Geneve = GeneveEthernet
	if !maps.Equal(plain.Environment(), ethernet.Environment()) {
		t.Error("the default, spelled out, is another stack")
	}
}

func TestStatusAndSensorSayTheMode(t *testing.T) {
	list := answering(t, netip.MustParseAddrPort("127.0.0.1:1"))
	for i := range list {
		if list[i].Service == "zeek-geneve" {
			list[i].Command = []string{"zeek", "-i", "udp::0.0.0.0:6081:geneve:dlt=raw"}
		}
	}
	e := &fakeEngine{containers: func() []Container { return list }}
	for encap, want := range map[string]GeneveMode{"vxlan": GeneveEthernet, "geneve": GeneveIP} {
		if s, err := FindSensor(t.Context(), e, encap); err != nil || s.Mode != want {
			t.Errorf("%s: %q, %v", encap, s.Mode, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody answers; that is not asked here
	services, err := Status(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		if want := map[string]string{"zeek": "vxlan", "zeek-geneve": "geneve:ip"}[s.Service]; s.Takes != want {
			t.Errorf("%s takes %q, want %q", s.Service, s.Takes, want)
		}
		if want := map[string]GeneveMode{"zeek": GeneveEthernet, "zeek-geneve": GeneveIP}[s.Service]; s.Mode != want {
			t.Errorf("%s takes datagrams with %q, want %q", s.Service, s.Mode, want)
		}
	}
	if m := GeneveMode("geneve:dlt=ppp"); !strings.Contains(m.Phrase(), "dlt=ppp") {
		t.Errorf("%q", m.Phrase())
	}
}
