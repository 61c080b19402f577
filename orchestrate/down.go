package orchestrate

import (
	"context"
	"slices"
	"strings"
)

// DownRequest says what Down removes beside the stack's containers and networks.
type DownRequest struct {
	Volumes bool // the collected logs and metrics
	All     bool // what others run beside the stack as well
}

// Remaining is what a person runs beside the stack, which is left alone.
type Remaining struct {
	Client Client
	What   []string // e.g. a verification, a sidecar; in order, each once
}

func (r Remaining) String() string {
	text := strings.Join(r.What, " and ") + " of " + r.Client.Person()
	if r.Client.Life() == Unknown {
		text += ", which cannot be seen from here"
	}
	return text
}

// Down removes what Up made, and what clients left beside it that are gone. What
// living ones run, and those that cannot be judged from here, is left alone and
// returned, unless all is asked for. Twice is fine.
func Down(ctx context.Context, engine Engine, r DownRequest, progress Progress) ([]Remaining, error) {
	if _, err := engine.Info(ctx); err != nil {
		return nil, err
	}
	d := downing{DownRequest: r, progress: progress}
	if companions, ok := engine.(CompanionEngine); ok {
		for _, kind := range []CompanionKind{SidecarKind, HelperKind} {
			if err := d.companions(ctx, companions, kind); err != nil {
				return nil, err
			}
		}
	}
	if err := engine.Down(ctx, ProjectName, r.Volumes, progress); err != nil {
		return nil, err
	}
	if shots, ok := engine.(OneShots); ok {
		if err := d.oneShots(ctx, shots); err != nil {
			return nil, err
		}
	}
	return d.left, nil
}

// downing is one Down under way.
type downing struct {
	DownRequest
	progress Progress
	left     []Remaining
}

// meant reports whether something is to be removed, and keeps in mind whose it is
// if not.
func (d *downing) meant(what string, client Client, forgotten bool) bool {
	if forgotten || d.All {
		return true
	}
	at := slices.IndexFunc(d.left, func(r Remaining) bool { return r.Client == client })
	if at < 0 {
		at, d.left = len(d.left), append(d.left, Remaining{Client: client})
	}
	if !slices.Contains(d.left[at].What, what) {
		d.left[at].What = append(d.left[at].What, what)
	}
	return false
}

func (d *downing) companions(ctx context.Context, engine CompanionEngine, kind CompanionKind) error {
	n, err := RemoveCompanions(ctx, engine, kind, func(c Companion) bool {
		return d.meant("a "+string(kind), c.Client, c.Forgotten())
	})
	d.removed(n, kind.title())
	return err
}

func (d *downing) oneShots(ctx context.Context, engine OneShots) error {
	n, err := engine.RemoveOneShots(ctx, Removal{Gone: func(c Client) bool { return d.meant("a verification", c, c.Gone()) }})
	d.removed(n, "Verifications")
	return err
}

func (d *downing) removed(n int, what string) {
	if n > 0 {
		d.progress.send(Event{ID: what, Text: "Removed", State: Done})
	}
}

func (k CompanionKind) title() string { return strings.ToUpper(string(k[:1])) + string(k[1:]) + "s" }
