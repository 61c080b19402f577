package transmit

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// earshot is what a [Listener] hears with, and the way that it keeps up with.
type earshot struct {
	troubles troubles
	deaf     error
	to       netip.AddrPort
	src      netip.Addr // of the datagrams, as the routing chooses it
	ear      int        // -1 without
	device   int        // that the ear is on
	buf      []byte
	poller   sys.Poller
	follower *follower
	silence  silence
	// firstSent is when it was heard first that something has left; 0 if never.
	firstSent int64
}

// silence is that of a neighbour: the kernel keeps few datagrams for one that it
// does not know, and drops them when it has asked three times.
type silence struct {
	since int64  // monotonic; 0 while the neighbour is known
	sent  uint64 // datagrams before it
	noted bool   // it is in the list of troubles
}

func openEarshot(to netip.AddrPort) (*earshot, error) {
	e, err := findExit(question{dst: to.Addr()})
	if err != nil {
		return nil, err
	}
	s := &earshot{to: to, src: e.source(), ear: -1, device: e.earDevice(), buf: make([]byte, earBuffer), follower: newFollower(e)}
	ear, err := sys.OpenEar(to.Addr().Is6(), s.device)
	if err != nil {
		s.deaf = permission(err)
		return s, nil
	}
	s.ear = ear
	s.poller.AddData(ear)
	return s, nil
}

// loopbackIndex is the loopback device's in every network namespace
// (LOOPBACK_IFINDEX of include/net/flow.h).
const loopbackIndex = 1

// earDevice is where errors about datagrams by an exit come in: what this machine
// says to itself comes by the loopback, whatever device its route names.
func (e exit) earDevice() int {
	if e.local() {
		return loopbackIndex
	}
	return e.link.Attrs().Index
}

// source is the source address that the routing chooses.
func (e exit) source() netip.Addr {
	src, _ := netip.AddrFromSlice(e.route.Src)
	return src.Unmap()
}

func (s *earshot) hear(sent uint64) {
	if s.firstSent == 0 && sent > 0 {
		s.firstSent = sys.Monotonic()
	}
	if s.ear >= 0 {
		hear(s.ear, s.buf, s.src, s.to, func(c sys.Complaint) { s.troubles.note(kindOf(c), c.From) })
	}
	if now := sys.Monotonic(); s.follower.notice(now) {
		s.look(now, sent)
	}
}

// look takes in the way as it is now.
func (s *earshot) look(now int64, sent uint64) {
	f := s.follower
	e, _, err := f.look(now)
	if err == nil {
		s.silence = silence{}
		s.turn(e)
		return
	}
	if e.link == nil || e.link.Attrs().RawFlags&linkRunning == 0 {
		return // without a way the tunnel counts what it cannot send
	}
	if s.silence.since == 0 {
		s.silence = silence{since: now, sent: sent}
	}
	lost := sent > s.silence.sent && now-s.silence.since >= int64(neighbourAnswer)
	if (lost || f.silent && sent > 0) && !s.silence.noted {
		s.silence.noted = true
		s.troubles.note(NeighbourSilent, netip.Addr{})
	}
	f.silent = false
}

// turn listens where the way leads now.
func (s *earshot) turn(to exit) {
	s.src = to.source()
	if device := to.earDevice(); s.ear >= 0 && device != s.device {
		if s.deaf = sys.BindEar(s.ear, s.to.Addr().Is6(), device); s.deaf == nil {
			s.device = device
		}
	}
}

func (s *earshot) settle(ctx context.Context, sent uint64) {
	s.hear(sent)
	rest := settlement{troubles: &s.troubles, follower: s.follower, now: sys.Monotonic, listen: func(most time.Duration) {
		s.poller.Wait(most)
		s.hear(sent)
	}}
	rest.await(ctx, s.firstSent, sys.Monotonic())
}

func (s *earshot) close() (err error) {
	if s.ear >= 0 {
		err = sys.Close(s.ear)
	}
	return errors.Join(err, s.follower.Close())
}
