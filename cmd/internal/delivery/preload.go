package delivery

import (
	"context"
	"fmt"

	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/preload"
)

// Preload reads the captures, which were opened to be played once, decompressed and
// filtered into memory, to be played loops times from there (0: for ever).
func (r *Replay) Preload(ctx context.Context, loops int) error {
	if loops == 0 {
		loops = -1
	}
	s, err := preload.Read(ctx, r.Captures.Source, loops, preload.Room())
	if err != nil {
		return fmt.Errorf("replay %s: %w", r.Captures.Title(), err)
	}
	r.preloaded = s
	if r.Observer != nil {
		r.Observer.Say(fmt.Sprintf("Preloaded %s frames, %s.", units.Count(s.Frames()), units.Bytes(s.Bytes())))
	}
	return nil
}

// source is what is played.
func (r *Replay) source() forward.Source {
	if r.preloaded != nil {
		return r.preloaded
	}
	return r.Captures.Source
}

// filtered is how many frames the filter has left out so far.
func (r *Replay) filtered() uint64 {
	if r.preloaded != nil {
		return r.preloaded.Filtered()
	}
	return r.Captures.filtered()
}
