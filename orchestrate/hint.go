package orchestrate

import "errors"

// hinted is an error with a line of advice. The advice is not part of the
// message: it is printed once, at the top.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// Hint returns what to do about the error, in one line.
func (h hinted) Hint() string { return h.hint }

// WithHint attaches advice to an error; an error that carries advice already
// keeps its own, for the deeper place knew more.
func WithHint(err error, hint string) error {
	var has interface{ Hint() string }
	if err == nil || errors.As(err, &has) {
		return err
	}
	return hinted{err, hint}
}
