package transmit

import (
	"github.com/vishvananda/netlink"
)

// What the kernel's UDP takes may still die in the queueing discipline of the device
// by which it leaves: of a super-packet that is cut there only the first segment's
// fate is told, and a discipline that drops what has waited for long (CoDel) tells
// nobody. It counts what it drops, whosever that is.

// queueCounts is what the root discipline of a device has counted. The numbers wrap.
type queueCounts struct {
	passed  uint32 // packets that left it; of a super-packet, its segments
	dropped uint32 // packets
	waiting uint32 // packets or super-packets in it
}

// ownQueue watches the root discipline of a device. Counters are those of the network
// namespace that the calling thread is in.
type ownQueue struct {
	link   netlink.Link
	handle uint32 // of the discipline: another one counts anew
	before queueCounts
}

// watchQueue begins to watch; nil where there is nothing to see.
func watchQueue(link netlink.Link) *ownQueue {
	q := &ownQueue{link: link}
	var ok bool
	if q.handle, q.before, ok = q.read(); !ok {
		return nil
	}
	return q
}

// read needs no privilege.
func (q *ownQueue) read() (handle uint32, c queueCounts, ok bool) {
	list, err := netlink.QdiscList(q.link)
	if err != nil {
		return 0, c, false
	}
	for _, d := range list {
		a := d.Attrs()
		if a.Parent != netlink.HANDLE_ROOT || a.Statistics == nil || a.Statistics.Basic == nil || a.Statistics.Queue == nil {
			continue
		}
		s := a.Statistics
		return a.Handle, queueCounts{s.Basic.Packets, s.Queue.Drops, s.Queue.Qlen}, true
	}
	return 0, c, false
}

// trouble is what the queue has done to the packets that it was given since it is
// watched. Again is how many drops are no loss: their packets were given once more.
// It is nil where there is nothing to say.
func (q *ownQueue) trouble(given, again uint64, gso bool) *Trouble {
	handle, after, ok := q.read()
	if !ok || handle != q.handle {
		return nil
	}
	perPacket := uint64(1)
	if gso {
		perPacket = maxSegments
	}
	t := judgeQueue(q.before, after, given, again*perPacket, perPacket)
	if t != nil {
		t.Device = q.link.Attrs().Name
	}
	return t
}

// judgeQueue says what became of given packets. Certain is only that those which
// neither passed nor wait were dropped; perPacket is how many packets may wait as one.
func judgeQueue(before, after queueCounts, given, again, perPacket uint64) *Trouble {
	if after.dropped < before.dropped { // counted anew
		return nil
	}
	dropped := uint64(after.dropped - before.dropped)
	elsewhere := uint64(after.passed-before.passed) + uint64(after.waiting)*perPacket
	switch {
	case dropped == 0:
		return nil
	case given > elsewhere:
		return &Trouble{Kind: OwnQueue, Count: min(given-elsewhere, dropped)}
	case dropped > again:
		return &Trouble{Kind: SharedQueue, Count: dropped - again}
	}
	return nil
}
