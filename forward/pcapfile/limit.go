package pcapfile

import (
	"io"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Limit returns a Source that yields at most n frames of src and then io.EOF.
// It passes Progress and LinkTypes on where src has them; closing it closes
// src.
func Limit(src forward.Source, n int64) forward.Source { return &limited{src, n} }

type limited struct {
	forward.Source
	left int64
}

// Next returns io.EOF once the frames are used up.
func (l *limited) Next(f *forward.Frame) error {
	if l.left <= 0 {
		return io.EOF
	}
	err := l.Source.Next(f)
	if err == nil {
		l.left--
	}
	return err
}

// Ready is the one of the source.
func (l *limited) Ready() bool {
	s, ok := l.Source.(forward.Readier)
	return !ok || l.left <= 0 || s.Ready()
}

// Progress is the one of the source.
func (l *limited) Progress() (done, total int64) {
	if p, ok := l.Source.(forward.Progress); ok {
		return p.Progress()
	}
	return 0, 0
}

// LinkTypes are those of the source.
func (l *limited) LinkTypes() []forward.LinkType {
	if s, ok := l.Source.(interface{ LinkTypes() []forward.LinkType }); ok {
		return s.LinkTypes()
	}
	return nil
}
