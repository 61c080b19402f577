package orchestrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Grafana is the stack's, as this machine reaches it.
type Grafana struct {
	URL            string // base URL; empty where there is none
	User, Password string // of its administrator, as the container was made with
	// Away is true where the URL is the engine's machine's own loopback, and that
	// machine is another one: what answers here, if anything, is not it.
	Away bool
}

// FindGrafana looks for the stack's Grafana. Without one its URL is empty.
func FindGrafana(ctx context.Context, engine Engine) Grafana {
	service, err := ServiceByName("grafana")
	if err != nil {
		return Grafana{}
	}
	info, err := engine.Info(ctx)
	if err != nil {
		return Grafana{}
	}
	containers, err := byService(ctx, engine)
	if err != nil {
		return Grafana{}
	}
	c := containers[service.Name]
	at, _ := service.published(containers)
	return Grafana{URL: service.URL(containers), Away: info.Remote && at.Addr().IsLoopback(),
		User: variable(c.Env, "GF_SECURITY_ADMIN_USER", "admin"), Password: variable(c.Env, "GF_SECURITY_ADMIN_PASSWORD", "admin")}
}

// variable finds a variable in an environment; "admin", which is Grafana's
// default for both, where it is not set.
func variable(env []string, name, otherwise string) string {
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return otherwise
}

// Annotation is a mark on the time axis of all dashboards that ask for one of
// its tags.
type Annotation struct {
	Start time.Time
	End   time.Time // zero for a moment
	Tags  []string  // a tag may be NAME:VALUE
	Text  string    // with HTML, which Grafana sanitises
	Data  any       // a JSON object that tables can show; nil for none
}

// Annotate makes an annotation and returns its number
// (https://grafana.com/docs/grafana/latest/developers/http_api/annotations/).
func (g Grafana) Annotate(ctx context.Context, a Annotation) (id int64, err error) {
	var answer struct{ ID int64 }
	if err := g.send(ctx, http.MethodPost, "/api/annotations", a, &answer); err != nil {
		return 0, err
	}
	if answer.ID == 0 {
		return 0, errors.New("annotate in Grafana: the answer has no id")
	}
	return answer.ID, nil
}

// Amend replaces what an annotation says.
func (g Grafana) Amend(ctx context.Context, id int64, a Annotation) error {
	var answer struct{}
	return g.send(ctx, http.MethodPatch, fmt.Sprintf("/api/annotations/%d", id), a, &answer)
}

// send makes one request. Times are milliseconds since 1970.
func (g Grafana) send(ctx context.Context, method, path string, a Annotation, answer any) error {
	document := map[string]any{"time": a.Start.UnixMilli(), "tags": a.Tags, "text": a.Text}
	if !a.End.IsZero() {
		document["timeEnd"] = a.End.UnixMilli()
	}
	if a.Data != nil {
		document["data"] = a.Data
	}
	body, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("annotate in Grafana: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, g.URL+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("annotate in Grafana: %w", err)
	}
	status, content, err := g.ask(req)
	if err != nil {
		return fmt.Errorf("annotate in Grafana: %w", err)
	}
	return understand(status, content, answer)
}

// ask sends a request as the administrator and reads the answer.
func (g Grafana) ask(req *http.Request) (status int, content []byte, err error) {
	req.SetBasicAuth(g.User, g.Password)
	req.Header.Set("Content-Type", "application/json")
	// No proxy: the address is this machine's own. No redirection: the password
	// is for Grafana alone.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, unwrapURL(err)
	}
	defer resp.Body.Close()
	content, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, content, err
}

// understand reads Grafana's answer: its document, or its message.
func understand(status int, content []byte, answer any) error {
	if status == http.StatusOK {
		if err := json.Unmarshal(content, answer); err != nil {
			return fmt.Errorf("annotate in Grafana: its answer: %w", err)
		}
		return nil
	}
	var refusal struct{ Message string }
	_ = json.Unmarshal(content, &refusal) // a proxy may answer in its own words
	return fmt.Errorf("annotate in Grafana: answers %d %s", status, refusal.Message)
}
