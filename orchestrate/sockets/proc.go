package sockets

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// The readers of this file do without [procfs], whose strings and slices are made
// anew for each answer: a sender that is governed looks up to some thousand times
// a second, between two packets, where collecting garbage would be waiting. They
// take bytes from a buffer that is read into again and again, and allocate
// nothing. Their tests hold them to the answers of procfs.

// procRoot is where the proc file system is mounted.
const procRoot = "/proc"

func procPath(pid int, name string) string {
	return filepath.Join(procRoot, strconv.Itoa(pid), name)
}

// file is a file of the proc file system, opened once and read again and again:
// each read from its start yields its present content.
type file struct {
	f   *os.File
	buf []byte
}

func openFile(path string) (*file, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &file{f: f, buf: make([]byte, 8<<10)}, nil
}

// read returns the whole content, valid until the next call.
func (f *file) read() ([]byte, error) {
	n := 0
	for {
		if n == len(f.buf) {
			f.buf = append(f.buf, make([]byte, len(f.buf))...)
		}
		m, err := f.f.ReadAt(f.buf[n:], int64(n))
		n += m
		if errors.Is(err, io.EOF) {
			return f.buf[:n], nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (f *file) close() error { return f.f.Close() }

// procReader reads /proc/PID/net/udp and udp6.
type procReader struct {
	files  tables
	listen netip.AddrPort
	buffer int // assumed
}

func openProc(dir string, listen netip.AddrPort, asking Asking) (*procReader, error) {
	r := &procReader{listen: listen, buffer: Assumed(asking, setting("rmem_max"), setting("rmem_default"))}
	var err error
	if r.files, err = openTables(dir); err != nil {
		return nil, err
	}
	return r, nil
}

// tables are the lists of all UDP sockets of a namespace.
type tables []*file

// openTables opens them in dir, a "net" directory of the proc file system.
func openTables(dir string) (t tables, err error) {
	for _, name := range []string{"udp", "udp6"} {
		f, err := openFile(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) && name == "udp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, errors.Join(err, t.close())
		}
		t = append(t, f)
	}
	return t, nil
}

func (t tables) close() error {
	var err error
	for _, f := range t {
		err = errors.Join(err, f.close())
	}
	return err
}

// others lists who else than the sockets that take what is sent to listen may
// take datagrams from outside the namespace.
func (t tables) others(listen netip.AddrPort) (o Others, err error) {
	for _, f := range t {
		data, err := f.read()
		if err != nil {
			return o, err
		}
		for _, s := range procfs.UDP(string(data)) {
			switch {
			case s.Local.Addr().Unmap().IsLoopback():
			case !s.Listens():
				o.Asking++
			case !takes(s.Local, listen):
				o.Open = append(o.Open, s.Local)
			}
		}
	}
	return o, nil
}

// setting reads a number from /proc/sys/net/core; 0 if it cannot.
func setting(name string) int {
	data, err := os.ReadFile(filepath.Join(procRoot, "sys/net/core", name))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(data)))
	return n
}

func (r *procReader) exact() bool { return false }

func (r *procReader) close() error { return r.files.close() }

func (r *procReader) read(buf []Socket) ([]Socket, error) {
	for _, f := range r.files {
		data, err := f.read()
		if err != nil {
			return buf, err
		}
		for line := range bytes.Lines(data) {
			if s, ok := parseLine(line); ok && takes(s.Local, r.listen) {
				r.assume(&s)
				buf = append(buf, s)
			}
		}
	}
	return buf, nil
}

// assume fills in what the file does not tell: the buffer, and that memory of a
// quarter of it may be kept for datagrams that were taken. A queue longer than
// assumed proves a larger buffer.
func (r *procReader) assume(s *Socket) {
	s.Buffer = max(r.buffer, s.Queued)
	s.Allocated = s.Queued + r.buffer/4
}

// unconnected is the state of a UDP socket without a peer.
const unconnected = procfs.Closed

// parseLine reads one line of /proc/net/udp or udp6 (udp4_format_sock in
// net/ipv4/udp.c). It reports false for the heading and for connected sockets.
func parseLine(line []byte) (s Socket, ok bool) {
	var fields [13][]byte // sl local remote st tx:rx tr:tm retrnsmt uid timeout inode ref pointer drops
	n := 0
	for rest := line; n < len(fields); n++ {
		rest = bytes.TrimLeft(rest, " \n")
		if len(rest) == 0 {
			break
		}
		end := bytes.IndexAny(rest, " \n")
		if end < 0 {
			end = len(rest)
		}
		fields[n], rest = rest[:end], rest[end:]
	}
	if n < len(fields) {
		return s, false
	}
	local, ok := parseAddr(fields[1])
	if !ok || hex(fields[3]) != unconnected {
		return s, false
	}
	_, queued, ok := bytes.Cut(fields[4], []byte(":"))
	inode := decimal(fields[9])
	return Socket{Local: local, Queued: int(hex(queued)), ID: inode, Inode: inode, Drops: decimal(fields[12])}, ok
}

// parseAddr reads ADDRESS:PORT in hexadecimal. The address is a series of
// 32-bit words whose bytes lie in network order, each printed as a number of
// this machine.
func parseAddr(text []byte) (netip.AddrPort, bool) {
	colon := bytes.IndexByte(text, ':')
	if colon != 8 && colon != 32 {
		return netip.AddrPort{}, false
	}
	var raw [16]byte
	for i := 0; i < colon/8; i++ {
		binary.NativeEndian.PutUint32(raw[4*i:], uint32(hex(text[8*i:8*i+8])))
	}
	addr := netip.AddrFrom16(raw)
	if colon == 8 {
		addr = netip.AddrFrom4([4]byte(raw[:4]))
	}
	return netip.AddrPortFrom(addr, uint16(hex(text[colon+1:]))), true
}

// hex reads a number as %X prints it; what is no digit counts as 0, for the
// kernel prints none.
func hex(text []byte) (n uint64) {
	for _, c := range text {
		n = n<<4 | uint64(max(bytes.IndexByte([]byte("0123456789ABCDEF"), c), 0))
	}
	return n
}

func decimal(text []byte) (n uint64) {
	for _, c := range text {
		hi, lo := bits.Mul64(n, 10)
		if c < '0' || c > '9' || hi != 0 {
			return n
		}
		n = lo + uint64(c-'0')
	}
	return n
}

// counter reads UdpInDatagrams and Udp6InDatagrams of a namespace, and if asked
// the same of OutDatagrams.
type counter struct {
	snmp, snmp6 *file // the second is nil in a kernel without IPv6
	column      int   // of InDatagrams in the Udp lines
	out         int   // of OutDatagrams
}

// openCounter opens the files in dir, a "net" directory of the proc file system.
func openCounter(dir string) (*counter, error) {
	snmp, err := openFile(filepath.Join(dir, "snmp"))
	if err != nil {
		return nil, err
	}
	c := &counter{snmp: snmp, column: -1, out: -1}
	if c.snmp6, err = openFile(filepath.Join(dir, "snmp6")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(err, c.close())
	}
	data, err := snmp.read()
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	heading := data[max(bytes.Index(data, []byte("\nUdp: ")), 0):]
	heading, _, _ = bytes.Cut(bytes.TrimLeft(heading, "\n"), []byte("\n"))
	for i, name := range bytes.Fields(heading) {
		switch string(name) {
		case "InDatagrams":
			c.column = i
		case "OutDatagrams":
			c.out = i
		}
	}
	if c.column < 0 || c.out < 0 {
		return nil, errors.Join(fmt.Errorf("read %s: no UDP counters", snmp.f.Name()), c.close())
	}
	return c, nil
}

func (c *counter) read() (uint64, error) { return c.sum(c.column, "Udp6InDatagrams") }

// sent is how many datagrams the same families have sent.
func (c *counter) sent() (uint64, error) { return c.sum(c.out, "Udp6OutDatagrams") }

func (c *counter) sum(at int, name6 string) (uint64, error) {
	data, err := c.snmp.read()
	if err != nil {
		return 0, err
	}
	n := column(data, "\nUdp: ", at)
	if c.snmp6 == nil {
		return n, nil
	}
	if data, err = c.snmp6.read(); err != nil {
		return 0, err
	}
	return n + named(data, name6), nil
}

// column returns the number in a column of the second line that begins with
// prefix; the first is the heading.
func column(data []byte, prefix string, column int) uint64 {
	for range 2 {
		i := bytes.Index(data, []byte(prefix))
		if i < 0 {
			return 0
		}
		data = data[i+1:]
	}
	for ; column > 0; column-- {
		i := bytes.IndexByte(data, ' ')
		if i < 0 {
			return 0
		}
		data = data[i+1:]
	}
	return decimal(data)
}

// named returns the number behind a name that begins a line.
func named(data []byte, name string) uint64 {
	i := bytes.Index(data, []byte(name))
	if i < 0 {
		return 0
	}
	return decimal(bytes.TrimLeft(data[i+len(name):], " \t"))
}

// without6 stops counting IPv6, which nobody needs where all sockets are IPv4's.
func (c *counter) without6() {
	if c.snmp6 != nil {
		_ = c.snmp6.close() // nothing was written
		c.snmp6 = nil
	}
}

func (c *counter) close() error {
	err := c.snmp.close()
	if c.snmp6 != nil {
		err = errors.Join(err, c.snmp6.close())
	}
	return err
}
