// Command receive counts datagrams on a UDP port as a monitor would take them:
// by recvmmsg into buffers of 9248 bytes. It ends when nothing has come for a
// second, and prints one line: datagrams, bytes, seconds between the first and
// the last, and the socket's own drops.
//
// Usage: receive PORT
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	messages = 256
	size     = 9248
	buffer   = 64 << 20 // asked for; the kernel grants what it allows
	silence  = time.Second
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: receive PORT")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "receive:", err)
		os.Exit(1)
	}
}

func run(port string) error {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("read port %q: %w", port, err)
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: int(number)})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadBuffer(buffer); err != nil {
		return err
	}
	count, bytes, took, err := count(ipv4.NewPacketConn(conn), conn)
	if err != nil {
		return err
	}
	fmt.Printf("%d %d %.6f %s\n", count, bytes, took.Seconds(), drops(uint16(number)))
	return nil
}

// count reads until a second of silence after the first datagram.
func count(packets *ipv4.PacketConn, conn *net.UDPConn) (n, bytes int, took time.Duration, err error) {
	batch := make([]ipv4.Message, messages)
	for i := range batch {
		batch[i].Buffers = [][]byte{make([]byte, size)}
	}
	var first, last time.Time
	for {
		if n > 0 {
			_ = conn.SetReadDeadline(time.Now().Add(silence))
		}
		got, err := packets.ReadBatch(batch, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n, bytes, last.Sub(first), nil
		}
		if err != nil {
			return n, bytes, 0, err
		}
		last = time.Now()
		if n == 0 {
			first = last
		}
		n += got
		for _, m := range batch[:got] {
			bytes += m.N
		}
	}
}

// drops reads the socket's drops, the last column of /proc/net/udp.
func drops(port uint16) string {
	table, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		return "?"
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 12 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
			return fields[12]
		}
	}
	return "?"
}
