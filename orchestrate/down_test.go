package orchestrate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// sharedEngine is one beside whose stack several clients run things; a shot is
// named by its run.
type sharedEngine struct {
	companionEngine
	OneShots
	shots map[string]Client
}

func (e *sharedEngine) RemoveOneShots(_ context.Context, r Removal) (n int, err error) {
	for _, run := range slices.Sorted(func(yield func(string) bool) {
		for run := range e.shots {
			if !yield(run) {
				return
			}
		}
	}) {
		if r.Gone(e.shots[run]) {
			delete(e.shots, run)
			n++
		}
	}
	return n, nil
}

// The stack goes, and what is left of clients that are gone. What living ones run,
// this process's other commands included, and those of other containers, stays and
// is named, unless all is to go.
func TestDownLeavesWhatOthersRun(t *testing.T) {
	foreign := ClientHere(7, 1, 2)
	foreign.host, foreign.user = "box", "hans"
	scene := func() *sharedEngine {
		return &sharedEngine{shots: map[string]Client{"s1": ThisClient(), "s2": foreign, "s3": endedClient(t)}, companionEngine: companionEngine{
			stack: []Container{{ID: "zeek", Service: "zeek"}}, list: []Companion{
				{ID: "ours", Kind: SidecarKind, Client: ThisClient(), Serves: "zeek", State: "running"},
				{ID: "theirs", Kind: SidecarKind, Client: foreign, Serves: "zeek", State: "running"},
				{ID: "starting", Kind: SidecarKind, Client: foreign, Serves: "zeek", State: "created", Created: time.Now()},
				{ID: "dead", Kind: SidecarKind, Client: endedClient(t), Serves: "elsewhere", State: "exited"},
				{ID: "orphan", Kind: HelperKind, Client: endedClient(t), State: "running"},
				{ID: "tuning", Kind: HelperKind, Client: foreign, State: "running"},
			}}}
	}
	for _, tt := range []struct {
		all             bool
		companions      string
		shots, progress int
		left            []string
	}{
		{false, "ours theirs starting tuning", 2, 3, []string{
			"a sidecar and a verification of " + ThisClient().Person(),
			"a sidecar and a helper and a verification of hans on box (process 7), which cannot be seen from here",
		}},
		{true, "", 0, 3, nil},
	} {
		e, events := scene(), 0
		left, err := Down(t.Context(), e, DownRequest{All: tt.all}, func(Event) { events++ })
		if err != nil {
			t.Fatal(err)
		}
		if e.ids() != tt.companions || len(e.shots) != tt.shots || e.downs != 1 || events != tt.progress {
			t.Errorf("all %t: left %s, %v; %d downs, %d events", tt.all, e.ids(), e.shots, e.downs, events)
		}
		var named []string
		for _, r := range left {
			named = append(named, r.String())
		}
		if !slices.Equal(named, tt.left) {
			t.Errorf("all %t: named\n%s\nwant\n%s", tt.all, strings.Join(named, "\n"), strings.Join(tt.left, "\n"))
		}
	}
}

func TestDownSaysWhatFails(t *testing.T) {
	e := &sharedEngine{companionEngine: companionEngine{stuck: "x", list: []Companion{{ID: "x", Kind: SidecarKind, Client: endedClient(t)}}}}
	if _, err := Down(t.Context(), e, DownRequest{}, nil); err == nil || fmt.Sprint(err) != "remove a sidecar: "+errStuck.Error() || e.downs != 0 {
		t.Errorf("got %v after %d downs", err, e.downs)
	}
}
