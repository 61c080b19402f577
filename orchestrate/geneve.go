package orchestrate

import (
	"fmt"
	"slices"
	"strings"
)

// GeneveMode is what the datagrams hold that a sensor takes. Zeek's UDP source
// ignores the protocol type in GENEVE's header: what is inside is fixed with the
// address on which it listens
// (github.com/zeek/zeek-packet-source-udp: src/packet_source_options.cc).
type GeneveMode string

// The modes of the GENEVE sensor, as `up --geneve-mode` names them. The VXLAN sensor
// has the first.
const (
	GeneveEthernet GeneveMode = "ethernet" // Ethernet frames
	GeneveIP       GeneveMode = "ip"       // IPv4 and IPv6 packets without Ethernet
	GeneveGWLB     GeneveMode = "gwlb"     // Ethernet frames in VXLAN in UDP over IPv4
)

// GeneveModes lists them.
func GeneveModes() []GeneveMode { return []GeneveMode{GeneveEthernet, GeneveIP, GeneveGWLB} }

// ParseGeneveMode reads the value of `up --geneve-mode`.
func ParseGeneveMode(text string) (GeneveMode, error) {
	if m := GeneveMode(text); slices.Contains(GeneveModes(), m) {
		return m, nil
	}
	return "", fmt.Errorf("mode %q of the GENEVE sensor: want ethernet, ip or gwlb", text)
}

// Phrase names what a mode takes in a sentence. That of a mode which is none of
// [GeneveModes] is the text itself.
func (m GeneveMode) Phrase() string {
	switch m {
	case GeneveEthernet:
		return "Ethernet"
	case GeneveIP:
		return "bare IP packets"
	case GeneveGWLB:
		return "Ethernet in VXLAN"
	}
	return string(m)
}

// source is what follows the port in the name of the sensor's packet source.
func (m GeneveMode) source() string {
	switch m {
	case GeneveIP:
		return "geneve:dlt=raw"
	case GeneveGWLB:
		return "geneve+vxlan"
	}
	return "geneve"
}

// environment are the variables of the Compose file that make a sensor take it; none
// for what is its default.
func (m GeneveMode) environment() map[string]string {
	switch m {
	case GeneveIP:
		return map[string]string{"ZEEKDEMO_GENEVE_SOURCE": m.source()}
	case GeneveGWLB: // there are two VNIs, and the run's is VXLAN's
		return map[string]string{"ZEEKDEMO_GENEVE_SOURCE": m.source(), "ZEEKDEMO_GENEVE_VNI": "geneve_vxlan_vni"}
	}
	return nil
}

// modeOf reads the mode from the command line of a sensor's Zeek: what its listener
// strips, and the link type of what is inside. A listener that is none of the
// modes' is returned as it is written, so that it equals none of them; a command
// that names none, or none of GENEVE, has the mode of the VXLAN sensor.
func modeOf(command []string) GeneveMode {
	i := slices.Index(command, "-i")
	if i < 0 || i+1 == len(command) {
		return GeneveEthernet
	}
	at := strings.Index(command[i+1], ":geneve")
	if at < 0 {
		return GeneveEthernet
	}
	source := strings.TrimSuffix(command[i+1][at+1:], ":dlt=en10mb") // the default
	for _, m := range GeneveModes() {
		if m.source() == source {
			return m
		}
	}
	return GeneveMode(source)
}
