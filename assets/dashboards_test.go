package assets_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// The parts of Grafana's dashboard model that the tests look at.
type (
	dashboard struct {
		UID, Title    string
		Refresh       string
		SchemaVersion int
		Links         []struct {
			URL                   string
			KeepTime, IncludeVars bool
		}
		Annotations struct{ List []mark }
		Templating  struct{ List []variable }
		Panels      []panel
	}
	mark struct { // an annotation query
		Name, Expr string
		Datasource source
		Target     struct {
			Type string
			Tags []string
		}
	}
	variable struct {
		Name, Type, AllValue string
		Datasource           source
		Query                json.RawMessage
		Current              struct{ Value any }
	}
	panel struct {
		ID                       int
		Type, Title, Description string
		Datasource               source
		GridPos                  struct{ X, Y, W, H int }
		Collapsed                bool
		Panels                   []panel // of a collapsed row
		Targets                  []target
		FieldConfig              struct {
			Defaults struct{ Unit, NoValue string }
		}
		Options struct {
			ReduceOptions struct{ Values bool }
			PieType       string
			DisplayLabels []string
		}
		Transformations []struct {
			ID      string
			Options json.RawMessage
		}
	}
	target struct {
		RefID           string
		Datasource      source
		Expr, QueryType string
		Instant         bool
	}
	source struct{ Type, UID string }
)

var dashboardFiles = []string{"zeekdemo-logs", "zeekdemo-runs", "zeekdemo-telemetry", "zeekdemo-path"}

// all returns the panels, those in collapsed rows after their row.
func (d *dashboard) all() (panels []panel) {
	for _, p := range d.Panels {
		panels = append(append(panels, p), p.Panels...)
	}
	return panels
}

// dashboardJSON is a dashboard as Compose delivers it.
func dashboardJSON(tb testing.TB, uid string) string {
	tb.Helper()
	return loadStack(tb, nil).Configs["dashboard-"+strings.TrimPrefix(uid, "zeekdemo-")].Content
}

// loadDashboard parses a dashboard as Compose delivers it.
func loadDashboard(tb testing.TB, uid string) dashboard {
	tb.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(dashboardJSON(tb, uid)), &d); err != nil {
		tb.Fatalf("parse dashboard %s: %v", uid, err)
	}
	return d
}

// columns returns the log fields that a table panel shows.
func (p *panel) columns(tb testing.TB) []string {
	tb.Helper()
	for _, t := range p.Transformations {
		if t.ID != "filterFieldsByName" {
			continue
		}
		var options struct{ Include struct{ Names []string } }
		if err := json.Unmarshal(t.Options, &options); err != nil {
			tb.Fatal(err)
		}
		return slices.DeleteFunc(options.Include.Names, func(name string) bool { return name == "Time" })
	}
	return nil
}

// substitute replaces variables as Grafana would.
func substitute(expr string, values map[string]string) string {
	var pairs []string
	for name, value := range values {
		pairs = append(pairs, "$"+name, value)
	}
	return strings.NewReplacer(pairs...).Replace(expr)
}

func TestDashboards(t *testing.T) {
	sources := provisionedSources(t)
	for _, uid := range dashboardFiles {
		t.Run(uid, func(t *testing.T) {
			d := loadDashboard(t, uid)
			if d.UID != uid || d.Title == "" || d.SchemaVersion < 39 {
				t.Errorf("uid %q, title %q, schema version %d", d.UID, d.Title, d.SchemaVersion)
			}
			seen := map[int]bool{}
			all := d.all()
			for i, p := range all {
				if p.Title == "" || p.ID == 0 || seen[p.ID] {
					t.Errorf("panel %d: id %d, title %q: both are needed, the id once", i, p.ID, p.Title)
				}
				seen[p.ID] = true
				checkPlace(t, all[:i], p)
				checkTargets(t, sources, p)
			}
			checkLinksAndMarks(t, sources, d)
			for _, v := range d.Templating.List {
				if v.Type == "query" && sources[v.Datasource.UID] != v.Datasource.Type {
					t.Errorf("variable %s asks unknown data source %+v", v.Name, v.Datasource)
				}
			}
		})
	}
}

// checkLinksAndMarks wants every dashboard to lead to all others and to show the
// runs, which `replay` tags.
func checkLinksAndMarks(t *testing.T, sources map[string]string, d dashboard) {
	t.Helper()
	linked := []string{d.UID}
	for _, l := range d.Links {
		linked = append(linked, strings.TrimPrefix(l.URL, "/d/"))
	}
	slices.Sort(linked)
	if want := slices.Sorted(slices.Values(dashboardFiles)); !slices.Equal(linked, want) {
		t.Errorf("with its links that is %q, want %q", linked, want)
	}
	runs := false
	for _, m := range d.Annotations.List {
		runs = runs || m.Datasource.Type == "grafana" && slices.Equal(m.Target.Tags, []string{"zeekdemo"})
		if m.Expr != "" && sources[m.Datasource.UID] != m.Datasource.Type {
			t.Errorf("annotations %s ask unknown data source %+v", m.Name, m.Datasource)
		}
	}
	if !runs {
		t.Error("the runs of replay are not marked")
	}
}

// provisionedSources returns the types of the data sources by uid.
func provisionedSources(tb testing.TB) map[string]string {
	tb.Helper()
	var file struct{ Datasources []source }
	if err := yaml.Unmarshal([]byte(loadStack(tb, nil).Configs["grafana-datasources"].Content), &file); err != nil {
		tb.Fatal(err)
	}
	types := map[string]string{}
	for _, s := range file.Datasources {
		types[s.UID] = s.Type
	}
	if types["zeekdemo-prometheus"] != "prometheus" || types["zeekdemo-loki"] != "loki" {
		tb.Fatalf("data sources %v: links rely on zeekdemo-prometheus and zeekdemo-loki", types)
	}
	return types
}

// A link out of a log line reaches Grafana with a double dollar: with a single one it
// would be a variable of Grafana's environment, and empty.
func TestLinksOutOfLines(t *testing.T) {
	var file struct {
		Datasources []struct {
			UID      string
			JSONData struct {
				DerivedFields []struct {
					Name, URL string
					Matcher   string `yaml:"matcherRegex"`
				} `yaml:"derivedFields"`
			} `yaml:"jsonData"`
		}
	}
	if err := yaml.Unmarshal([]byte(loadStack(t, nil).Configs["grafana-datasources"].Content), &file); err != nil {
		t.Fatal(err)
	}
	const line = `{"ts":1.5,"fuid":"FROHGj2yQAQ7ja84Xk","uid":"C4YJHK3jxXIu9bmZ3k"}`
	found := map[string]string{}
	for _, s := range file.Datasources {
		for _, d := range s.JSONData.DerivedFields {
			if !strings.Contains(d.URL, "$${__value.raw}") || strings.Contains(d.URL, "$$$") || s.UID != "zeekdemo-loki" {
				t.Errorf("%s of %s leads to %s", d.Name, s.UID, d.URL)
			}
			for _, m := range regexp.MustCompile(d.Matcher).FindAllStringSubmatch(line, -1) {
				found[d.Name] += m[1]
			}
		}
	}
	if found["uid"] != "C4YJHK3jxXIu9bmZ3k" || found["fuid"] != "FROHGj2yQAQ7ja84Xk" {
		t.Errorf("found %q in %s", found, line)
	}
}

// checkPlace wants a panel inside Grafana's 24 columns and on no other one.
func checkPlace(t *testing.T, others []panel, p panel) {
	t.Helper()
	g := p.GridPos
	if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
		t.Errorf("panel %q at %+v is outside", p.Title, g)
	}
	for _, o := range others {
		h := o.GridPos
		if g.X < h.X+h.W && h.X < g.X+g.W && g.Y < h.Y+h.H && h.Y < g.Y+g.H {
			t.Errorf("panels %q and %q overlap", o.Title, p.Title)
		}
	}
}

func checkTargets(t *testing.T, sources map[string]string, p panel) {
	t.Helper()
	if (p.Type == "row") != (len(p.Targets) == 0) {
		t.Errorf("panel %q of type %s has %d queries", p.Title, p.Type, len(p.Targets))
	}
	for _, target := range p.Targets {
		s := target.Datasource
		if s.Type == "grafana" { // its own annotations
			continue
		}
		if sources[s.UID] != s.Type || s != p.Datasource {
			t.Errorf("panel %q, query %s: data source %+v", p.Title, target.RefID, s)
		}
	}
	if p.Type == "table" && len(p.columns(t)) == 0 {
		t.Errorf("table %q names no columns", p.Title)
	}
}
