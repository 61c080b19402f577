// Command order tells in which order packets arrived. It numbers the frames of a
// capture in their source address, and reads the numbers from a capture of what
// arrived, in VXLAN over IPv4.
//
// Usage:
//
//	order number CAPTURE NUMBERED
//	order count ARRIVED
//
// The second prints one line: how many arrived, how many of them after a later
// one (Type-P-Reordered of RFC 4737, section 3), and how many after a later one
// of their own flow, which is the outer source port.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

const (
	port     = 14 + 20         // offset of the outer source port
	source   = 6               // offset of the source address in an Ethernet header; the number takes four of its bytes
	mark     = 0x02            // a first byte that says "made up here" (locally administered)
	tunnel   = 14 + 20 + 8 + 8 // outer Ethernet, IPv4, UDP and VXLAN headers
	shortest = tunnel + source + 6
)

func main() {
	err := errors.New("usage: order number CAPTURE NUMBERED | order count ARRIVED")
	switch {
	case len(os.Args) == 4 && os.Args[1] == "number":
		err = number(os.Args[2], os.Args[3])
	case len(os.Args) == 3 && os.Args[1] == "count":
		err = count(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "order:", err)
		os.Exit(1)
	}
}

// each calls fn for every frame of a pcap file.
func each(name string, fn func(data []byte, info gopacket.CaptureInfo) error) (*pcapgo.Reader, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	for err == nil {
		var data []byte
		var info gopacket.CaptureInfo
		if data, info, err = r.ReadPacketData(); err == nil {
			err = fn(data, info)
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // a capture may end in the middle of a frame
		err = nil
	}
	return r, err
}

func number(from, to string) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	w := pcapgo.NewWriter(out)
	if err := w.WriteFileHeader(1<<18, layers.LinkTypeEthernet); err != nil {
		return err
	}
	var n uint32
	r, err := each(from, func(data []byte, info gopacket.CaptureInfo) error {
		if len(data) < source+6 {
			return nil
		}
		address := data[source : source+6]
		address[0], address[1] = mark, 0
		binary.BigEndian.PutUint32(address[2:], n)
		n++
		return w.WritePacket(info, data)
	})
	if err == nil && r.LinkType() != layers.LinkTypeEthernet {
		err = fmt.Errorf("%s: link type %s, want Ethernet", from, r.LinkType())
	}
	return err
}

func count(arrived string) error {
	var all, late, lateOwn int
	last, lastOwn := -1, map[uint16]int{}
	_, err := each(arrived, func(data []byte, _ gopacket.CaptureInfo) error {
		if len(data) < shortest || data[tunnel+source] != mark {
			return nil
		}
		n := int(binary.BigEndian.Uint32(data[tunnel+source+2:]))
		all++
		if n < last {
			late++
		}
		last = max(last, n)
		flow := binary.BigEndian.Uint16(data[port:])
		if before, ok := lastOwn[flow]; ok && n < before {
			lateOwn++
		}
		lastOwn[flow] = max(lastOwn[flow], n)
		return nil
	})
	fmt.Println(all, late, lateOwn)
	return err
}
