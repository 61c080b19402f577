package verify

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
)

// traffic is what a stand-in for Zeek saw: a connection for each pair of
// endpoints, in the direction of its first packet.
type traffic struct {
	conns   []*connection
	packets uint64 // datagrams
	bytes   uint64 // of their payloads
}

// connection is a line of conn.log.
type connection struct {
	network, transport gopacket.Flow
	proto              string
	history            string // D or d wherever the direction changed
	packets, bytes     [2]int // of the originator and the responder
}

// see enters an Ethernet frame.
func (tr *traffic) see(frame []byte) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: false})
	n := p.NetworkLayer()
	if n == nil {
		return
	}
	seen := connection{network: n.NetworkFlow(), proto: "unknown_transport"}
	if t := p.TransportLayer(); t != nil {
		seen.transport, seen.proto = t.TransportFlow(), t.LayerType().String()
	}
	c, side := tr.find(seen)
	if letter := "Dd"[side : side+1]; c.history == "" || c.history[len(c.history)-1:] != letter {
		c.history += letter
	}
	c.packets[side]++
	c.bytes[side] += len(n.LayerContents()) + len(n.LayerPayload())
}

// find returns the connection that a packet belongs to, and whether the
// originator (0) or the responder sent it.
func (tr *traffic) find(seen connection) (c *connection, side int) {
	for _, c := range tr.conns {
		switch {
		case c.network == seen.network && c.transport == seen.transport:
			return c, 0
		case c.network == seen.network.Reverse() && c.transport == seen.transport.Reverse():
			return c, 1
		}
	}
	tr.conns = append(tr.conns, &seen)
	return &seen, 0
}

// record is the line, with a time and an identifier that no other process has.
func (c *connection) record() map[string]any {
	from, to := c.network.Endpoints()
	r := map[string]any{"ts": time.Now().UnixNano(), "uid": freshID(), "proto": c.proto, "history": c.history,
		"id.orig_h": from.String(), "id.resp_h": to.String(), "orig_pkts": c.packets[0], "resp_pkts": c.packets[1],
		"orig_ip_bytes": c.bytes[0], "resp_ip_bytes": c.bytes[1]}
	if c.transport != (gopacket.Flow{}) {
		from, to := c.transport.Endpoints()
		r["id.orig_p"], r["id.resp_p"] = from.String(), to.String()
	}
	return r
}

// archive is the log folder; a live process counts what it received.
func (tr *traffic) archive(live bool) (io.ReadCloser, error) {
	var out, conns bytes.Buffer
	lines := json.NewEncoder(&conns)
	for _, c := range tr.conns {
		if err := lines.Encode(c.record()); err != nil {
			return nil, err
		}
	}
	logs := map[string][]byte{"logs/conn.log": conns.Bytes()}
	if live {
		stats, err := json.Marshal(map[string]uint64{"pkts_proc": tr.packets, "bytes_recv": tr.bytes})
		if err != nil {
			return nil, err
		}
		logs["logs/stats.log"] = stats
	}
	w := tar.NewWriter(&out)
	for name, text := range logs {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(text))})
		if _, writeErr := w.Write(text); errors.Join(err, writeErr) != nil {
			return nil, errors.Join(err, writeErr)
		}
	}
	return io.NopCloser(&out), w.Close()
}

// readOffline is Zeek with -r: up to the end or the damage. It knows no
// compression.
func readOffline(name string) (tr traffic, err error) {
	content, err := os.ReadFile(name)
	if gzip, zstd := "\x1f\x8b", "\x28\xb5\x2f\xfd"; err != nil || strings.HasPrefix(string(content), gzip) || strings.HasPrefix(string(content), zstd) {
		return tr, errors.Join(err, fmt.Errorf("%s: unknown file format", name))
	}
	r, err := pcapfile.Open(name, nil)
	if err != nil {
		return tr, err
	}
	defer r.Close()
	for f := (forward.Frame{}); r.Next(&f) == nil; {
		tr.see(f.Data)
	}
	return tr, nil
}

// sensor is Zeek with -i: a UDP socket that takes VXLAN (RFC 7348).
type sensor struct {
	traffic
	conn *net.UDPConn
	done chan struct{}
}

const vxlanLen = 8

// farewell is the datagram after which a sensor ends.
var farewell = []byte("bye")

// listen starts a sensor on a socket.
func listen(conn *net.UDPConn) *sensor {
	s := &sensor{conn: conn, done: make(chan struct{})}
	go s.run()
	return s
}

func (s *sensor) run() {
	defer close(s.done)
	for buf := make([]byte, 1<<16); ; {
		n, err := s.conn.Read(buf)
		if err != nil || bytes.Equal(buf[:n], farewell) {
			return
		}
		s.packets, s.bytes = s.packets+1, s.bytes+uint64(n)
		if n > vxlanLen {
			s.see(bytes.Clone(buf[vxlanLen:n]))
		}
	}
}

func (s *sensor) address() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// stop ends the sensor when it has read what waits at its socket.
func (s *sensor) stop(tb testing.TB) {
	tb.Helper()
	if _, err := s.conn.WriteToUDPAddrPort(farewell, s.address()); err != nil {
		tb.Errorf("stop a sensor: %v", err)
	}
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		tb.Error("a sensor does not end")
	}
	s.conn.Close()
}
