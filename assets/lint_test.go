package assets_test

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	model "github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Grafana takes a dashboard with a misspelt option and shows something else. Its
// own schema does not: no field that it has not, none of another type, in panels,
// their options and their queries.
func TestDashboardsDecodeStrictly(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	for _, uid := range dashboardFiles {
		for _, err := range strictErrors([]byte(dashboardJSON(t, uid))) {
			t.Errorf("%s: %v", uid, err)
		}
	}
	for _, wrong := range []string{
		`{"uid":"x","schemaVersion":41,"panels":[{"type":"stat","options":{"colourMode":"value"}}]}`,
		`{"uid":"x","schemaVersion":41,"panels":[{"type":"stat","title":5}]}`,
		`{"uid":"x","schemaVersion":41,"panles":[]}`,
	} {
		if len(strictErrors([]byte(wrong))) == 0 {
			t.Errorf("taken: %s", wrong)
		}
	}
}

// strictErrors are a dashboard's, but for fields that are missing: the schema
// calls what has a default required, and Grafana fills it in.
func strictErrors(raw []byte) []error {
	var d model.Dashboard //nolint:staticcheck // the dashboards are of this schema; version 2 is another one
	err := d.UnmarshalJSONStrict(raw)
	var all cog.BuildErrors
	if !errors.As(err, &all) && err != nil {
		return []error{err}
	}
	var list []error
	for _, e := range all {
		if !strings.HasSuffix(e.Message, "required field is missing from input") {
			list = append(list, e)
		}
	}
	return list
}

// What Grafana's schema does not ask for, and a person does.
func TestDashboardsReadWell(t *testing.T) {
	for _, uid := range dashboardFiles {
		t.Run(uid, func(t *testing.T) {
			d := loadDashboard(t, uid)
			for _, p := range d.all() {
				if p.Type != "row" {
					lintPanel(t, p)
				}
			}
			if asked := openQueries(d); asked > 24 {
				t.Errorf("%d queries of logs when it is opened: put panels into collapsed rows", asked)
			} else if asked > 10 && d.Refresh != "30s" {
				t.Errorf("refresh %q: so many queries of logs cost more than that", d.Refresh)
			}
			for _, l := range d.Links {
				if !l.KeepTime || !l.IncludeVars { // the sensor is one of them
					t.Errorf("the link to %s drops the time or the variables", l.URL)
				}
			}
		})
	}
}

// openQueries counts the queries of logs that opening a dashboard makes.
func openQueries(d dashboard) (n int) {
	for _, p := range d.Panels {
		if p.Datasource.Type == "loki" {
			n += len(p.Targets)
		}
	}
	return n
}

// Panels without an axis or a number.
var unitless = []string{"table", "logs", "state-timeline", "annolist", "text"}

func lintPanel(t *testing.T, p panel) {
	t.Helper()
	if d := p.Description; d == "" || !strings.HasSuffix(d, ".") || d[:1] != strings.ToUpper(d[:1]) && !strings.Contains(d[:strings.IndexByte(d+" ", ' ')], ".") {
		t.Errorf("panel %q: description %q, want a sentence", p.Title, d)
	}
	if p.FieldConfig.Defaults.Unit == "" && !slices.Contains(unitless, p.Type) {
		t.Errorf("panel %q has no unit", p.Title)
	}
	// Grafana makes one table of an instant answer of Loki's: the labels are columns,
	// and only "all values" shows its rows; the calculations see but the last one.
	if (p.Type == "piechart" || p.Type == "bargauge") && p.Datasource.Type == "loki" && !p.Options.ReduceOptions.Values {
		t.Errorf("panel %q shows one value of its table", p.Title)
	}
	if p.Type == "piechart" && (p.Options.PieType != "donut" || !slices.Contains(p.Options.DisplayLabels, "percent")) {
		t.Errorf("panel %q: %s with %q, want a donut with per cent", p.Title, p.Options.PieType, p.Options.DisplayLabels)
	}
	for _, target := range p.Targets {
		lintQuery(t, p, target)
	}
}

var (
	fixedRange = regexp.MustCompile(`\[\d+[smhd]`)
	counter    = regexp.MustCompile(`\brate\(`)
	cut        = regexp.MustCompile(`^(topk|bottomk)\(|by \((log|sensor)\)`) // or labels of which there are few
	parsesJSON = regexp.MustCompile(`\| json\b`)
)

func lintQuery(t *testing.T, p panel, q target) {
	t.Helper()
	metric := !strings.HasPrefix(strings.TrimSpace(q.Expr), "{")
	if fixedRange.MatchString(q.Expr) {
		t.Errorf("panel %q, query %s: a fixed range misses what is between two steps", p.Title, q.RefID)
	}
	if q.Datasource.Type == "prometheus" && counter.MatchString(q.Expr) && !strings.Contains(q.Expr, "[$__rate_interval]") {
		t.Errorf("panel %q, query %s: a rate over something else than $__rate_interval", p.Title, q.RefID)
	}
	if q.Datasource.Type != "loki" {
		return
	}
	// Whoever sends packets chooses names; nobody reads thousands of them.
	if strings.Contains(q.Expr, " by (") && !cut.MatchString(q.Expr) {
		t.Errorf("panel %q, query %s: as many rows as there are values: %s", p.Title, q.RefID, q.Expr)
	}
	// One line that is no JSON would turn the whole answer into an error.
	if n := len(parsesJSON.FindAllString(q.Expr, -1)); metric && strings.Count(q.Expr, `__error__=""`) < n {
		t.Errorf("panel %q, query %s: a malformed line voids it", p.Title, q.RefID)
	}
	if p.Type == "stat" {
		if !strings.HasSuffix(q.Expr, "or vector(0)") && !strings.HasSuffix(q.Expr, "or vector(0))") {
			t.Errorf("panel %q, query %s: no data where the answer is 0", p.Title, q.RefID)
		}
	} else if p.FieldConfig.Defaults.NoValue == "" {
		t.Errorf("panel %q does not say what nothing means", p.Title)
	}
}
