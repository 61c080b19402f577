// Package boards writes those dashboards of stack/grafana/dashboards that show the
// logs: Zeek logs and Runs. They are hundreds of queries of a few kinds, each of
// which is said once here; by hand they are ten times as long, and the kinds drift
// apart. `go generate ./assets` writes the files, a test fails while one is out of
// date, and tests decode them with Grafana's own schema and ask a real Loki all that
// they ask. No program imports this package.
//
// The nouns, from small to large: a query is LogQL; a panel is Grafana's object, made
// by one function for each kind (panels.go); a board lays panels out in rows of 24
// columns, in the order in which they are added.
package boards

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// object is one of Grafana's, as JSON.
type object = map[string]any

// columns is the width of Grafana's grid.
const columns = 24

// Files are the dashboards by the name of their file.
func Files() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, b := range []*board{logs(), runs()} {
		text, err := b.write()
		if err != nil {
			return nil, fmt.Errorf("write dashboard %s: %w", b.uid, err)
		}
		files[b.uid+".json"] = text
	}
	return files, nil
}

type board struct {
	uid, title, description string
	variables               []object
	links                   []object
	panels                  []object // those of a collapsed row are in it
	row                     object   // the collapsed one that takes the panels; nil for the board itself
	id                      int
	x, y, height            int // where the next panel goes; height of the line of panels before it
}

// add places a panel beside the last one, or below where there is no room.
func (b *board) add(width, height int, p object) {
	if b.x+width > columns {
		b.newLine()
	}
	p["gridPos"] = object{"x": b.x, "y": b.y, "w": width, "h": height}
	b.x, b.height = b.x+width, max(b.height, height)
	b.number(p)
	if b.row == nil {
		b.panels = append(b.panels, p)
		return
	}
	b.row["panels"] = append(b.row["panels"].([]object), p)
}

func (b *board) newLine() { b.x, b.y, b.height = 0, b.y+b.height, 0 }

// number gives a panel its id: ids are part of links, so panels go to the end.
func (b *board) number(p object) {
	b.id++
	p["id"] = b.id
}

// heading begins a row. What is in a collapsed one asks nothing until it is opened.
func (b *board) heading(title string, collapsed bool) {
	b.newLine()
	row := object{"type": "row", "title": title, "collapsed": collapsed, "panels": []object{},
		"gridPos": object{"x": 0, "y": b.y, "w": columns, "h": 1}}
	b.number(row)
	b.panels = append(b.panels, row)
	b.y, b.row = b.y+1, nil
	if collapsed {
		b.row = row
	}
}

// write returns the file: a line for each panel, so that a change is seen as one.
func (b *board) write() ([]byte, error) {
	head := object{"uid": b.uid, "title": b.title, "description": b.description, "tags": []string{"zeekdemo"},
		"schemaVersion": 41, "version": 1, "editable": true, "graphTooltip": 1, "timezone": "browser",
		"refresh": "30s", "time": object{"from": "now-1h", "to": "now"},
		"timepicker": object{"refresh_intervals": []string{"5s", "10s", "30s", "1m", "5m"}},
		"links":      b.links, "annotations": object{"list": []object{replays()}}}
	var out bytes.Buffer
	out.WriteString("{\n")
	for _, key := range slices.Sorted(maps.Keys(head)) {
		if err := line(&out, fmt.Sprintf("  %q: ", key), head[key], ",\n"); err != nil {
			return nil, err
		}
	}
	out.WriteString("  \"templating\": {\"list\": [\n")
	if err := list(&out, b.variables); err != nil {
		return nil, err
	}
	out.WriteString("  ]},\n  \"panels\": [\n")
	if err := list(&out, b.panels); err != nil {
		return nil, err
	}
	out.WriteString("  ]\n}\n")
	return out.Bytes(), nil
}

// list writes objects, one a line; a collapsed row's panels have lines of their own.
func list(out *bytes.Buffer, objects []object) error {
	for i, o := range objects {
		end := ",\n"
		if i == len(objects)-1 {
			end = "\n"
		}
		inside, _ := o["panels"].([]object)
		if len(inside) == 0 {
			if err := line(out, "    ", o, end); err != nil {
				return err
			}
			continue
		}
		outside := maps.Clone(o)
		delete(outside, "panels")
		var text bytes.Buffer
		if err := line(&text, "    ", outside, ""); err != nil {
			return err
		}
		out.Write(bytes.TrimSuffix(text.Bytes(), []byte("}")))
		out.WriteString(",\"panels\":[\n")
		if err := list(out, inside); err != nil {
			return err
		}
		out.WriteString("    ]}" + end)
	}
	return nil
}

// line writes one value, as it is: LogQL is full of what JSON may escape for HTML.
func line(out *bytes.Buffer, before string, value any, after string) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	out.WriteString(before)
	out.Write(bytes.TrimSuffix(text.Bytes(), []byte("\n")))
	out.WriteString(after)
	return nil
}

// link leads to another dashboard at the same time, with the variables that both
// have.
func link(uid, title string) object {
	return object{"type": "link", "title": title, "url": "/d/" + uid, "icon": "dashboard", "keepTime": true,
		"includeVars": true, "targetBlank": false, "asDropdown": false, "tags": []string{}, "tooltip": ""}
}

// replays marks the runs in every panel with a time axis.
func replays() object {
	return object{"name": "Runs", "enable": true, "hide": false, "iconColor": "rgba(0, 211, 255, 1)",
		"datasource": object{"type": "grafana", "uid": "-- Grafana --"},
		"target":     object{"type": "tags", "tags": []string{"zeekdemo"}, "limit": 100, "matchAny": true}}
}

// sensors chooses sensors.
func sensors() object {
	return object{"name": "sensor", "label": "Sensor", "type": "query", "datasource": loki(), "definition": "", "regex": "",
		"query":   object{"refId": "sensor", "type": 1, "label": "sensor", "stream": `{service_name="zeek"}`},
		"refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".+", "options": []object{},
		"current": object{"text": []string{"All"}, "value": []string{"$__all"}}}
}

// vnis chooses a run, of those that had connections in the time range. A run's
// number is no label in Loki (it would be a stream for each run), but one of the
// collector's count. The list is read when the dashboard is opened: where it is read
// again, Grafana drops a number that is not in it yet.
func vnis(name, label, description string) object {
	query := "label_values(zeekdemo_run_connections_total, vni)"
	return object{"name": name, "label": label, "description": description, "type": "query", "datasource": prometheus(),
		"query": object{"query": query, "refId": name}, "definition": query, "regex": "",
		"refresh": 1, "sort": 4, "multi": false, "includeAll": true, "allValue": ".*", "allowCustomValue": true, "options": []object{},
		"current": object{"text": "All", "value": "$__all"}}
}

// search is a text that lines must have.
func search() object {
	none := object{"text": "", "value": ""}
	return object{"name": "search", "label": "Containing", "description": "An address, a uid, a name: lines with it, in every panel. In double quotes, whole values only.",
		"type": "textbox", "query": "", "current": none, "options": []object{none}}
}

func loki() object       { return object{"type": "loki", "uid": "zeekdemo-loki"} }
func prometheus() object { return object{"type": "prometheus", "uid": "zeekdemo-prometheus"} }
