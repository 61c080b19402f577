package watch

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
)

// Witness counts independently of the kernel what a sensor has received.
type Witness interface {
	// Received returns how many packets it has received so far, since any origin.
	Received(ctx context.Context) (uint64, error)
}

// How long a witness may take to answer.
const (
	askedBefore = 300 * time.Millisecond  // before a run, which waits for it
	askedOnce   = 1500 * time.Millisecond // at any time
	askedAfter  = 3 * time.Second         // after a run, all questions together
	askedAgain  = 300 * time.Millisecond  // between two of these
)

// bystanders is what takes datagrams in a sensor's namespace beside its own
// sockets, as far as that can be seen, and the witness that knows better.
type bystanders struct {
	before  sockets.Others
	senders []sent // of this process in that namespace
	witness Witness
	said    uint64 // by the witness, before the run
	heard   bool   // it did say something
}

// sent is a transmission with what it had sent.
type sent struct {
	tx       transmit.Transmitter
	messages uint64
}

// lookAround looks what is there before a run. A witness that does not answer is
// none.
func lookAround(w *sockets.Watch, witness Witness) (b bystanders, err error) {
	if b.before, err = w.Others(); err != nil || witness == nil {
		return b, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), askedBefore)
	defer cancel()
	said, silent := witness.Received(ctx)
	b.witness, b.said, b.heard = witness, said, silent == nil
	return b, nil
}

// sender notes who sends from the sensor's namespace.
func (b *bystanders) sender(tx transmit.Transmitter) {
	b.senders = append(b.senders, sent{tx, messages(tx)})
}

// messages is how often a transmission has handed something to UDP, which the
// kernel counts as sent: a super-packet is one.
func messages(tx transmit.Transmitter) uint64 {
	if tx.Describe().Mode != transmit.UDP {
		return 0
	}
	s := tx.Stats()
	return s.Datagrams - min(s.Segments, s.Datagrams) + s.SuperPackets
}

// bound says how much others can have taken meanwhile.
func (b *bystanders) bound(w *sockets.Watch, run *drops.Run) {
	now, err := w.Others()
	if err != nil {
		run.Unbounded = true
		return
	}
	run.Others = now.Sent - min(b.before.Sent, now.Sent)
	for _, s := range b.senders {
		run.Others -= min(messages(s.tx)-s.messages, run.Others)
	}
	run.Unbounded = len(b.before.Open)+len(now.Open)+b.before.Asking > 0
}

// testimony asks the witness how many packets it has received since the run began;
// nil if it does not say. What it took last it may not have counted yet, so it is
// asked until it says what is expected, or twice the same.
func (b *bystanders) testimony(ctx context.Context, expected uint64) *uint64 {
	if !b.heard {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askedAfter)
	defer cancel()
	for last := uint64(math.MaxUint64); ; {
		n, err := b.witness.Received(ctx)
		if err != nil || n < b.said {
			return nil // or it was started again
		}
		if n -= b.said; n == expected || n == last {
			return &n
		}
		last = n
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(askedAgain):
		}
	}
}

// zeek is a Zeek that serves its metrics.
type zeek struct {
	client *orchestrate.QueryClient
	pages  []string // the URLs, one for each process that takes packets
}

var _ Witness = (*zeek)(nil)

// zeekAt is the sensor at an address, with the ports at which its processes tell their
// numbers; nil if there is none.
func zeekAt(addr netip.Addr, ports []int) Witness {
	if !addr.IsValid() || len(ports) == 0 {
		return nil
	}
	z := &zeek{client: orchestrate.NewQueryClient(askedOnce)}
	for _, port := range ports {
		z.pages = append(z.pages, fmt.Sprintf("http://%s/metrics", netip.AddrPortFrom(addr, uint16(port))))
	}
	return z
}

// receivedPackets counts what Zeek's packet source has returned: one per datagram.
const receivedPackets = "zeek_net_received_packets_total"

// Received implements Witness.
func (z *zeek) Received(ctx context.Context) (sum uint64, err error) {
	for _, page := range z.pages {
		n, err := z.received(ctx, page)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// received asks one process.
func (z *zeek) received(ctx context.Context, url string) (uint64, error) {
	page, err := z.client.Get(ctx, url)
	if err != nil {
		return 0, fmt.Errorf("ask the sensor: %w", err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		return 0, fmt.Errorf("read the sensor's metrics: %w", err)
	}
	family, ok := families[receivedPackets]
	if !ok {
		return 0, fmt.Errorf("read the sensor's metrics: no %s", receivedPackets)
	}
	var sum float64
	for _, m := range family.GetMetric() {
		sum += m.GetCounter().GetValue()
	}
	return uint64(sum), nil
}
