package engine

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// The image is made where there is none; of a name that is taken it is said who
// has it, and of one that was released meanwhile that nobody is known.
func TestTakeLock(t *testing.T) {
	for name, tt := range map[string]struct {
		create  []int // the engine's answers
		inspect int
		id      string
		imports int
		other   *orchestrate.Holder
		fails   bool
	}{
		"free":                 {create: []int{201}, id: "new"},
		"free, without image":  {create: []int{404, 201}, id: "new", imports: 1},
		"held":                 {create: []int{409}, inspect: 200, other: &orchestrate.Holder{ID: "held", Command: "up", Client: orchestrate.ParseClient("box/7/1/2/b/hans"), Since: time.Unix(1790000000, 0).UTC()}},
		"held, without image":  {create: []int{404, 409}, inspect: 200, imports: 1, other: &orchestrate.Holder{ID: "held", Command: "up", Client: orchestrate.ParseClient("box/7/1/2/b/hans"), Since: time.Unix(1790000000, 0).UTC()}},
		"held, then released":  {create: []int{409}, inspect: 404, other: &orchestrate.Holder{}},
		"an engine in trouble": {create: []int{500}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			docker, e := newFakeDocker(t)
			var asked container.Config
			docker.HandleFunc("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("name") != "l" || json.NewDecoder(r.Body).Decode(&asked) != nil {
					t.Errorf("asked for %s", r.URL)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(tt.create[0])
				tt.create = tt.create[1:]
				_, _ = w.Write([]byte(`{"Id":"new","message":"so it is"}`))
			})
			docker.json("POST /images/create", http.StatusOK, `{"status":"sha256:1"}`)
			docker.json("GET /containers/l/json", tt.inspect, `{"Id":"held","Created":"2026-09-21T14:13:20Z","Config":{"Labels":{"org.zeekdemo.lock":"up","org.zeekdemo.client":"box/7/1/2/b/hans"}}}`)
			id, other, err := e.TakeLock(t.Context(), "l", orchestrate.Holder{Client: orchestrate.ThisClient(), Command: "down"})
			if id != tt.id || (err != nil) != tt.fails || docker.times("POST /images/create") != tt.imports || (other == nil) != (tt.other == nil) || other != nil && *other != *tt.other {
				t.Errorf("got %q, %+v, %v", id, other, err)
			}
			if asked.Labels["org.zeekdemo.lock"] != "down" || clientOf(asked.Labels) != orchestrate.ThisClient() {
				t.Errorf("labels %v", asked.Labels)
			}
		})
	}
}

// Of many that ask a real engine at once one gets it; it is free again afterwards,
// and nothing is left.
func TestALockCanBeHadOnce(t *testing.T) {
	e := liveEngine(t, "zeek/zeek:9.0")
	name := fmt.Sprintf("zeekdemo-test-lock-%d", os.Getpid()) // what else runs on this machine uses the real one
	for range 2 {
		var mu sync.Mutex
		var ids []string
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				id, other, err := e.TakeLock(t.Context(), name, orchestrate.Holder{Client: orchestrate.ThisClient(), Command: "up"})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					t.Error(err)
				case other == nil:
					ids = append(ids, id)
				case other.ID == "": // it is just being made
				case other.Client != orchestrate.ThisClient() || other.Command != "up" || time.Since(other.Since) > time.Hour:
					t.Errorf("it is said to be of %+v", other)
				}
			})
		}
		all.Wait()
		if len(ids) != 1 {
			t.Fatalf("%d got it", len(ids))
		}
		for range 2 { // it may be gone
			if err := e.ReleaseLock(t.Context(), ids[0]); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := e.client.ContainerInspect(t.Context(), name, client.ContainerInspectOptions{}); err == nil {
		t.Error("the lock is left")
	}
}
