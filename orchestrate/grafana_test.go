package orchestrate

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFindGrafana(t *testing.T) {
	at := serve(t, func(http.ResponseWriter, *http.Request) {})
	list := answering(t, at)
	i := slices.IndexFunc(list, func(c Container) bool { return c.Service == "grafana" })
	list[i].Env = []string{"PATH=/bin", "GF_SECURITY_ADMIN_USER=ann", "GF_SECURITY_ADMIN_PASSWORD=a=b"}
	engine := &fakeEngine{containers: func() []Container { return list }}
	want := Grafana{URL: "http://" + at.String(), User: "ann", Password: "a=b"}
	if got := FindGrafana(t.Context(), engine); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	engine.info.Remote, want.Away = true, true
	if got := FindGrafana(t.Context(), engine); got != want {
		t.Errorf("on another machine: %+v, want %+v", got, want)
	}
	list[i].Env, want.User, want.Password = nil, "admin", "admin"
	if got := FindGrafana(t.Context(), engine); got != want {
		t.Errorf("with Grafana's own login: %+v, want %+v", got, want)
	}
	list = list[:1]
	if got := FindGrafana(t.Context(), engine); got.URL != "" {
		t.Errorf("without Grafana: %+v", got)
	}
}

func TestAnnotate(t *testing.T) {
	start := time.UnixMilli(1_700_000_000_123)
	region := Annotation{Start: start, End: start.Add(time.Second), Tags: []string{"a", "b:1"}, Text: "<b>"}
	moment := region
	moment.End = time.Time{}
	for name, tc := range map[string]struct {
		amend       bool
		annotation  Annotation
		status      int
		answer      string
		want, wrong string // request, and what the error says
	}{
		"a moment":                   {false, moment, 200, `{"id":7,"message":"Annotation added"}`, `POST /api/annotations {"tags":["a","b:1"],"text":"\u003cb\u003e","time":1700000000123}`, ""},
		"a region":                   {false, region, 200, `{"id":7}`, `POST /api/annotations {"tags":["a","b:1"],"text":"\u003cb\u003e","time":1700000000123,"timeEnd":1700000001123}`, ""},
		"with data":                  {false, Annotation{Start: start, Text: "x", Data: map[string]int{"packets": 5}}, 200, `{"id":7}`, `POST /api/annotations {"data":{"packets":5},"tags":null,"text":"x","time":1700000000123}`, ""},
		"an end":                     {true, region, 200, `{"message":"Annotation patched"}`, `PATCH /api/annotations/7 {"tags":["a","b:1"],"text":"\u003cb\u003e","time":1700000000123,"timeEnd":1700000001123}`, ""},
		"the password was changed":   {false, moment, 401, `{"message":"Invalid username or password"}`, "", "answers 401 Invalid username or password"},
		"an answer without a number": {false, moment, 200, `{}`, "", "the answer has no id"},
		"somebody else answers":      {false, moment, 200, `<html>`, "", "its answer: invalid character"},
		"and refuses":                {true, moment, 502, `<html>`, "", "answers 502"},
		"a redirection elsewhere":    {false, moment, 302, ``, "", "answers 302"},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			at := serve(t, func(w http.ResponseWriter, r *http.Request) {
				user, password, _ := r.BasicAuth()
				body, _ := io.ReadAll(r.Body)
				if got = r.Method + " " + r.URL.Path + " " + string(body); user != "zeek" || password != "pw" || !json.Valid(body) {
					t.Errorf("login %s:%s, body %s", user, password, body)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tc.status)
				io.WriteString(w, tc.answer)
			})
			g := Grafana{URL: "http://" + at.String(), User: "zeek", Password: "pw"}
			var id int64 = 7
			var err error
			if tc.amend {
				err = g.Amend(t.Context(), id, tc.annotation)
			} else {
				id, err = g.Annotate(t.Context(), tc.annotation)
			}
			switch {
			case tc.wrong == "" && (err != nil || id != 7 || got != tc.want):
				t.Errorf("id %d, error %v\n got %s\nwant %s", id, err, got, tc.want)
			case tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)):
				t.Errorf("error %v, want %q", err, tc.wrong)
			}
		})
	}
	_, err := Grafana{URL: "http://127.0.0.1:1"}.Annotate(t.Context(), moment)
	if err == nil || !strings.Contains(err.Error(), "annotate in Grafana: dial 127.0.0.1:1: ") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestAlerts(t *testing.T) {
	const answer = `{"status":"success","data":{"alerts":[
		{"labels":{"alertname":"B","severity":"warning"},"annotations":{"summary":"b"},"state":"firing","activeAt":"2026-01-01T00:00:00Z"},
		{"labels":{"alertname":"P","severity":"critical"},"annotations":{},"state":"pending","activeAt":"2026-01-01T00:00:00Z"},
		{"labels":{"alertname":"A","severity":"critical"},"annotations":{"summary":"s","action":"do"},"state":"firing","activeAt":"2026-01-01T00:00:09.5Z","value":"1e+00"}]}}`
	status, body := http.StatusOK, answer
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/alerts" {
			t.Errorf("asked %s", r.URL.Path)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
	list := answering(t, at)
	engine := &fakeEngine{containers: func() []Container { return list }}
	got, err := Alerts(t.Context(), engine)
	first := Alert{"A", "critical", "s", "do", time.Date(2026, 1, 1, 0, 0, 9, 500e6, time.UTC)}
	if err != nil || len(got) != 2 || got[0] != first || got[1].Name != "B" {
		t.Errorf("%+v, %v", got, err)
	}
	for want, answers := range map[string]struct {
		status int
		body   string
	}{"answers 503 starting": {503, "starting\n"}, "invalid character": {200, "<"}} {
		status, body = answers.status, answers.body
		if _, err := Alerts(t.Context(), engine); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", answers, err)
		}
	}
	engine.info.Remote = true
	if got, err := Alerts(t.Context(), engine); got != nil || err != nil {
		t.Errorf("on another machine's loopback: %+v, %v", got, err)
	}
}
