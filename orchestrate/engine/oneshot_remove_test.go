package engine

import (
	"net/http"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Of one-shots, those that are meant go, with their networks, and no others:
// by container, by run, or by what their client is, as every version wrote it.
func TestRemoveOneShots(t *testing.T) {
	const containers = `[{"Id":"a1","Labels":{"org.zeekdemo.verify":"a","org.zeekdemo.client":"away/1/2/3/boot/hans"}},
		{"Id":"b1","Labels":{"org.zeekdemo.verify":"b","org.zeekdemo.verify.client":"near/1"}}]`
	const networks = `[{"Id":"na","Name":"a","Labels":{"org.zeekdemo.verify":"a","org.zeekdemo.client":"away/1/2/3/boot/hans"}},
		{"Id":"nb","Name":"b","Labels":{"org.zeekdemo.verify":"b","org.zeekdemo.verify.client":"near/1"}}]`
	is := func(text string) func(orchestrate.Client) bool {
		return func(c orchestrate.Client) bool { return c.String() == text }
	}
	for name, tt := range map[string]struct {
		removal orchestrate.Removal
		status  int // of the engine's answer to removing
		want    string
		errs    string
	}{
		"one container":         {orchestrate.Removal{ID: "x"}, 204, "container x", ""},
		"a client's":            {orchestrate.Removal{Gone: is("away/1/2/3/boot/hans")}, 204, "container a1, network na", ""},
		"a client's, of before": {orchestrate.Removal{Gone: is("near/1/0/0//")}, 204, "container b1, network nb", ""},
		"no client's":           {orchestrate.Removal{Gone: is("near/2/0/0//")}, 204, "", ""},
		"not said whose":        {orchestrate.Removal{}, 204, "", ""},
		"gone by themselves":    {orchestrate.Removal{Gone: is("near/1/0/0//")}, 404, "container b1, network nb", ""},
		"one that stays":        {orchestrate.Removal{Gone: is("near/1/0/0//")}, 500, "container b1, network nb", "remove network b"},
	} {
		t.Run(name, func(t *testing.T) {
			docker, e := newFakeDocker(t)
			docker.json("GET /containers/json", http.StatusOK, containers)
			docker.json("GET /networks", http.StatusOK, networks)
			var removed []string
			remove := func(w http.ResponseWriter, r *http.Request) {
				kind, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
				removed = append(removed, strings.TrimSuffix(kind, "s")+" "+id)
				w.WriteHeader(tt.status)
			}
			docker.HandleFunc("DELETE /containers/", remove)
			docker.HandleFunc("DELETE /networks/", remove)
			n, err := e.RemoveOneShots(t.Context(), tt.removal)
			if got := strings.Join(removed, ", "); got != tt.want || n != strings.Count(tt.want, "container") {
				t.Errorf("removed %d: %s; want %s", n, got, tt.want)
			}
			if (err == nil) != (tt.errs == "") || err != nil && !strings.Contains(err.Error(), tt.errs) {
				t.Errorf("got %v, want %q", err, tt.errs)
			}
		})
	}
}

// A run is chosen by the engine: it is asked for the run's label alone.
func TestRemoveARun(t *testing.T) {
	docker, e := newFakeDocker(t)
	for _, pattern := range []string{"GET /containers/json", "GET /networks"} {
		docker.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if filters := r.URL.Query().Get("filters"); !strings.Contains(filters, `"org.zeekdemo.verify=a"`) {
				t.Errorf("%s asked for %s", pattern, filters)
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`[{"Id":"1"}]`))
		})
	}
	docker.json("DELETE /containers/1", http.StatusNoContent, "")
	docker.json("DELETE /networks/1", http.StatusNoContent, "")
	if n, err := e.RemoveOneShots(t.Context(), orchestrate.Removal{Run: "a"}); n != 1 || err != nil || docker.times("DELETE /networks/1") != 1 {
		t.Errorf("removed %d, %v", n, err)
	}
}
