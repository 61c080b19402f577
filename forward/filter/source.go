package filter

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
)

var (
	_ forward.Source   = (*Filter)(nil)
	_ forward.Progress = (*Filter)(nil)
	_ forward.Filterer = (*Filter)(nil)
	_ forward.Readier  = (*Filter)(nil)
	_ forward.Stopper  = (*Filter)(nil)
)

// Filter is a Source that yields the matching frames of another one.
type Filter struct {
	src      forward.Source
	compile  func(forward.LinkType) (*Program, error)
	programs map[forward.LinkType]*Program // nil: no frame of it can match
	link     forward.LinkType              // of the last frame
	program  *Program                      // for link
	ethernet bool                          // whether it is for the Ethernet form of link's frames
	form     encap.Form
	ready    forward.Readier // nil if src never waits
	held     *held           // taken from src by Ready, not yet returned
	spare    held            // memory for held
	filtered atomic.Uint64
}

// held is what Next would have returned.
type held struct {
	frame forward.Frame
	err   error
}

// linkTyper is a Source that knows beforehand what link types will come.
type linkTyper interface {
	LinkTypes() []forward.LinkType
}

// Source returns those frames of src that the expression matches. It is
// compiled at once for the link types that src knows (it has a method LinkTypes
// for that), so that a wrong one fails here; for others, when the first such
// frame is met. Where the expression can match nothing on one of several link
// types, its frames are filtered out; where that is so on all, it is an error.
// Link types for which tcpdump has no filters are matched by their Ethernet form
// (see [encap.LinkForm]); a frame that has none is filtered out.
// Closing the Filter closes src; a failing Source leaves src open.
func Source(ctx context.Context, src forward.Source, expr string) (*Filter, error) {
	f := &Filter{src: src, programs: make(map[forward.LinkType]*Program)}
	f.ready, _ = src.(forward.Readier)
	f.compile = func(lt forward.LinkType) (*Program, error) { return Compile(ctx, expr, compiledAs(lt), 0) }
	known, ok := src.(linkTyper)
	if !ok {
		return f, nil
	}
	if err := f.prepare(known.LinkTypes()); err != nil {
		return nil, err
	}
	return f, nil
}

// prepare compiles for all link types in links.
func (f *Filter) prepare(links []forward.LinkType) error {
	var nothing error // the last link type on which nothing can match
	matchable := len(links) == 0
	for _, lt := range links {
		p, err := f.compile(lt)
		if cannotMatch(err) {
			nothing, err = err, nil
		}
		if err != nil {
			return err
		}
		f.programs[lt] = p
		matchable = matchable || p != nil
	}
	if !matchable {
		return nothing
	}
	return nil
}

func cannotMatch(err error) bool {
	var refused *Error
	return errors.As(err, &refused) && refused.RejectsAll()
}

// Next fills frame with the next matching frame.
func (f *Filter) Next(frame *forward.Frame) error {
	if h := f.held; h != nil {
		f.held = nil
		*frame = h.frame
		return h.err
	}
	for {
		done, err := f.step(frame)
		if done || err != nil {
			return err
		}
	}
}

// step takes one frame from the source; done says that it matches.
func (f *Filter) step(frame *forward.Frame) (done bool, err error) {
	if err := f.src.Next(frame); err != nil {
		return false, err
	}
	return f.matches(frame)
}

// matches runs the program for the frame's link type, and counts.
func (f *Filter) matches(frame *forward.Frame) (bool, error) {
	if frame.LinkType != f.link || f.program == nil {
		if err := f.turn(frame.LinkType); err != nil {
			return false, err
		}
	}
	if f.program != nil && f.match(frame) {
		return true, nil
	}
	f.filtered.Add(1)
	return false, nil
}

// match runs the program on the frame or on its Ethernet form.
func (f *Filter) match(frame *forward.Frame) bool {
	if !f.ethernet {
		return f.program.Match(frame.Data, frame.Length)
	}
	data, length, ok := f.form.Of(frame)
	return ok && f.program.Match(data, length)
}

// compiledAs is the link type for which the filter of lt is compiled: Ethernet, or lt
// itself where tcpdump can do that, or where it is to say why it cannot.
func compiledAs(lt forward.LinkType) forward.LinkType {
	for _, form := range encap.LinkForms() {
		if form.Link == lt && !form.AsCaptured {
			return forward.LinkEthernet
		}
	}
	return lt
}

// turn takes up the program for lt, compiling it if it is the first of that.
func (f *Filter) turn(lt forward.LinkType) error {
	p, ok := f.programs[lt]
	if !ok {
		var err error
		if p, err = f.compile(lt); err != nil && !cannotMatch(err) {
			return err
		}
		f.programs[lt] = p
	}
	f.link, f.program, f.ethernet = lt, p, compiledAs(lt) != lt
	return nil
}

// Ready reports whether Next would return at once. To know that, it may have to
// take frames from the source, so like Next it makes the last frame invalid.
func (f *Filter) Ready() bool {
	if f.ready == nil || f.held != nil {
		return true
	}
	for f.ready.Ready() {
		done, err := f.step(&f.spare.frame)
		if done || err != nil {
			f.spare.err = err
			f.held = &f.spare
			return true
		}
	}
	return false
}

// Filtered returns how many frames have been left out; from any goroutine.
func (f *Filter) Filtered() uint64 { return f.filtered.Load() }

// Stop stops the source, if it is one that can be stopped.
func (f *Filter) Stop() {
	if s, ok := f.src.(forward.Stopper); ok {
		s.Stop()
	}
}

// Progress is the one of the source.
func (f *Filter) Progress() (done, total int64) {
	if p, ok := f.src.(forward.Progress); ok {
		return p.Progress()
	}
	return 0, 0
}

// LinkTypes are those of the source, nil where it does not know them.
func (f *Filter) LinkTypes() []forward.LinkType {
	if s, ok := f.src.(linkTyper); ok {
		return s.LinkTypes()
	}
	return nil
}

// Close closes the source.
func (f *Filter) Close() error { return f.src.Close() }
