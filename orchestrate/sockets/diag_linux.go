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
	"time"

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

// All sockets are listed again after so many lookups of the known ones, and after so
// long, for another may have joined them. Where several share a port that is likely: a
// worker starts again.
const (
	refreshOne   = 128
	refreshGroup = 32
	refreshAfter = 100 * time.Millisecond
)

// maxKnown is how many sockets are looked up one by one. Listing them walks over the
// kernel's whole table of sockets, which costs as much as looking up a dozen.
const maxKnown = 16

// known is a socket as last seen, and how the kernel finds it: of those that share a
// port it takes one by the sender's port.
type known struct {
	socket Socket
	sender uint16
}

// diagReader asks by sock_diag.
type diagReader struct {
	fd       int
	listen   netip.AddrPort
	families []uint8 // that have to be asked
	requests [maxKnown * requestLen]byte
	sequence uint32 // of the requests, which their answers repeat
	buf      []byte
	known    []known   // the sockets as last listed; none where they cannot be looked up
	listed   []uint64  // their cookies, whether or not they can
	lookups  int       // how often they may still be looked up
	since    time.Time // when they were listed
}

const requestLen = unix.SizeofNlMsghdr + diagRequestLen

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

// read looks the known sockets up, or lists all, which costs more.
func (d *diagReader) read(buf []Socket) ([]Socket, error) {
	if d.lookups > 0 && time.Since(d.since) < refreshAfter {
		d.lookups--
		if longer, err := d.lookUp(buf, d.known); err == nil {
			return longer, nil
		}
		d.lookups = 0 // one is gone, or there are more
	}
	start := len(buf)
	for _, family := range d.families {
		var err error
		if buf, err = d.list(buf, family); err != nil {
			return buf, err
		}
	}
	d.learn(buf[start:])
	return buf, nil
}

// list asks for all sockets of a family without a peer on the port.
func (d *diagReader) list(buf []Socket, family uint8) ([]Socket, error) {
	d.sequence++
	id := d.compose(0, family, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.BigEndian.PutUint16(id, d.listen.Port())
	if _, err := unix.Write(d.fd, d.requests[:requestLen]); err != nil {
		return buf, fmt.Errorf("ask sock_diag: %w", err)
	}
	for done := false; !done; {
		var err error
		if buf, done, err = d.answer(buf); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// lookUp asks for sockets one by one, all at once. It fails where one of them is not
// the one that it was.
func (d *diagReader) lookUp(buf []Socket, all []known) ([]Socket, error) {
	d.sequence++
	for i := range all {
		d.composeLookup(i, &all[i])
	}
	if _, err := unix.Write(d.fd, d.requests[:len(all)*requestLen]); err != nil {
		return buf, fmt.Errorf("ask sock_diag: %w", err)
	}
	for want := len(buf) + len(all); len(buf) < want; {
		var err error
		if buf, _, err = d.answer(buf); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// answer reads one datagram of answers and reports whether it has the last one.
func (d *diagReader) answer(buf []Socket) ([]Socket, bool, error) {
	for {
		n, err := unix.Read(d.fd, d.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return buf, false, fmt.Errorf("read sock_diag: %w", err)
		}
		return d.messages(buf, d.buf[:n])
	}
}

// compose writes the i-th request of a message, but for what it is about: its struct
// inet_diag_sockid, which it returns.
func (d *diagReader) compose(i int, family uint8, flags uint16) []byte {
	r := d.requests[i*requestLen:][:requestLen]
	clear(r)
	binary.NativeEndian.PutUint32(r, requestLen)
	binary.NativeEndian.PutUint16(r[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(r[6:], flags)
	binary.NativeEndian.PutUint32(r[8:], d.sequence)
	q := r[unix.SizeofNlMsghdr:]
	q[0], q[1], q[2] = family, unix.IPPROTO_UDP, 1<<(diagMemInfo-1)
	binary.NativeEndian.PutUint32(q[4:], 1<<unconnected)
	return q[8:]
}

// composeLookup writes the request for one socket. Its lookup takes the ends as a
// received packet names them: the destination is here (udp_dump_one in
// net/ipv4/udp_diag.c).
func (d *diagReader) composeLookup(i int, k *known) {
	id := d.compose(i, familyOf(k.socket), unix.NLM_F_REQUEST)
	binary.BigEndian.PutUint16(id, k.sender)
	binary.BigEndian.PutUint16(id[2:], k.socket.Local.Port())
	if addr := k.socket.Local.Addr(); addr.Is4() {
		four := addr.As4()
		copy(id[idDestination:], four[:])
	} else {
		sixteen := addr.As16()
		copy(id[idDestination:], sixteen[:])
	}
	binary.NativeEndian.PutUint32(id[idCookie:], uint32(k.socket.ID))
	binary.NativeEndian.PutUint32(id[idCookie+4:], uint32(k.socket.ID>>32))
}

func familyOf(s Socket) uint8 {
	if s.Local.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// anyCookie asks for whichever socket is found (INET_DIAG_NOCOOKIE).
const anyCookie = 1<<64 - 1

// learn finds how each of the listed sockets is looked up. Where these are the same
// as before, so is that.
func (d *diagReader) learn(all []Socket) {
	if !d.areListed(all) {
		d.listed, d.known = d.listed[:0], d.known[:0]
		for _, s := range all {
			d.listed = append(d.listed, s.ID)
		}
		if len(all) <= maxKnown {
			for _, s := range all {
				d.known = append(d.known, known{socket: s})
			}
			if !d.findSenders() {
				d.known = d.known[:0]
			}
		}
	}
	switch len(d.known) {
	case 0:
	case 1:
		d.lookups = refreshOne
	default:
		d.lookups = refreshGroup
	}
	d.since = time.Now()
}

func (d *diagReader) areListed(all []Socket) bool {
	if len(all) != len(d.listed) {
		return false
	}
	for i, s := range all {
		if s.ID != d.listed[i] {
			return false
		}
	}
	return true
}

// findSenders tries senders' ports until the kernel has picked each socket for one,
// and reports whether it has. Each try finds one of a group by chance.
func (d *diagReader) findSenders() bool {
	const tries = 64
	var found [1]Socket
	for i := range d.known {
		k := &d.known[i]
		for sender := 1; ; sender++ {
			if sender > tries*len(d.known) {
				return false
			}
			probe := [1]known{{socket: k.socket, sender: uint16(sender)}}
			probe[0].socket.ID = anyCookie
			answer, err := d.lookUp(found[:0], probe[:])
			if err != nil {
				return false
			}
			if answer[0].ID == k.socket.ID {
				k.sender = uint16(sender)
				break
			}
		}
	}
	return true
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
