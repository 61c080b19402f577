package boards

import (
	"fmt"
	"strings"
)

// lines selects the lines of a log, by the variables of the dashboard. run is the
// variable that holds the VNI.
func lines(log, run string, filters ...string) string {
	selector := `{service_name="zeek", sensor=~"$sensor"}`
	if log != "" {
		selector = fmt.Sprintf(`{service_name="zeek", sensor=~"$sensor", log=%q}`, log)
	}
	return strings.Join(append([]string{selector + " |= `$search`", fmt.Sprintf(`vni=~"$%s"`, run)}, filters...), " | ")
}

// of selects as Zeek logs does.
func of(log string, filters ...string) string { return lines(log, "run", filters...) }

// extract parses fields out of the lines: label=field. A line that cannot be parsed
// is left out by wellFormed, at the end: with it the whole query would be an error.
func extract(pairs ...string) string {
	var list []string
	for _, pair := range pairs {
		label, field, _ := strings.Cut(pair, "=")
		if strings.Contains(field, ".") {
			field = fmt.Sprintf("[%q]", field)
		}
		list = append(list, fmt.Sprintf("%s=`%s`", label, field))
	}
	return "json " + strings.Join(list, ", ")
}

const wellFormed = `__error__=""`

// or names what a line without the label counts as.
func or(label, none string) string {
	return fmt.Sprintf("label_format %s=`{{ or .%s %q }}`", label, label, none)
}

func has(label string) string { return label + `!=""` }

// with appends stages.
func with(query string, stages ...string) string {
	return strings.Join(append([]string{query}, stages...), " | ")
}

// count is how many lines there are in the time range, 0 where there are none.
func count(query string) string {
	return fmt.Sprintf("sum(count_over_time(%s [$__range])) or vector(0)", query)
}

// total is the sum of a field of the lines.
func total(query, field string) string {
	return fmt.Sprintf("sum(sum_over_time(%s [$__range])) or vector(0)", with(query, extract("n="+field), "unwrap n", wellFormed))
}

// bothWays are the stages that add up both directions of a connection.
func bothWays(pairs ...string) []string {
	return []string{extract(append(pairs, "sent=orig_ip_bytes", "received=resp_ip_bytes")...),
		"label_format n=`{{ add .sent .received }}`", "unwrap n", wellFormed}
}

// countBy counts lines by labels.
func countBy(query, labels string) string {
	return fmt.Sprintf("sum by (%s) (count_over_time(%s [$__range]))", labels, query)
}

// sumBy sums the unwrapped label.
func sumBy(query, labels string) string {
	return fmt.Sprintf("sum by (%s) (sum_over_time(%s [$__range]))", labels, query)
}

// top keeps the largest. How many there are before that, Loki limits
// (max_query_series).
func top(n int, query string) string { return fmt.Sprintf("topk(%d, %s)", n, query) }

// instant is a query with one answer for the time range: Grafana makes a table of it,
// with the labels and "Value #REFID" as columns.
func instant(refID, expr string) object {
	return object{"refId": refID, "datasource": loki(), "expr": expr, "queryType": "instant"}
}

// panel is what all kinds have. none is what it says when there is nothing.
func panel(kind, title, description, unit, none string) object {
	defaults := object{"noValue": none}
	if unit != "" {
		defaults["unit"] = unit
	}
	return object{"type": kind, "title": title, "description": description, "datasource": loki(),
		"fieldConfig": object{"defaults": defaults, "overrides": []object{}}}
}

func defaults(p object) object { return p["fieldConfig"].(object)["defaults"].(object) }

// number shows one number for each expression.
func number(title, description, unit, expr string) object {
	p := panel("stat", title, description, unit, "0")
	p["targets"] = []object{instant("A", expr)}
	p["options"] = object{"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
		"colorMode": "value", "graphMode": "none", "textMode": "value"}
	return p
}

// bad colours a number that should be 0.
func bad(p object) object {
	defaults(p)["color"] = object{"mode": "thresholds"}
	defaults(p)["thresholds"] = object{"mode": "absolute", "steps": []object{{"color": "green", "value": nil}, {"color": "orange", "value": 1}}}
	return p
}

// rows are the options for a table: each row is a bar or a slice, named by its
// labels.
func rows() object {
	return object{"calcs": []string{"lastNotNull"}, "fields": "", "values": true, "limit": 25}
}

// largestFirst sorts the table of an instant query.
func largestFirst() object {
	return object{"id": "sortBy", "options": object{"fields": object{}, "sort": []object{{"field": "Value #A", "desc": true}}}}
}

// bars shows the largest by label. Where label is one of a line's values, a click
// searches for it.
func bars(title, description, unit, expr, label string) object {
	p := panel("bargauge", title, description, unit, "none")
	defaults(p)["min"], defaults(p)["color"] = 0, object{"mode": "palette-classic"}
	if label != "" {
		defaults(p)["links"] = []object{searchLink("${__data.fields." + label + "}")}
	}
	p["targets"], p["transformations"] = []object{instant("A", expr)}, []object{largestFirst()}
	p["options"] = object{"reduceOptions": rows(), "orientation": "horizontal", "displayMode": "basic",
		"showUnfilled": true, "valueMode": "color", "sizing": "manual", "minVizHeight": 16, "maxVizHeight": 22}
	return p
}

// donut shows the parts of a whole. There are few, or the rest is left out.
func donut(title, description, unit, expr string) object {
	p := panel("piechart", title, description, unit, "none")
	p["targets"], p["transformations"] = []object{instant("A", expr)}, []object{largestFirst()}
	p["options"] = object{"reduceOptions": rows(), "pieType": "donut", "displayLabels": []string{"percent"},
		"legend":  object{"displayMode": "table", "placement": "right", "values": []string{"value", "percent"}, "showLegend": true},
		"tooltip": object{"mode": "single", "sort": "none"}}
	return p
}

// share is a donut of the values that a field of a log has; none is what a line
// without it counts as.
func share(title, description, log, field, none string) object {
	return donut(title, description, "short", top(12, countBy(of(log, extract("value="+field), or("value", none), wellFormed), "value")))
}

// common shows the most frequent values of a field of a log.
func common(title, description, log, field string, filters ...string) object {
	query := with(of(log, filters...), extract("value="+field), has("value"), wellFormed)
	return bars(title, description, "short", top(10, countBy(query, "value")), "value")
}

// course shows how many lines came when, by a field.
func course(title, description, log, field, none string) object {
	query := of(log, extract("value="+field), or("value", none), wellFormed)
	p := panel("timeseries", title, description, "short", "none")
	defaults(p)["min"] = 0
	defaults(p)["custom"] = object{"drawStyle": "bars", "fillOpacity": 80, "lineWidth": 0, "stacking": object{"mode": "normal", "group": "A"}}
	p["targets"] = []object{{"refId": "A", "datasource": loki(), "queryType": "range", "legendFormat": "{{value}}",
		"expr": fmt.Sprintf("topk(12, sum by (value) (count_over_time(%s [$__auto])))", query)}}
	p["options"] = object{"legend": object{"displayMode": "table", "placement": "right", "calcs": []string{"sum"}, "showLegend": true},
		"tooltip": object{"mode": "multi", "sort": "desc"}}
	return p
}

// maxLines is how many lines a table has at most, the latest: its limit at any scale.
const maxLines = 500

// table shows the latest lines of a query, some of their fields.
func table(title, description, query string, fields ...string) object {
	p := panel("table", title, fmt.Sprintf("%s The latest %d at most.", description, maxLines), "", "none")
	defaults(p)["custom"] = object{"filterable": true}
	p["targets"] = []object{{"refId": "A", "datasource": loki(), "queryType": "range", "expr": query, "maxLines": maxLines}}
	p["options"] = object{"cellHeight": "sm", "showHeader": true}
	place, names, overrides := object{"Time": 0}, object{}, []object{}
	for i, field := range fields {
		place[field] = i + 1
		if name := heading(field); name != field {
			names[field] = name
		}
		overrides = append(overrides, presented(field)...)
	}
	p["fieldConfig"].(object)["overrides"] = overrides
	p["transformations"] = []object{
		{"id": "extractFields", "options": object{"source": "Line", "format": "json", "keepTime": true, "replace": true}},
		{"id": "filterFieldsByName", "options": object{"include": object{"names": append([]string{"Time"}, fields...)}}},
		{"id": "organize", "options": object{"indexByName": place, "renameByName": names}},
	}
	return p
}

// sorted sorts a table by one of its fields.
func sorted(p object, field string, desc bool) object {
	p["transformations"] = append(p["transformations"].([]object),
		object{"id": "sortBy", "options": object{"fields": object{}, "sort": []object{{"field": heading(field), "desc": desc}}}})
	return p
}

// heading is what a field of a log is called in a table.
func heading(field string) string {
	switch field {
	case "id.orig_h":
		return "originator"
	case "id.orig_p":
		return "port"
	case "id.resp_h":
		return "responder"
	case "id.resp_p":
		return "port " // columns need different names
	case "conn_state":
		return "state"
	case "orig_pkts":
		return "packets out"
	case "resp_pkts":
		return "packets in"
	case "orig_ip_bytes":
		return "bytes out"
	case "resp_ip_bytes":
		return "bytes in"
	}
	return strings.ReplaceAll(strings.ReplaceAll(field, "_", " "), ".", " ")
}

// presented is how a field is shown: its unit, and where a click leads.
func presented(field string) []object {
	unit, searched := "", false
	switch field {
	case "duration", "rtt":
		unit = "s"
	case "orig_ip_bytes", "resp_ip_bytes", "missed_bytes", "seen_bytes", "total_bytes", "missing_bytes", "response_body_len", "size":
		unit = "decbytes"
	case "uid", "fuid", "id.orig_h", "id.resp_h", "host", "query", "server_name", "client_addr", "assigned_addr", "mac", "md5", "sha1", "sha256", "client", "src", "dst":
		searched = true
	}
	var properties []object
	if unit != "" {
		properties = append(properties, object{"id": "unit", "value": unit})
	}
	if searched {
		properties = append(properties, object{"id": "links", "value": []object{searchLink("${__value.raw}")}})
	}
	if properties == nil {
		return nil
	}
	return []object{{"matcher": object{"id": "byName", "options": heading(field)}, "properties": properties}}
}

// searchLink leads to every line with exactly this value.
func searchLink(value string) object {
	return object{"title": "Every line with this", "url": "/d/zeekdemo-logs?${sensor:queryparam}&${run:queryparam}&var-search=%22" + value + "%22&${__url_time_range}"}
}

// ranking shows the answer of an instant query as a table: labels, then value.
func ranking(title, description, unit, expr, value string, labels ...string) object {
	p := panel("table", title, description, "", "none")
	p["targets"] = []object{instant("A", expr)}
	p["options"] = object{"cellHeight": "sm", "showHeader": true}
	place, overrides := object{}, []object{{"matcher": object{"id": "byName", "options": value}, "properties": []object{{"id": "unit", "value": unit}}}}
	for i, label := range labels {
		place[label] = i
	}
	place["Value #A"] = len(labels)
	p["fieldConfig"].(object)["overrides"] = overrides
	p["transformations"] = []object{
		{"id": "filterFieldsByName", "options": object{"include": object{"names": append(labels, "Value #A")}}},
		{"id": "organize", "options": object{"indexByName": place, "renameByName": object{"Value #A": value}}},
	}
	return p
}
