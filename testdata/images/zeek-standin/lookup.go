package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// resolver asks for the names of addresses, as the script
// policy/protocols/ssh/interesting-hostnames of a default site does, by datagrams
// from this process's own network namespace. With ZEEK_DNS_FAKE it asks nobody.
type resolver struct {
	server string // "" asks nobody
	asked  map[netip.Addr]bool
}

// newResolver takes the first name server of a file in the form of
// /etc/resolv.conf.
func newResolver(getenv func(string) string, conf string) *resolver {
	r := &resolver{asked: map[netip.Addr]bool{}}
	if getenv("ZEEK_DNS_FAKE") != "" {
		return r
	}
	f, err := os.Open(conf)
	if err != nil {
		return r
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if fields := strings.Fields(in.Text()); len(fields) > 1 && fields[0] == "nameserver" {
			r.server = net.JoinHostPort(fields[1], "53")
			return r
		}
	}
	return r
}

// lookup asks once for each address and does not wait for the answer.
func (r *resolver) lookup(addrs ...netip.Addr) {
	for _, a := range addrs {
		if r.server != "" && !r.asked[a] {
			r.asked[a] = true
			go ask(r.server, reverseName(a))
		}
	}
}

// ask sends a question and takes its answer, if there is one.
func ask(server, name string) {
	const patience = 2 * time.Second
	conn, err := net.Dial("udp", server)
	if err != nil {
		return
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(patience)) != nil {
		return
	}
	if _, err := conn.Write(question(uint16(rand.Uint32()), name)); err == nil {
		_, _ = conn.Read(make([]byte, 1500)) // nothing depends on it
	}
}

// question is a query for a PTR record, RFC 1035 section 4.1.
func question(id uint16, name string) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = append(b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0) // recursion desired, one question
	for label := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0, 0, 12, 0, 1)
}

// reverseName is the name of an address below in-addr.arpa or ip6.arpa.
func reverseName(a netip.Addr) string {
	var b bytes.Buffer
	raw := a.Unmap().AsSlice()
	for i := len(raw) - 1; i >= 0; i-- {
		if len(raw) == 4 {
			fmt.Fprintf(&b, "%d.", raw[i])
		} else {
			fmt.Fprintf(&b, "%x.%x.", raw[i]&15, raw[i]>>4)
		}
	}
	if len(raw) == 4 {
		return b.String() + "in-addr.arpa"
	}
	return b.String() + "ip6.arpa"
}
