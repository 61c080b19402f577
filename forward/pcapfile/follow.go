package pcapfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

var (
	_ forward.Source   = (*Follower)(nil)
	_ forward.Progress = (*Follower)(nil)
	_ forward.Readier  = (*Follower)(nil)
	_ forward.Stopper  = (*Follower)(nil)
)

// lookAgain is how long the end of a file that grows is left alone. A file that another
// one has replaced is at its end when nothing has come for that long.
const lookAgain = 100 * time.Millisecond

// Follower reads a capture that grows, as tail -F does: at its end it waits for more.
// Where another file has taken its place, or it was made shorter, it goes on with what
// is there, from its beginning, as a new segment. It ends only when it is stopped. Only
// Progress and Stop may be called from another goroutine.
type Follower struct {
	name    string
	poll    time.Duration // as lookAgain
	stopped chan struct{}
	halt    func()
	stop    waits

	now     *Reader
	next    *os.File // not begun yet; nil: to be opened
	segment int
	last    int64
	links   []forward.LinkType
	damages []*DamageError
	done    atomic.Int64
	base    int64
	err     error
}

// Follow opens a file that is to be read on and on. Of opts only Stop is looked at.
func Follow(name string, opts Options) (*Follower, error) {
	f, err := openFile(name, nil, waits{})
	if err != nil {
		return nil, err
	}
	own, regular := f.r.(*os.File)
	if !regular || !f.regular {
		return nil, errors.Join(fmt.Errorf("follow %s: it is no regular file; it is read to its end without following", name), f.close())
	}
	w := &Follower{name: name, poll: lookAgain, stopped: make(chan struct{}), next: own}
	w.halt = sync.OnceFunc(func() { close(w.stopped) })
	w.stop = waits{opts.Stop, w.stopped}
	return w, nil
}

// Next waits for the next frame; see [forward.Source].
func (w *Follower) Next(f *forward.Frame) error {
	for w.err == nil {
		if w.now == nil {
			w.err = w.begin()
			continue
		}
		err := w.now.Next(f)
		if err == nil {
			return nil
		}
		if !w.over(err) {
			w.err = err
			break
		}
		w.err = w.end()
	}
	return w.err
}

// over reports whether err is the end of a file that was replaced: at a packet's end, or
// within one, which is noted once. Other damage is where the file cannot be followed on.
func (w *Follower) over(err error) bool {
	var damage *DamageError
	if errors.As(err, &damage) && errors.Is(err, io.ErrUnexpectedEOF) {
		if len(w.damages) == 0 {
			w.damages = append(w.damages, damage)
		}
		return true
	}
	return isEOF(err)
}

// begin waits for the file that is there and for its header.
func (w *Follower) begin() error {
	for w.next == nil {
		f, err := os.Open(w.name)
		switch {
		case err == nil:
			w.next = f
		case !errors.Is(err, os.ErrNotExist):
			return err
		default:
			if err := w.wait(); err != nil {
				return err
			}
		}
	}
	f := w.next
	w.next = nil
	r := &Reader{done: &w.done}
	if err := r.start(&file{name: w.name, r: &tail{Follower: w, file: f}, close: f.Close}); err != nil {
		return err
	}
	r.base, r.segment, r.last = w.base, w.segment, w.last
	w.now = r
	return nil
}

// end closes a file that was replaced.
func (w *Follower) end() error {
	r := w.now
	w.links = w.LinkTypes()
	w.now = nil
	w.segment, w.last, w.base = r.segment+1, r.last, r.base+r.win.stored()
	return r.Close()
}

// wait waits for a while, unless the run ends.
func (w *Follower) wait() error {
	timer := time.NewTimer(w.poll)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-w.stop[0]:
	case <-w.stop[1]:
	}
	return fmt.Errorf("follow %s: %w", w.name, context.Canceled)
}

// tail is a file that may grow. It ends where another has taken its place.
type tail struct {
	*Follower
	file *os.File
	at   int64
}

// Read waits for more at the end.
func (t *tail) Read(p []byte) (int, error) {
	for replaced := false; ; {
		n, err := t.file.Read(p)
		t.at += int64(n)
		if n > 0 || err != nil && !isEOF(err) {
			return n, err
		}
		if replaced {
			return 0, io.EOF
		}
		shorter := false
		if replaced, shorter, err = t.replaced(); err != nil {
			return 0, err
		}
		if shorter {
			return 0, io.EOF
		}
		if err := t.wait(); err != nil {
			return 0, err
		}
	}
}

// replaced reports whether the name is another file's now, and whether the file is
// shorter than what was read of it. A name that is nobody's may become another's: its
// last owner may still grow meanwhile.
func (t *tail) replaced() (replaced, shorter bool, err error) {
	own, err := t.file.Stat()
	if err != nil {
		return false, false, err
	}
	if own.Size() < t.at {
		return true, true, nil
	}
	named, err := os.Stat(t.name)
	if errors.Is(err, os.ErrNotExist) {
		return false, false, nil
	}
	return err == nil && !os.SameFile(own, named), false, err
}

// Ready reports whether Next would return at once: see [forward.Readier].
func (w *Follower) Ready() bool { return w.err != nil || w.now != nil && w.now.Ready() }

// Stop ends the waiting: see [forward.Stopper].
func (w *Follower) Stop() { w.halt() }

// LinkTypes returns those that were met so far, each once.
func (w *Follower) LinkTypes() []forward.LinkType {
	all := slices.Clone(w.links)
	if w.now != nil {
		all = append(all, w.now.LinkTypes()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Damages returns where a file that was replaced was damaged or cut short, once.
func (w *Follower) Damages() []*DamageError { return slices.Clone(w.damages) }

// Progress returns the bytes read; how many there will be is not known.
func (w *Follower) Progress() (done, total int64) { return w.done.Load(), 0 }

// Close closes the file. Data of frames is invalid afterwards.
func (w *Follower) Close() error {
	w.halt()
	var err error
	if w.now != nil {
		err = w.now.Close()
		w.now = nil
	}
	if w.next != nil {
		err = errors.Join(err, w.next.Close())
		w.next = nil
	}
	if w.err == nil {
		w.err = errClosed
	}
	return err
}
