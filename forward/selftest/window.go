package selftest

import (
	"context"
	"sync"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// writeOff is how long nothing may arrive until what is on the way counts as
// lost, so that a loss does not stop the run.
const writeOff = 200 * time.Millisecond

// maxOnWay is how many datagrams may be on the way: fewer than the queue of a
// processor for received packets holds, through which the loopback device goes
// as well (net.core.netdev_max_backlog, 1000 by default).
const maxOnWay = 800

// window is a Gate that never lets more be on the way than the kernel's queues
// can hold. The receiver tells it what has arrived.
type window struct {
	limit int // bytes of kernel memory that may be on the way
	wake  chan struct{}
	timer *time.Timer

	mu        sync.Mutex
	onWay     int // bytes
	datagrams int
}

var _ forward.Gate = (*window)(nil)

// newWindow returns a window for a socket whose receive buffer, as the kernel
// accounts it, is of the given size.
func newWindow(buffer int) *window {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &window{limit: buffer / 10 * 7, wake: make(chan struct{}, 1), timer: timer}
}

// kernelMemory is an upper estimate of what a datagram of n bytes of payload
// takes of a receive buffer: its data in a power of two, the structures struct
// sk_buff and struct skb_shared_info, and headers (SKB_TRUESIZE in the kernel's
// include/linux/skbuff.h).
func kernelMemory(n int) int { return 1100 + 2*n }

// Reserve implements [forward.Gate]. What it grants counts as on the way at
// once, for it may arrive before Sent is called.
func (w *window) Reserve(ctx context.Context, b *forward.Batch) (forward.Grant, error) {
	grant := forward.Grant{Datagrams: w.take(b)}
	if grant.Datagrams > 0 {
		return grant, nil
	}
	start := time.Now()
	for grant.Datagrams == 0 {
		if err := w.wait(ctx); err != nil {
			return grant, err
		}
		grant.Datagrams = w.take(b)
	}
	grant.Stalled = time.Since(start)
	return grant, nil
}

// take returns how many of the leading datagrams fit, and counts them as on the
// way. The first fits always where nothing is, however large it is.
func (w *window) take(b *forward.Batch) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range b.Datagrams {
		size := kernelMemory(b.Datagrams[i].Len)
		if w.onWay > 0 && (w.onWay+size > w.limit || w.datagrams == maxOnWay) {
			return i
		}
		w.onWay += size
		w.datagrams++
	}
	return len(b.Datagrams)
}

// wait returns when something has arrived, or nothing will any more.
func (w *window) wait(ctx context.Context) error {
	w.timer.Reset(writeOff)
	defer w.timer.Stop()
	select {
	case <-w.wake:
	case <-w.timer.C:
		w.mu.Lock()
		w.onWay, w.datagrams = 0, 0
		w.mu.Unlock()
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Sent implements [forward.Gate]: what was not sent is not on the way.
func (w *window) Sent(b *forward.Batch, n int) {
	unsent := 0
	for i := n; i < len(b.Datagrams); i++ {
		unsent += kernelMemory(b.Datagrams[i].Len)
	}
	if unsent > 0 {
		w.arrived(len(b.Datagrams)-n, unsent)
	}
}

// arrived takes datagrams off the way, and their memory as [kernelMemory]
// counts it. Second copies may make it more than there was.
func (w *window) arrived(datagrams, size int) {
	w.mu.Lock()
	w.onWay, w.datagrams = max(w.onWay-size, 0), max(w.datagrams-datagrams, 0)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
