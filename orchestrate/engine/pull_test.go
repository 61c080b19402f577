package engine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/assets"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

const (
	absent = `{"message":"No such image: example.invalid/zeek:1"}`
	pulled = `{"status":"Pulling from zeek","id":"1"}
{"status":"Pulling fs layer","progressDetail":{},"id":"a1"}
{"status":"Downloading","progressDetail":{"current":5,"total":20},"id":"a1"}
{"status":"Pull complete","progressDetail":{},"id":"a1"}
{"status":"Status: Downloaded newer image for example.invalid/zeek:1"}
`
	refused = `{"status":"Pulling from zeek","id":"1"}
{"errorDetail":{"message":"toomanyrequests: no more today"},"error":"toomanyrequests: no more today"}
`
	image     = "example.invalid/zeek:1"
	lookImage = "GET /images/example.invalid/zeek:1/json"
	pullImage = "POST /images/create"
)

// The answer to a pull begins with status 200; how it ended is said at its end.
func TestAPullFailsByWhatItsStreamSays(t *testing.T) {
	for name, tt := range map[string]struct {
		stream string
		status int
		errs   string
	}{
		"complete":                        {pulled, http.StatusOK, ""},
		"refused at its end":              {refused, http.StatusOK, "toomanyrequests: no more today"},
		"refused, in the words of before": {`{"error":"manifest unknown"}`, http.StatusOK, "manifest unknown"},
		"cut off within a message":        {pulled + `{"status":"Verif`, http.StatusOK, "read the engine's answer: unexpected EOF"},
		"no messages at all":              {"<html>", http.StatusOK, "read the engine's answer: invalid character"},
		"refused at once":                 {`{"message":"pull access denied"}`, http.StatusNotFound, "pull access denied"},
	} {
		t.Run(name, func(t *testing.T) {
			docker, e := newFakeDocker(t)
			docker.json(lookImage, http.StatusNotFound, absent)
			docker.json(pullImage, tt.status, tt.stream)
			var last orchestrate.Event
			err := e.haveImage(t.Context(), image, orchestrate.PullMissing, func(event orchestrate.Event) { last = event }, imageHints{failed: "see the name"})
			want := orchestrate.Event{ID: "Image " + image, Text: "Pulled", State: orchestrate.Done}
			if tt.errs != "" {
				want.Text, want.State = "Failed", orchestrate.Failed
				if err == nil || !strings.HasPrefix(err.Error(), "pull image "+image+": ") || !strings.Contains(err.Error(), tt.errs) || hintOf(err) != "see the name" {
					t.Errorf("error %v, hint %q; want %q", err, hintOf(err), tt.errs)
				}
			} else if err != nil {
				t.Error(err)
			}
			if last != want {
				t.Errorf("the last that was told: %+v, want %+v", last, want)
			}
		})
	}
}

func TestAPullTellsOfItsLayers(t *testing.T) {
	docker, e := newFakeDocker(t)
	docker.json(pullImage, http.StatusOK, pulled)
	var told []orchestrate.Event
	if err := e.pull(t.Context(), image, func(event orchestrate.Event) { told = append(told, event) }); err != nil {
		t.Fatal(err)
	}
	want := []orchestrate.Event{
		{ID: "Image " + image, Text: "Pulling"},
		{ID: "a1", Parent: "Image " + image, Text: "Pulling fs layer"},
		{ID: "a1", Parent: "Image " + image, Text: "Downloading", Current: 5, Total: 20},
		{ID: "a1", Parent: "Image " + image, Text: "Pull complete", State: orchestrate.Done},
		{ID: "Image " + image, Text: "Pulled", State: orchestrate.Done},
	}
	if len(told) != len(want) {
		t.Fatalf("told %+v", told)
	}
	for i := range want {
		if told[i] != want[i] {
			t.Errorf("event %d: %+v, want %+v", i, told[i], want[i])
		}
	}
}

func TestAnInterruptedPullSaysThatItWas(t *testing.T) {
	docker, e := newFakeDocker(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("interrupted")
	docker.HandleFunc(pullImage, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"status":"Downloading","progressDetail":{"current":5},"id":"a1"}`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	err := e.haveImage(ctx, image, orchestrate.PullAlways, func(event orchestrate.Event) {
		if event.ID == "a1" {
			cancel(stop)
		}
	}, imageHints{failed: "see the network"})
	if !errors.Is(err, stop) || hintOf(err) != "" {
		t.Errorf("got %v, hint %q", err, hintOf(err))
	}
}

// The policy says whether an image is looked for, and whether it is pulled.
func TestWhenAnImageIsPulled(t *testing.T) {
	for name, tt := range map[string]struct {
		policy orchestrate.PullPolicy
		here   bool
		pulls  int
		errs   string
	}{
		"missing, here":  {orchestrate.PullMissing, true, 0, ""},
		"missing, away":  {orchestrate.PullMissing, false, 1, ""},
		"always, here":   {orchestrate.PullAlways, true, 1, ""},
		"never, here":    {orchestrate.PullNever, true, 0, ""},
		"never, away":    {orchestrate.PullNever, false, 0, "no image " + image + " is here"},
		"not said, away": {"", false, 0, "no image " + image + " is here"},
	} {
		t.Run(name, func(t *testing.T) {
			docker, e := newFakeDocker(t)
			if tt.here {
				docker.json(lookImage, http.StatusOK, `{"Id":"sha256:1"}`)
			} else {
				docker.json(lookImage, http.StatusNotFound, absent)
			}
			docker.json(pullImage, http.StatusOK, pulled)
			err := e.haveImage(t.Context(), image, tt.policy, nil, imageHints{missing: "pull it"})
			if (err == nil) != (tt.errs == "") || err != nil && (err.Error() != tt.errs || hintOf(err) != "pull it") {
				t.Errorf("got %v, hint %q; want %q", err, hintOf(err), tt.errs)
			}
			if n := docker.times(pullImage); n != tt.pulls {
				t.Errorf("%d pulls, want %d", n, tt.pulls)
			}
		})
	}
}

// Nothing is made of an image whose pull failed.
func TestAFailedPullMakesNoOneShot(t *testing.T) {
	docker, e := newFakeDocker(t)
	docker.json(lookImage, http.StatusNotFound, absent)
	docker.json(pullImage, http.StatusOK, refused)
	project := orchestrate.Project{Name: "x", Compose: assets.Compose(), Env: map[string]string{"ZEEKDEMO_IMAGE_ZEEK": image}, Pull: orchestrate.PullMissing}
	id, err := e.CreateOneShot(t.Context(), project, orchestrate.OneShot{Run: "r", Name: "live", Service: "zeek"})
	if id != "" || err == nil || !strings.Contains(err.Error(), "toomanyrequests") || !strings.Contains(hintOf(err), "--image NAME=REF") {
		t.Errorf("made %q, %v, hint %q", id, err, hintOf(err))
	}
	if n := docker.times("POST /containers/create"); n != 0 {
		t.Errorf("%d containers were made", n)
	}
}
