package orchestrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// CompanionEngine is what companions need of a container engine.
//
// A companion is a container that lives beside another one or beside the engine
// itself: a sidecar or a helper, see [SidecarSpec] and [HelperSpec]. Its client
// speaks to it over its standard streams; it ends with its standard input, and
// the engine removes it then. It is no part of the Compose project, so `up`
// leaves it alone.
type CompanionEngine interface {
	// CreateCompanion makes the container, copies the program into it where there
	// is one, and labels it; it does not start it. What was made is removed where
	// it fails.
	CreateCompanion(ctx context.Context, spec CompanionSpec) (id string, err error)
	// StartCompanion connects to the container's standard streams, then starts
	// it. The engine removes it when its program ends.
	StartCompanion(ctx context.Context, id string) (SidecarStreams, error)
	// Companions lists those of a kind that are there, of every stack, in any
	// state.
	Companions(ctx context.Context, kind CompanionKind) ([]Companion, error)
	// RemoveCompanion kills it and removes it with its volume. It is no error if
	// it is gone.
	RemoveCompanion(ctx context.Context, id string) error
}

// CompanionKind says what a companion is for.
type CompanionKind string

// The kinds of companions.
const (
	SidecarKind CompanionKind = "sidecar" // sends to a sensor from beside it
	HelperKind  CompanionKind = "helper"  // reaches the engine's machine
)

// ClientLabel is on everything that is made beside the stack: the process it was
// made for, a [Client].
const ClientLabel = "org.zeekdemo.client"

// Label marks every companion of the kind; its value is whom it serves.
func (k CompanionKind) Label() string { return "org.zeekdemo." + string(k) }

// CompanionSpec says what a companion is made of: it is a [SidecarSpec] or a
// [HelperSpec].
type CompanionSpec interface {
	Kind() CompanionKind
	// Serves is the value of the kind's label: of a sidecar the container of its
	// sensor, of a helper its [Client].
	Serves() string
}

// Companion is one that exists.
type Companion struct {
	ID      string
	Kind    CompanionKind
	Serves  string // see [CompanionSpec]
	Client  Client // whose it is
	State   string // created, running, exited, ...
	Created time.Time
}

// forgottenAfter is how old a companion that does not run must be to count as
// forgotten where nothing is known of its client: that may still be copying the
// program over a slow line, and the engine's clock may differ from this one's. One
// that runs needs no such bound: it ends with its client's connection.
const forgottenAfter = 10 * time.Minute

// Forgotten reports whether nobody needs it any more: its client is gone, or it
// has not been started for a while, and nothing is known of its client.
func (c Companion) Forgotten() bool {
	switch c.Client.Life() {
	case Gone:
		return true
	case Alive:
		return false
	}
	return c.State != "running" && time.Since(c.Created) > forgottenAfter
}

// SidecarStreams are a running companion's standard streams.
type SidecarStreams struct {
	ID     string         // the container's
	Stdin  io.WriteCloser // closing it closes the program's standard input
	Stdout io.Reader
	Stderr io.Reader // both end with the program; each needs a reader of its own
	// Wait returns the program's exit code once it has ended and the engine has
	// removed the container.
	Wait func(ctx context.Context) (code int, err error)
	// Close drops the connection, which ends the program's standard input too.
	Close func() error
}

// createCompanion makes one. Forgotten ones of its kind are removed first.
func createCompanion(ctx context.Context, engine CompanionEngine, spec CompanionSpec) (id string, err error) {
	if _, err := RemoveCompanions(ctx, engine, spec.Kind(), Companion.Forgotten); err != nil {
		return "", err
	}
	return engine.CreateCompanion(ctx, spec)
}

// startOrRemove starts a companion. Where that fails it is removed.
func startOrRemove(ctx context.Context, engine CompanionEngine, id string) (SidecarStreams, error) {
	streams, err := engine.StartCompanion(ctx, id)
	if err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return SidecarStreams{}, errors.Join(err, engine.RemoveCompanion(clean, id))
	}
	return streams, nil
}

// RemoveCompanions removes those of a kind that which picks, and returns how
// many.
func RemoveCompanions(ctx context.Context, engine CompanionEngine, kind CompanionKind, which func(Companion) bool) (int, error) {
	list, err := engine.Companions(ctx, kind)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, c := range list {
		if !which(c) {
			continue
		}
		if err := engine.RemoveCompanion(ctx, c.ID); err != nil {
			return n, fmt.Errorf("remove a %s: %w", kind, err)
		}
		n++
	}
	return n, nil
}
