package boards

import "fmt"

// runs is the dashboard Runs: what was sent and what became of it, and two runs side
// by side.
func runs() *board {
	b := &board{uid: "zeekdemo-runs", title: "Runs",
		description: "Replays, mirrors and verifications: what each sent and what became of it, and what Zeek made of two of them.",
		links:       []object{link("zeekdemo-logs", "Zeek logs"), link("zeekdemo-telemetry", "Zeek telemetry"), link("zeekdemo-path", "Path health")},
		variables: []object{sensors(), vnis("run", "Run (VNI)", "The first of the two runs that are compared."),
			vnis("other", "Compared with", "The second of the two runs that are compared."), search()}}
	b.add(24, 10, marked())
	b.add(24, 7, seen())
	b.heading("Two runs side by side", false)
	compare(b)
	return b
}

// marked lists the runs that the program annotated, with what it said of each
// (cmd/internal/delivery).
func marked() object {
	p := panel("table", "Runs", "What zeekdemo marked in this time range, the latest first, 500 at most; a click leads to what Zeek saw of it.", "", "none")
	grafana := object{"type": "grafana", "uid": "-- Grafana --"}
	p["datasource"] = grafana
	p["targets"] = []object{{"refId": "A", "name": "runs", "datasource": grafana, "queryType": "annotations",
		"target": object{"type": "tags", "tags": []string{"zeekdemo"}, "limit": 500, "matchAny": true}}}
	p["options"] = object{"cellHeight": "sm", "showHeader": true}
	fields := []string{"time", "timeEnd", "kind", "run", "what", "sensor", "way", "packets", "lost", "verdict", "delivery"}
	place := object{}
	for i, field := range fields {
		place[field] = i
	}
	into := []object{{"title": "What Zeek saw of it", "url": "/d/zeekdemo-logs?var-run=${__data.fields.run}&from=${__data.fields.time.numeric}&to=${__data.fields.timeEnd.numeric}"},
		{"title": "Compare it", "url": "/d/zeekdemo-runs?var-run=${__data.fields.run}&${other:queryparam}&${__url_time_range}"},
		{"title": "Its packets' way", "url": "/d/zeekdemo-path?from=${__data.fields.time.numeric}&to=${__data.fields.timeEnd.numeric}"}}
	p["fieldConfig"].(object)["overrides"] = []object{
		override("run", object{"id": "links", "value": into}, object{"id": "unit", "value": "none"}),
		override("packets", object{"id": "unit", "value": "none"}),
		override("lost", object{"id": "unit", "value": "none"}, object{"id": "noValue", "value": "not known"}),
	}
	p["transformations"] = []object{
		{"id": "extractFields", "options": object{"source": "data", "format": "json", "replace": false}},
		{"id": "convertFieldType", "options": object{"fields": object{}, "conversions": []object{
			{"targetField": "time", "destinationType": "time"}, {"targetField": "timeEnd", "destinationType": "time"}}}},
		{"id": "filterFieldsByName", "options": object{"include": object{"names": fields}}},
		{"id": "organize", "options": object{"indexByName": place, "renameByName": object{}}},
	}
	return p
}

func override(field string, properties ...object) object {
	return object{"matcher": object{"id": "byName", "options": field}, "properties": properties}
}

// seen lists the runs that Zeek saw, whoever sent them.
func seen() object {
	p := panel("table", "Runs that Zeek saw", "Every VNI with connections, whoever sent it; a connection counts when its line is written.", "", "none")
	p["datasource"] = prometheus()
	p["targets"] = []object{{"refId": "A", "datasource": prometheus(), "instant": true, "format": "table",
		"expr": `topk(100, sum by (sensor, vni) (max_over_time(zeekdemo_run_connections_total{sensor=~"$sensor"}[$__range])))`}}
	p["options"] = object{"cellHeight": "sm", "showHeader": true}
	p["fieldConfig"].(object)["overrides"] = []object{override("vni", object{"id": "links", "value": []object{
		{"title": "What Zeek saw of it", "url": "/d/zeekdemo-logs?var-run=${__value.raw}&${sensor:queryparam}&${__url_time_range}"},
		{"title": "Compare it", "url": "/d/zeekdemo-runs?var-run=${__value.raw}&${other:queryparam}&${__url_time_range}"}}})}
	p["transformations"] = []object{
		{"id": "filterFieldsByName", "options": object{"include": object{"names": []string{"vni", "sensor", "Value"}}}},
		{"id": "organize", "options": object{"indexByName": object{"vni": 0, "sensor": 1, "Value": 2}, "renameByName": object{"Value": "connections"}}},
	}
	return p
}

// compare shows numbers and parts of both runs, and their difference.
func compare(b *board) {
	for _, c := range []struct {
		title, description, unit string
		query                    func(run string) string
	}{
		{"Connections", "Lines of conn.log.", "short", func(run string) string { return count(lines("conn", run)) }},
		{"Bytes", "IP bytes of all connections, both directions.", "decbytes", func(run string) string {
			return "sum(sum_over_time(" + with(lines("conn", run), bothWays()...) + " [$__range])) or vector(0)"
		}},
		{"Notices", "What Zeek's scripts found worth telling.", "short", func(run string) string { return count(lines("notice", run)) }},
		{"Missed bytes", "Payload in gaps of TCP connections.", "decbytes", func(run string) string { return total(withMissed(run), "missed_bytes") }},
	} {
		b.add(6, 5, both(c.title, c.description+" The run, the one that it is compared with, and the difference.", c.unit, c.query("run"), c.query("other")))
	}
	for _, c := range []struct{ title, description, log, field, none string }{
		{"Services", "Connections by service in both runs.", "conn", "service", "unknown"},
		{"States", "Connections by state in both runs.", "conn", "conn_state", "none"},
		{"Notices by kind", "Notices in both runs.", "notice", "note", "none"},
	} {
		query := func(run string) string {
			return top(50, countBy(lines(c.log, run, extract("value="+c.field), or("value", c.none), wellFormed), "value"))
		}
		b.add(8, 10, differences(c.title, c.description, query("run"), query("other")))
	}
}

// both shows two numbers and their difference.
func both(title, description, unit, run, other string) object {
	p := number(title, description, unit, run)
	p["targets"] = []object{instant("A", run), instant("B", other), instant("C", fmt.Sprintf("(%s) - (%s)", run, other))}
	p["options"].(object)["textMode"] = "value_and_name"
	p["fieldConfig"].(object)["overrides"] = []object{
		override("Value #A", object{"id": "displayName", "value": "run $run"}),
		override("Value #B", object{"id": "displayName", "value": "run $other"}),
		override("Value #C", object{"id": "displayName", "value": "difference"}),
	}
	return p
}

// differences joins two counts by value. What one run lacks counts as 0 in the
// difference.
func differences(title, description, run, other string) object {
	p := panel("table", title, description, "", "none")
	p["targets"] = []object{instant("A", run), instant("B", other)}
	p["options"] = object{"cellHeight": "sm", "showHeader": true}
	p["transformations"] = []object{
		{"id": "joinByField", "options": object{"byField": "value", "mode": "outer"}},
		{"id": "filterFieldsByName", "options": object{"include": object{"names": []string{"value", "Value #A", "Value #B"}}}},
		{"id": "calculateField", "options": object{"mode": "binary", "alias": "difference", "replaceFields": false,
			"binary": object{"left": object{"matcher": object{"id": "byName", "options": "Value #A"}}, "operator": "-", "right": object{"matcher": object{"id": "byName", "options": "Value #B"}}}}},
		{"id": "organize", "options": object{"indexByName": object{}, "renameByName": object{"Value #A": "run $run", "Value #B": "run $other"}}},
	}
	return p
}
