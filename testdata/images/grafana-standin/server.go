package main

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
)

// server answers the part of Grafana's HTTP API that the stack uses.
type server struct {
	content        provisioned
	user, password string

	mu          sync.Mutex
	annotations []annotation
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/health", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"database": "ok", "version": "stand-in"})
	})
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("GET /{$}", s.page)
	for pattern, handle := range map[string]http.HandlerFunc{
		"GET /api/datasources":           s.listSources,
		"GET /api/datasources/uid/{uid}": s.source,
		"GET /api/search":                s.search,
		"GET /api/dashboards/uid/{uid}":  s.dashboard,
		"GET /api/annotations":           s.listAnnotations,
		"POST /api/annotations":          s.annotate,
		"PATCH /api/annotations/{id}":    s.patchAnnotation,
	} {
		mux.HandleFunc(pattern, s.authorised(handle))
	}
	return mux
}

func answer(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(document) // the client may be gone
}

func fail(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"message": message})
}

func (s *server) knows(user, password string) bool {
	return subtle.ConstantTimeCompare([]byte(user), []byte(s.user))&
		subtle.ConstantTimeCompare([]byte(password), []byte(s.password)) == 1
}

// authorised lets only requests with the right basic authentication pass.
func (s *server) authorised(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if !s.knows(user, password) {
			fail(w, http.StatusUnauthorized, "Unauthorized")
			return
		}
		next(w, r)
	}
}

func (s *server) login(w http.ResponseWriter, r *http.Request) {
	var form struct{ User, Password string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&form); err != nil {
		fail(w, http.StatusBadRequest, "bad login data")
		return
	}
	if !s.knows(form.User, form.Password) {
		fail(w, http.StatusUnauthorized, "Invalid username or password")
		return
	}
	answer(w, http.StatusOK, map[string]string{"message": "Logged in"})
}

func (s *server) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte("<!doctype html><title>grafana-standin</title><p>This is a stand-in for tests, not Grafana. It draws nothing.\n"))
}

func (s *server) listSources(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.content.sources)
}

func (s *server) source(w http.ResponseWriter, r *http.Request) {
	i := slices.IndexFunc(s.content.sources, func(d dataSource) bool { return d.UID == r.PathValue("uid") })
	if i < 0 {
		fail(w, http.StatusNotFound, "Data source not found")
		return
	}
	answer(w, http.StatusOK, s.content.sources[i])
}

func (s *server) search(w http.ResponseWriter, _ *http.Request) {
	hits := []map[string]string{}
	for _, d := range s.content.dashboards {
		hits = append(hits, map[string]string{"uid": d.uid, "title": d.title, "type": "dash-db", "url": "/d/" + d.uid})
	}
	answer(w, http.StatusOK, hits)
}

func (s *server) dashboard(w http.ResponseWriter, r *http.Request) {
	i := slices.IndexFunc(s.content.dashboards, func(d dashboard) bool { return d.uid == r.PathValue("uid") })
	if i < 0 {
		fail(w, http.StatusNotFound, "Dashboard not found")
		return
	}
	answer(w, http.StatusOK, map[string]any{"dashboard": s.content.dashboards[i].model, "meta": map[string]any{"provisioned": true}})
}
