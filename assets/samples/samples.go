// Package samples embeds a small capture of real traffic, so that a first
// replay needs no file: DNS, HTTP, TLS, SSH, NTP and ICMP over IPv4 and IPv6,
// recorded from ordinary clients and servers of which testdata/sample is the
// script. The README beside it tells what Zeek makes of it.
//
// Beside the capture lies the list of its connections as Zeek counts them.
// Whoever replays the sample and finds exactly these connections in the logs
// has lost nothing on the way.
package samples

import (
	_ "embed" // for the go:embed lines below
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Name is the file name under which the sample is reported.
const Name = "sample.pcap"

//go:embed sample.pcap
var sample string // a string, so that nobody can write to it

//go:embed connections.tsv
var connections string

// Open returns a reader at the start of the sample: a pcap file with
// microsecond time stamps and link type Ethernet, every frame whole and at most
// 1514 bytes long. Readers are independent of each other.
func Open() *strings.Reader { return strings.NewReader(sample) }

// Sample returns a copy of the whole file that [Open] reads.
func Sample() []byte { return []byte(sample) }

// Connection is one connection as a line of Zeek's conn.log identifies and
// counts it. It is comparable, so it can be a map's key.
//
// The originator is who sent the first packet. For ICMP, Zeek's ports are the
// type (OrigP) and the type of the answer (RespP), 8 and 0 for an echo, 128 and
// 129 over IPv6; a type that has no answer stands alone, with its code as
// RespP, and whoever sent it is its originator (Zeek's ICMP.cc,
// ICMP4_counterpart and ICMP6_counterpart).
type Connection struct {
	Proto    string // "tcp", "udp" or "icmp"; ICMPv6 is "icmp" too
	OrigH    netip.Addr
	OrigP    uint16
	RespH    netip.Addr
	RespP    uint16
	OrigPkts int // packets the originator sent, retransmissions included
	RespPkts int // packets the responder sent
}

// Connections returns the sample's connections in the order of their first
// packets. It panics if the embedded list is malformed, which the package's
// tests exclude.
func Connections() []Connection {
	list, err := parseConnections(connections)
	if err != nil {
		panic("samples: " + err.Error())
	}
	return list
}

// header is the first line of connections.tsv: Zeek's field names.
const header = "proto\torig_h\torig_p\tresp_h\tresp_p\torig_pkts\tresp_pkts"

// parseConnections reads the lines of connections.tsv.
func parseConnections(tsv string) ([]Connection, error) {
	lines := strings.Split(strings.TrimSuffix(tsv, "\n"), "\n")
	if lines[0] != header {
		return nil, fmt.Errorf("read connections.tsv: line 1 is %q, not %q", lines[0], header)
	}
	list := make([]Connection, 0, len(lines)-1)
	for i, line := range lines[1:] {
		c, err := parseConnection(strings.Split(line, "\t"))
		if err != nil {
			return nil, fmt.Errorf("read connections.tsv: line %d: %w", i+2, err)
		}
		list = append(list, c)
	}
	return list, nil
}

// parseConnection reads one line, split at its tabs.
func parseConnection(fields []string) (c Connection, err error) {
	if want := strings.Count(header, "\t") + 1; len(fields) != want {
		return c, fmt.Errorf("%d fields, not %d", len(fields), want)
	}
	c.Proto = fields[0]
	if c.OrigH, err = netip.ParseAddr(fields[1]); err != nil {
		return c, err
	}
	if c.RespH, err = netip.ParseAddr(fields[3]); err != nil {
		return c, err
	}
	var numbers [4]uint64
	for i, column := range [...]int{2, 4, 5, 6} {
		if numbers[i], err = strconv.ParseUint(fields[column], 10, 16); err != nil {
			return c, err
		}
	}
	c.OrigP, c.RespP = uint16(numbers[0]), uint16(numbers[1])
	c.OrigPkts, c.RespPkts = int(numbers[2]), int(numbers[3])
	return c, nil
}

// String is the connection's line in connections.tsv, without a line break.
func (c Connection) String() string {
	return fmt.Sprintf("%s\t%s\t%d\t%s\t%d\t%d\t%d", c.Proto, c.OrigH, c.OrigP, c.RespH, c.RespP, c.OrigPkts, c.RespPkts)
}
