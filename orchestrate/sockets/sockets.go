// Package sockets watches the receive queues of UDP sockets, in this network
// namespace or another one: how much the kernel holds there, how much it may
// hold, what it dropped, and how much has been taken out. A sender that knows
// this can wait before a queue overflows.
//
// There are two ways to look, and [Watch.Exact] says which one is used:
//
//   - sock_diag(7), from a netlink socket that was opened inside the namespace
//     and stays in it. It tells the buffer size and what counts against it.
//     Entering another namespace needs CAP_SYS_ADMIN and CAP_SYS_PTRACE (root);
//     the own one needs nothing.
//   - /proc/PID/net/udp and udp6 of any process in the namespace, which anybody
//     may read. They tell neither the buffer size nor all that counts against
//     it, so both are assumed with care, see [Assumed].
//
// How much was taken is UdpInDatagrams of the namespace, which the kernel
// counts when an application receives, not when a datagram is queued
// (udp_recvmsg in net/ipv4/udp.c). It counts all sockets of the namespace
// together; [Watch.Others] tells how far that can mislead.
package sockets

import (
	"errors"
	"io/fs"
	"net/netip"
)

// Socket is the state of one socket's receive queue. Memory is in bytes as the
// kernel accounts it (true size of the buffers, not of their payload).
type Socket struct {
	ID     uint64         // the kernel's cookie, or the inode where that is not to be had
	Inode  uint64         // as the links in /proc/PID/fd name it
	Local  netip.AddrPort // as bound; 0.0.0.0 or :: for every address
	Queued int            // memory of the datagrams that wait
	// Allocated is what counts against Buffer: Queued and memory of datagrams
	// already taken that the kernel gives back later, in portions of up to a
	// quarter of the buffer (udp_rmem_release).
	Allocated int
	Buffer    int    // what Allocated may reach; a datagram that comes later is dropped
	Drops     uint64 // datagrams dropped at this socket since it was opened
}

// Place is a network namespace, as it can be reached.
type Place struct {
	// Path is a namespace to enter, such as /proc/PID/ns/net or
	// /run/netns/NAME; empty for that of this process.
	Path string
	// Process is a process in the namespace, whose files are read where the
	// namespace cannot be entered; 0 if there is none.
	Process int
}

// OfProcess is the namespace of a process.
func OfProcess(pid int) Place { return Place{Path: procPath(pid, "ns/net"), Process: pid} }

// ErrNoSocket says that nobody listens where sockets were looked for.
var ErrNoSocket = errors.New("no socket listens there")

// Untuned are the kernel's defaults of net.core.rmem_max and rmem_default, in
// bytes: 256 datagrams of 256 bytes with their overhead (SK_RMEM_MAX in
// include/net/sock.h).
const Untuned = 212992

// Asking says how a socket came by its buffer, where the kernel does not tell
// its size.
type Asking int

// The ways.
const (
	AsksForMuch    Asking = iota // SO_RCVBUF beyond rmem_max, as Zeek: twice rmem_max
	AsksForNothing               // rmem_default, as docker-proxy
)

// Assumed is the buffer size that is assumed of a socket where the kernel does
// not tell it, in bytes: that of an untuned machine, or less where the machine
// has less. A machine that was tuned since may have sockets from before, so
// larger values of rmem_max and rmem_default (bytes; 0 if unknown) prove
// nothing. Too small a value costs nothing but speed.
func Assumed(asking Asking, rmemMax, rmemDefault int) int {
	limit, factor := rmemDefault, 1
	if asking == AsksForMuch {
		limit, factor = rmemMax, 2 // the kernel doubles what is asked for: sock_setsockopt
	}
	if limit <= 0 || limit > Untuned {
		limit = Untuned
	}
	return limit * factor
}

// Watch reads the sockets that listen on one UDP port in one namespace. It
// belongs to one goroutine. Reading allocates nothing once it has grown to the
// number of sockets there are.
type Watch struct {
	place  Place
	listen netip.AddrPort
	reader reader
	taken  *counter
	all    tables
}

// Others is what else than the watched sockets there is in a namespace, at one
// time. [Watch.Taken] counts what these take as well. What they can have taken is
// bounded: a socket takes what somebody has sent to it, so as long as none is open
// to the outside, no more is taken than sockets of the namespace have sent, to each
// other or as questions that were answered once.
type Others struct {
	Sent   uint64           // datagrams sent from the namespace so far, by all its sockets
	Open   []netip.AddrPort // sockets to which anybody may send: no peer, not on loopback
	Asking int              // sockets with a peer, whose answer may be under way
}

// reader is one of the two ways to look.
type reader interface {
	// read appends the sockets that are there.
	read(buf []Socket) ([]Socket, error)
	exact() bool
	close() error
}

// Open watches the sockets that are not connected, listen on the port of
// listen, and take datagrams sent to its address; an unspecified address stands
// for any. It fails with [ErrNoSocket] where there is none, with
// fs.ErrPermission where the namespace may not be looked into, and with
// errors.ErrUnsupported on other systems than Linux.
func Open(place Place, listen netip.AddrPort, asking Asking) (*Watch, error) {
	w, err := open(place, listen, asking)
	if err != nil {
		return nil, &fs.PathError{Op: "watch sockets at " + listen.String() + " in", Path: place.String(), Err: err}
	}
	return w, nil
}

// String names the place in errors.
func (p Place) String() string {
	if p.Path == "" {
		return "this network namespace"
	}
	return p.Path
}

// Read appends the sockets that are there now to buf. Which ones these are may
// change at any time: none is no error.
func (w *Watch) Read(buf []Socket) ([]Socket, error) { return w.reader.read(buf) }

// Taken returns how many UDP datagrams applications in the namespace have
// received so far, all sockets together. The origin is arbitrary.
func (w *Watch) Taken() (uint64, error) { return w.taken.read() }

// Others looks at what else there is in the namespace. It allocates: once before
// and once after a run is often enough.
func (w *Watch) Others() (o Others, err error) {
	if o, err = w.all.others(w.listen); err == nil {
		o.Sent, err = w.taken.sent()
	}
	return o, err
}

// Exact reports whether the kernel tells the buffer size. Otherwise Buffer and
// Allocated are assumptions that err on the safe side.
func (w *Watch) Exact() bool { return w.reader.exact() }

// Close releases the files.
func (w *Watch) Close() error { return errors.Join(w.reader.close(), w.taken.close(), w.all.close()) }

// takes reports whether a socket bound to local takes what is sent to listen.
func takes(local, listen netip.AddrPort) bool {
	if local.Port() != listen.Port() {
		return false
	}
	l, to := local.Addr().Unmap(), listen.Addr().Unmap()
	switch {
	case to.IsUnspecified() || l == to:
		return true
	case !l.IsUnspecified():
		return false
	}
	return l.Is6() || to.Is4() // :: takes IPv4 as well, unless it was told not to
}
