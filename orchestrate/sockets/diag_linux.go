package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Sizes and offsets of the kernel's include/uapi/linux/inet_diag.h, in bytes.
const (
	diagRequestLen = 56 // struct inet_diag_req_v2
	diagMessageLen = 72 // struct inet_diag_msg
	diagQueue      = 56 // its idiag_rqueue
	diagInode      = 68 // its idiag_inode
	diagID         = 4  // its struct inet_diag_sockid:
	idSource       = 4
	idDestination  = 20
	idCookie       = 40
	diagMemInfo    = 7 // INET_DIAG_SKMEMINFO
	// Indices of include/uapi/linux/sock_diag.h.
	memInfoRmem, memInfoRcvbuf, memInfoDrops = 0, 1, 8
)

// refresh is after how many lookups of a single socket all are listed again, for
// another may have joined it.
const refresh = 128

// diagReader asks by sock_diag.
type diagReader struct {
	fd       int
	listen   netip.AddrPort
	families []uint8 // that have to be asked
	request  [unix.SizeofNlMsghdr + diagRequestLen]byte
	sequence uint32 // of the request, which its answers repeat
	buf      []byte
	only     Socket // the one socket, as last seen
	family   uint8  // its family
	alone    int    // how often it may still be asked for alone
}

func open(place Place, listen netip.AddrPort, asking Asking) (*Watch, error) {
	w := &Watch{place: place, listen: listen}
	err := within(place.Path, func() error {
		diag, err := openDiag(listen)
		if err != nil {
			return err
		}
		w.reader = diag
		return w.openCounts(procRoot + "/thread-self/net")
	})
	if errors.Is(err, fs.ErrPermission) && place.Process != 0 {
		err = w.openProc(asking)
	}
	if err == nil {
		err = w.find()
	}
	if err != nil {
		if w.reader != nil {
			w.reader.close()
		}
		if w.taken != nil {
			w.taken.close()
		}
		w.all.close()
		return nil, err
	}
	return w, nil
}

// openProc looks without a privilege.
func (w *Watch) openProc(asking Asking) error {
	dir := procPath(w.place.Process, "net")
	proc, err := openProc(dir, w.listen, asking)
	if err != nil {
		return err
	}
	w.reader = proc
	return w.openCounts(dir)
}

// openCounts opens what counts for the whole namespace, in dir.
func (w *Watch) openCounts(dir string) (err error) {
	if w.taken, err = openCounter(dir); err != nil {
		return err
	}
	w.all, err = openTables(dir)
	return err
}

// find looks whether anybody listens, and which families have to be asked.
func (w *Watch) find() error {
	found, err := w.reader.read(nil)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return ErrNoSocket
	}
	if !slices.ContainsFunc(found, func(s Socket) bool { return s.Local.Addr().Is6() }) {
		w.taken.without6()
	}
	if d, ok := w.reader.(*diagReader); ok {
		d.families = d.families[:0]
		for _, s := range found {
			if s.Local.Addr().Is4() && (len(d.families) == 0 || d.families[0] != unix.AF_INET) {
				d.families = append(d.families, unix.AF_INET)
			}
		}
		if found[len(found)-1].Local.Addr().Is6() {
			d.families = append(d.families, unix.AF_INET6)
		}
	}
	return nil
}

// within calls fn in a network namespace. A thread that could not come back
// dies with its goroutine.
func within(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	target, err := os.Open(path)
	if err != nil {
		return err
	}
	defer target.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(procRoot + "/thread-self/ns/net")
		if err == nil {
			defer home.Close()
			if err = unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err == nil {
				err = fn()
				if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
					runtime.UnlockOSThread()
				}
			} else {
				runtime.UnlockOSThread() // it never left
			}
		}
		done <- err
	}()
	return <-done
}

func openDiag(listen netip.AddrPort) (*diagReader, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	d := &diagReader{fd: fd, listen: listen, families: []uint8{unix.AF_INET, unix.AF_INET6}, buf: make([]byte, 32<<10)}
	second := unix.Timeval{Sec: 1} // an answer is there at once, or never
	err = errors.Join(unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &second))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	return d, nil
}

func (d *diagReader) exact() bool  { return true }
func (d *diagReader) close() error { return unix.Close(d.fd) }

// read lists all sockets, or asks for the only one, which costs a third.
func (d *diagReader) read(buf []Socket) ([]Socket, error) {
	if d.alone > 0 {
		d.alone--
		if longer, err := d.ask(buf, d.family, true); err == nil && len(longer) == len(buf)+1 {
			return longer, nil
		}
		d.alone = 0 // it is gone, or not alone any more
	}
	start := len(buf)
	for _, family := range d.families {
		before := len(buf)
		var err error
		if buf, err = d.ask(buf, family, false); err != nil {
			return buf, err
		}
		if len(buf) == start+1 && before == start {
			d.family = family
		}
	}
	if len(buf) == start+1 {
		d.only, d.alone = buf[start], refresh
	}
	return buf, nil
}

// ask sends one request and appends what is answered.
func (d *diagReader) ask(buf []Socket, family uint8, alone bool) ([]Socket, error) {
	d.compose(family, alone)
	if _, err := unix.Write(d.fd, d.request[:]); err != nil {
		return buf, fmt.Errorf("ask sock_diag: %w", err)
	}
	for {
		n, err := unix.Read(d.fd, d.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return buf, fmt.Errorf("read sock_diag: %w", err)
		}
		var done bool
		before := len(buf)
		if buf, done, err = d.messages(buf, d.buf[:n]); err != nil || done || alone && len(buf) > before {
			return buf, err
		}
	}
}

// compose writes the request: for all sockets without a peer on the port, or
// for the only one.
func (d *diagReader) compose(family uint8, alone bool) {
	r := d.request[:]
	clear(r)
	flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_DUMP)
	if alone {
		flags = unix.NLM_F_REQUEST
	}
	binary.NativeEndian.PutUint32(r, uint32(len(r)))
	binary.NativeEndian.PutUint16(r[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(r[6:], flags)
	d.sequence++
	binary.NativeEndian.PutUint32(r[8:], d.sequence)
	q := r[unix.SizeofNlMsghdr:]
	q[0], q[1], q[2] = family, unix.IPPROTO_UDP, 1<<(diagMemInfo-1)
	binary.NativeEndian.PutUint32(q[4:], 1<<unconnected)
	id := q[8:]
	if !alone {
		binary.BigEndian.PutUint16(id, d.listen.Port())
		return
	}
	// The lookup of a single socket takes the ends as a received packet names
	// them: its destination is here (udp_dump_one in net/ipv4/udp_diag.c).
	binary.BigEndian.PutUint16(id[2:], d.only.Local.Port())
	copy(id[idDestination:], d.only.Local.Addr().AsSlice())
	binary.NativeEndian.PutUint32(id[idCookie:], uint32(d.only.ID))
	binary.NativeEndian.PutUint32(id[idCookie+4:], uint32(d.only.ID>>32))
}

// messages reads netlink messages and reports whether the answer is complete.
func (d *diagReader) messages(buf []Socket, data []byte) ([]Socket, bool, error) {
	for len(data) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(data))
		if length < unix.SizeofNlMsghdr || length > len(data) {
			break
		}
		body := data[unix.SizeofNlMsghdr:length]
		if binary.NativeEndian.Uint32(data[8:]) != d.sequence {
			data = data[min((length+3)&^3, len(data)):]
			continue // an answer to an earlier request, which failed half-way
		}
		switch binary.NativeEndian.Uint16(data[4:]) {
		case unix.NLMSG_DONE:
			return buf, true, nil
		case unix.NLMSG_ERROR:
			errno := unix.EIO
			if len(body) >= 4 {
				errno = unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
			}
			return buf, true, errno
		case unix.SOCK_DIAG_BY_FAMILY:
			if s, ok := parseDiag(body); ok && takes(s.Local, d.listen) {
				buf = append(buf, s)
			}
		}
		data = data[min((length+3)&^3, len(data)):]
	}
	return buf, false, nil
}

// parseDiag reads a struct inet_diag_msg and its memory attribute.
func parseDiag(m []byte) (s Socket, ok bool) {
	if len(m) < diagMessageLen {
		return s, false
	}
	id := m[diagID:]
	addr := netip.AddrFrom4([4]byte(id[idSource : idSource+4]))
	if m[0] == unix.AF_INET6 {
		addr = netip.AddrFrom16([16]byte(id[idSource : idSource+16]))
	}
	s.Local = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(id))
	s.ID = uint64(binary.NativeEndian.Uint32(id[idCookie:])) | uint64(binary.NativeEndian.Uint32(id[idCookie+4:]))<<32
	s.Inode = uint64(binary.NativeEndian.Uint32(m[diagInode:]))
	s.Queued = int(int32(binary.NativeEndian.Uint32(m[diagQueue:])))
	for rest := m[diagMessageLen:]; len(rest) >= 4; {
		length := int(binary.NativeEndian.Uint16(rest))
		if length < 4 || length > len(rest) {
			return s, false
		}
		if binary.NativeEndian.Uint16(rest[2:]) == diagMemInfo && length >= 4+4*(memInfoDrops+1) {
			word := func(i int) uint32 { return binary.NativeEndian.Uint32(rest[4+4*i:]) }
			s.Allocated, s.Buffer, s.Drops = int(word(memInfoRmem)), int(word(memInfoRcvbuf)), uint64(word(memInfoDrops))
			return s, true
		}
		rest = rest[min((length+3)&^3, len(rest)):]
	}
	return s, false
}
