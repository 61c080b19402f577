package engine

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
)

// fakeDocker answers as an engine does, by what a test hooks into it: patterns
// without the version that begins the API's paths.
type fakeDocker struct {
	http.ServeMux
	mu    sync.Mutex
	asked []string // method and path of each request but pings
}

var apiVersion = regexp.MustCompile(`^/v\d+\.\d+/`)

// newFakeDocker serves on a socket of its own and returns an [Engine] that is
// connected to it.
func newFakeDocker(t *testing.T) (*fakeDocker, *Engine) {
	t.Helper()
	folder, err := os.MkdirTemp("", "zd") // short: the name of a socket is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	socket := filepath.Join(folder, "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeDocker{}
	f.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(f.serve)}}
	server.Start()
	t.Cleanup(server.Close)
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	t.Setenv("DOCKER_CONTEXT", "")
	t.Setenv("DOCKER_CONFIG", folder) // no logins
	e, err := Connect(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return f, e
}

func (f *fakeDocker) serve(w http.ResponseWriter, r *http.Request) {
	r.URL.Path = apiVersion.ReplaceAllString(r.URL.Path, "/")
	if r.URL.Path != "/_ping" {
		f.mu.Lock()
		f.asked = append(f.asked, r.Method+" "+r.URL.Path)
		f.mu.Unlock()
	}
	f.ServeHTTP(w, r)
}

// times counts the requests of a method and path.
func (f *fakeDocker) times(request string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, asked := range f.asked {
		if asked == request {
			n++
		}
	}
	return n
}

// json hooks in an answer.
func (f *fakeDocker) json(pattern string, status int, document string) {
	f.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, document)
	})
}
