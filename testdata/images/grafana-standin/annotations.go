package main

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// annotation is a mark on the time axis, as Grafana's API takes and shows it
// (https://grafana.com/docs/grafana/latest/developers/http_api/annotations/).
// Times are milliseconds since the Unix epoch.
type annotation struct {
	ID      int      `json:"id"`
	Time    int64    `json:"time"`
	TimeEnd int64    `json:"timeEnd"` // that of a moment is its time
	Tags    []string `json:"tags"`
	Text    string   `json:"text"`
	Data    any      `json:"data"` // an object, as it was given
	Login   string   `json:"login"`
	Created int64    `json:"created"`
	Updated int64    `json:"updated"`
}

// change is what a request says of an annotation; nil: nothing.
type change struct {
	Time    *int64
	TimeEnd *int64
	Tags    []string
	Text    *string
	Data    map[string]any
}

// defaultLimit is how many annotations one answer has.
const defaultLimit = 100

// apply changes what the request names, and puts the times into order.
func (c change) apply(a *annotation) {
	if c.Time != nil {
		a.Time = *c.Time
	}
	if c.TimeEnd != nil {
		a.TimeEnd = *c.TimeEnd
	}
	if c.Tags != nil {
		a.Tags = c.Tags
	}
	if c.Text != nil {
		a.Text = *c.Text
	}
	if c.Data != nil {
		a.Data = c.Data
	}
	if a.TimeEnd == 0 {
		a.TimeEnd = a.Time
	}
	a.Time, a.TimeEnd = min(a.Time, a.TimeEnd), max(a.Time, a.TimeEnd)
	a.Updated = time.Now().UnixMilli()
}

func readChange(w http.ResponseWriter, r *http.Request) (c change, ok bool) {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&c); err != nil {
		fail(w, http.StatusBadRequest, "bad request data")
		return c, false
	}
	return c, true
}

func (s *server) annotate(w http.ResponseWriter, r *http.Request) {
	c, ok := readChange(w, r)
	if !ok {
		return
	}
	if c.Text == nil || *c.Text == "" {
		fail(w, http.StatusBadRequest, "Failed to save annotation")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UnixMilli()
	a := annotation{ID: len(s.annotations) + 1, Time: now, Tags: []string{}, Data: map[string]any{}, Login: s.user, Created: now}
	c.apply(&a)
	s.annotations = append(s.annotations, a)
	answer(w, http.StatusOK, map[string]any{"id": a.ID, "message": "Annotation added"})
}

func (s *server) patchAnnotation(w http.ResponseWriter, r *http.Request) {
	c, ok := readChange(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.annotations, func(a annotation) bool { return strconv.Itoa(a.ID) == r.PathValue("id") })
	if i < 0 {
		fail(w, http.StatusNotFound, "Could not find annotation to update")
		return
	}
	c.apply(&s.annotations[i])
	answer(w, http.StatusOK, map[string]string{"message": "Annotation patched"})
}

// listAnnotations finds by tags (all of them, or with matchAny any) and by time:
// what lies in part between from and to, which like Grafana it looks at only
// together. The latest come first.
func (s *server) listAnnotations(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	from, to, limit := number(query.Get("from")), number(query.Get("to")), cmp.Or(number(query.Get("limit")), defaultLimit)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []annotation{}
	for _, a := range s.annotations {
		inTime := from <= 0 || to <= 0 || a.Time <= to && a.TimeEnd >= from
		if inTime && tagged(a, query["tags"], query.Get("matchAny") == "true") {
			found = append(found, a)
		}
	}
	slices.SortStableFunc(found, func(a, b annotation) int {
		return cmp.Or(cmp.Compare(b.TimeEnd, a.TimeEnd), cmp.Compare(b.Time, a.Time))
	})
	answer(w, http.StatusOK, found[:min(int64(len(found)), limit)])
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64) // what is no number counts as not given
	return n
}

func tagged(a annotation, tags []string, matchAny bool) bool {
	hits := 0
	for _, tag := range tags {
		if slices.Contains(a.Tags, tag) {
			hits++
		}
	}
	return hits == len(tags) || matchAny && hits > 0
}
