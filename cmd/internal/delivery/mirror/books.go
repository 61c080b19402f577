package mirror

import (
	"context"
	"errors"
	"fmt"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// kernelBooks are the accounts of a run in the kernel, one for each life of the
// sensor. The kernel waits for nobody, but what the sensor took can be seen; of a
// receiver of which nothing is known, what is said about packets to it is heard.
type kernelBooks struct {
	m        *mirror
	now      *stretch
	ear      *transmit.Listener // nil where the sensor's own counters tell, or without
	before   uint64             // packets that had left the tunnels when the stretch began
	accounts []watch.Account
	heard    transmit.Stats // troubles only
	deaf     bool           // and that has been said
}

// packets left the tunnels so far.
func packets(mirrors []tcmirror.Mirror) (n uint64) {
	for _, m := range mirrors {
		n += m.Stats.Tunnel.Packets
	}
	return n
}

// open begins the account of the sensor, before anything is sent to it.
func (b *kernelBooks) open(mirrors []tcmirror.Mirror) {
	b.before = packets(mirrors)
	b.now = &stretch{to: b.m.target, lossless: watch.Off}
	w, err := delivery.Feedback(b.m.target)
	if err != nil {
		b.now.reason = err.Error()
		b.listen()
	}
	b.now.watch = w
}

// listen begins to listen for what is said about packets to the receiver. Without
// that the mirror is as good, and the note is given once.
func (b *kernelBooks) listen() {
	ear, err := transmit.Listen(b.m.target.Address)
	if err == nil {
		b.ear, err = ear, ear.Deaf()
	}
	if err != nil && !b.deaf {
		b.deaf = true
		b.m.say(fmt.Sprintf("note: hosts that refuse packets are not heard: %v", err))
	}
}

// hear takes in what was said, and what can be seen of the way.
func (b *kernelBooks) hear(mirrors []tcmirror.Mirror) {
	if b.ear != nil {
		b.ear.Hear(packets(mirrors) - b.before)
	}
}

// drop gives up an account.
func (b *kernelBooks) drop() {
	if b.now == nil {
		return
	}
	if b.now.watch != nil {
		b.m.warn(b.now.watch.Close())
	}
	if b.ear != nil {
		b.m.warn(b.ear.Close())
	}
}

// close ends it, as soon as the sensor has taken what waits for it, or nothing more
// can be expected to be said.
func (b *kernelBooks) close(ctx context.Context, mirrors []tcmirror.Mirror, runErr error) error {
	sent := packets(mirrors) - b.before
	b.now.sent.Store(sent)
	account, err := b.now.settle(ctx, runErr)
	if b.now.watch != nil {
		account.Reason = "the kernel waits for nobody"
	}
	b.accounts = append(b.accounts, account)
	return errors.Join(err, b.hush(ctx, sent))
}

// hush takes in the last of what is said about packets, for which it waits a moment
// though ctx has ended, and listens no more.
func (b *kernelBooks) hush(ctx context.Context, sent uint64) error {
	if b.ear == nil {
		return nil
	}
	said := b.ear.Settle(context.WithoutCancel(ctx), sent)
	if sent > 0 { // else it is about others'
		b.heard = b.heard.Add(transmit.Stats{Troubles: said})
	}
	err := b.ear.Close()
	b.ear = nil
	return err
}
