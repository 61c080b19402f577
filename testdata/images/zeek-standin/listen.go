package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchLen is the number of datagrams asked for at once.
	batchLen = 64
	// tick is how long the kernel may keep the reader waiting; at every tick
	// the clock moves and the logs reach the disk.
	tick = 100 * time.Millisecond
)

// listen receives datagrams until ctx ends and hands their inner frames to s.
func listen(ctx context.Context, iface string, script script, faults faults, s *sensor, stderr io.Writer) error {
	src, err := parseSource(iface)
	if err != nil {
		return err
	}
	fd, err := openSocket(src.addr, script.recvBuffer)
	if err != nil {
		return fmt.Errorf("problem with interface %s (%w)", iface, err)
	}
	defer unix.Close(fd)
	fmt.Fprintln(stderr, "listening on", src)
	r := &receiver{
		sensor: s, strip: decapsulators()[src.encap], link: src.link, faults: faults,
		batch: newBatch(fd, script.datagramLimit), stats: newStats(s, script.statsInterval),
	}
	return r.run(ctx)
}

// openSocket binds a UDP socket that others may share. The kernel clamps the
// buffer to net.core.rmem_max without an error, as it does for Zeek.
func openSocket(addr netip.AddrPort, buffer int) (int, error) {
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	wait := unix.NsecToTimeval(int64(tick))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
	)
	if err == nil {
		err = unix.Bind(fd, sockaddr(addr))
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
}

// receiver moves datagrams from the socket to the sensor.
type receiver struct {
	sensor *sensor
	strip  decapsulate
	link   int // type of what is inside
	faults faults
	batch  *batch
	stats  *stats
}

// run receives until ctx ends. What the socket still holds then is lost, as
// with Zeek.
func (r *receiver) run(ctx context.Context) error {
	r.stats.report(time.Now())
	defer func() { r.stats.report(time.Now()) }()
	nextTick := time.Now()
	for ctx.Err() == nil {
		n, err := r.batch.receive()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		r.handle(ctx, n)
		if now := time.Now(); now.After(nextTick) {
			nextTick = now.Add(tick)
			r.tick(now)
		}
	}
	return nil
}

// handle gives the first n datagrams of the batch to the sensor.
func (r *receiver) handle(ctx context.Context, n int) {
	if n == 0 {
		return
	}
	start := time.Now().UnixNano()
	for i := range n {
		if r.faults.delay > 0 {
			spend(r.faults.delay)
		}
		r.datagram(r.batch.datagram(i))
	}
	r.sensor.mu.Lock()
	r.sensor.counts.lastLag = time.Now().UnixNano() - start
	r.sensor.mu.Unlock()
	if r.faults.pause > 0 {
		sleep(ctx, r.faults.pause)
		r.faults.pause = 0
	}
}

func (r *receiver) datagram(d []byte) {
	v, frame, weird := r.strip(d)
	r.sensor.mu.Lock()
	defer r.sensor.mu.Unlock()
	if weird != "" {
		r.sensor.drop(time.Now().UnixNano(), len(d), weird)
		return
	}
	r.sensor.counts.bytes += uint64(len(d) - len(frame)) // Zeek counts the tunnel header as well
	r.sensor.frame(time.Now().UnixNano(), v, r.link, frame, len(frame))
}

// tick ends silent flows and flushes the logs.
func (r *receiver) tick(now time.Time) {
	r.stats.tick(now)
	r.sensor.mu.Lock()
	defer r.sensor.mu.Unlock()
	r.sensor.advance(now.UnixNano())
	if err := r.sensor.logs.flush(); err != nil {
		r.sensor.logs.errors = append(r.sensor.logs.errors[:0], err) // one is enough to tell
	}
	r.sensor.logs.turn(now)
}

// spend passes the time busily where the sleep would be longer than asked for.
func spend(d time.Duration) {
	if d >= time.Millisecond {
		time.Sleep(d)
		return
	}
	for start := time.Now(); time.Since(start) < d; {
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// batch is the memory of one recvmmsg call, made once.
type batch struct {
	fd      int
	limit   int
	headers [batchLen]mmsghdr
	iovecs  [batchLen]unix.Iovec
	buffer  []byte
}

// mmsghdr is the kernel's struct mmsghdr, include/linux/socket.h.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// newBatch prepares for datagrams of up to limit bytes; the kernel cuts longer ones.
func newBatch(fd, limit int) *batch {
	b := &batch{fd: fd, limit: limit, buffer: make([]byte, batchLen*limit)}
	for i := range b.headers {
		b.iovecs[i].Base = &b.buffer[i*limit]
		b.iovecs[i].SetLen(limit)
		b.headers[i].hdr.Iov = &b.iovecs[i]
		b.headers[i].hdr.SetIovlen(1)
	}
	return b
}

// receive waits up to one tick for the first datagram, takes what else is
// there, and returns how many there are.
func (b *batch) receive() (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.headers[0])),
		batchLen, unix.MSG_WAITFORONE, 0, 0)
	runtime.KeepAlive(b)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	}
	return 0, errno
}

// datagram is the i-th one received, valid until the next call of receive.
func (b *batch) datagram(i int) []byte {
	return b.buffer[i*b.limit:][:b.headers[i].len]
}
