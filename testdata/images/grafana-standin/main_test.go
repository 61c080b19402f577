package main

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// provision writes a provisioning tree with one data source and one dashboard.
func provision(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range map[string]string{
		"datasources/a.yaml":    "datasources: [{uid: u1, name: Loki, type: loki, url: 'http://loki:3100'}]",
		"dashboards/a.yaml":     "providers: [{name: p, options: {path: " + filepath.Join(root, "dashboards") + "}}]",
		"dashboards/board.json": `{"uid":"d1","title":"Board","panels":[]}`,
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestServer(t *testing.T) {
	content, err := readProvisioning(provision(t))
	if err != nil {
		t.Fatal(err)
	}
	handler := (&server{content: content, user: "zeek", password: "pw"}).handler()
	for _, tc := range []struct {
		name, method, target, body, password string
		status                               int
		want                                 string
	}{
		{"health needs no login", "GET", "/api/health", "", "", 200, `"database":"ok"`},
		{"the page says what this is", "GET", "/", "", "", 200, "stand-in"},
		{"login", "POST", "/login", `{"user":"zeek","password":"pw"}`, "", 200, "Logged in"},
		{"wrong login", "POST", "/login", `{"user":"zeek","password":"x"}`, "", 401, "Invalid"},
		{"the API needs a password", "GET", "/api/search", "", "", 401, "Unauthorized"},
		{"the right one", "GET", "/api/search", "", "wrong", 401, "Unauthorized"},
		{"dashboards", "GET", "/api/search", "", "pw", 200, `"uid":"d1"`},
		{"one dashboard, as provisioned", "GET", "/api/dashboards/uid/d1", "", "pw", 200, `"panels":[]`},
		{"no such dashboard", "GET", "/api/dashboards/uid/d2", "", "pw", 404, "not found"},
		{"data sources", "GET", "/api/datasources", "", "pw", 200, `"url":"http://loki:3100"`},
		{"one data source", "GET", "/api/datasources/uid/u1", "", "pw", 200, `"type":"loki"`},
		{"no such data source", "GET", "/api/datasources/uid/u2", "", "pw", 404, "not found"},
		{"an annotation", "POST", "/api/annotations", `{"time":1000,"timeEnd":2000,"tags":["a","b"],"text":"run"}`, "pw", 200, `"id":1`},
		{"an annotation without a text", "POST", "/api/annotations", `{"time":1}`, "pw", 400, "Failed to save annotation"},
		{"no annotation at all", "POST", "/api/annotations", `x`, "pw", 400, "bad request data"},
		{"an annotation without the password", "POST", "/api/annotations", `{"text":"x"}`, "", 401, "Unauthorized"},
		{"found by tags and time", "GET", "/api/annotations?tags=a&tags=b&from=1500&to=3000", "", "pw", 200, `"text":"run"`},
		{"found by one of the tags", "GET", "/api/annotations?tags=a&tags=c&matchAny=true", "", "pw", 200, `"text":"run"`},
		{"not by another tag", "GET", "/api/annotations?tags=a&tags=c", "", "pw", 200, "[]"},
		{"not at another time", "GET", "/api/annotations?from=2500&to=3000", "", "pw", 200, "[]"},
		{"a start alone is no filter", "GET", "/api/annotations?from=2500", "", "pw", 200, `"text":"run"`},
		{"a moment", "POST", "/api/annotations", `{"time":5000,"tags":["m:1"],"text":"now"}`, "pw", 200, `"id":2`},
		{"ends when it begins", "GET", "/api/annotations?tags=m:1", "", "pw", 200, `"time":5000,"timeEnd":5000`},
		{"is patched", "PATCH", "/api/annotations/2", `{"timeEnd":6000,"text":"then"}`, "pw", 200, "Annotation patched"},
		{"and is a region", "GET", "/api/annotations?tags=m:1", "", "pw", 200, `"time":5000,"timeEnd":6000,"tags":["m:1"],"text":"then"`},
		{"what is not named stays", "PATCH", "/api/annotations/2", `{"data":{"packets":5}}`, "pw", 200, "Annotation patched"},
		{"and data is an object", "GET", "/api/annotations?tags=m:1", "", "pw", 200, `"text":"then","data":{"packets":5}`},
		{"or an empty one", "GET", "/api/annotations?tags=a", "", "pw", 200, `"data":{}`},
		{"but no text", "PATCH", "/api/annotations/2", `{"data":"x"}`, "pw", 400, "bad request data"},
		{"no such annotation", "PATCH", "/api/annotations/3", `{"text":"x"}`, "pw", 404, "Could not find"},
		{"the latest first", "GET", "/api/annotations?limit=1", "", "pw", 200, `[{"id":2,`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(tc.method, tc.target, strings.NewReader(tc.body))
			if tc.password != "" {
				r.SetBasicAuth("zeek", tc.password)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.want) {
				t.Errorf("%d %s, want %d with %q", w.Code, w.Body, tc.status, tc.want)
			}
			if strings.HasPrefix(tc.target, "/api") && !json.Valid(w.Body.Bytes()) {
				t.Errorf("no JSON: %s", w.Body)
			}
		})
	}
}

func TestABrokenProvisioningIsAnError(t *testing.T) {
	root := provision(t)
	if err := os.WriteFile(filepath.Join(root, "dashboards", "bad.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readProvisioning(root); err == nil || !strings.Contains(err.Error(), "bad.json") {
		t.Errorf("error %v, want one that names bad.json", err)
	}
}
