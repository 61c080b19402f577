package boards

// logs is the dashboard Zeek logs: an overview that is cheap to open, and a collapsed
// row for each protocol.
func logs() *board {
	b := &board{uid: "zeekdemo-logs", title: "Zeek logs",
		description: "What Zeek saw in the packets, by log. The run is the VNI under which the packets were sent.",
		links:       []object{link("zeekdemo-runs", "Runs"), link("zeekdemo-telemetry", "Zeek telemetry"), link("zeekdemo-path", "Path health")},
		variables: []object{sensors(), vnis("run", "Run (VNI)",
			"The number that a replay printed. One that began a moment ago can be typed in."), search()}}
	overview(b)
	talkers(b)
	connections(b)
	dns(b)
	http(b)
	tls(b)
	files(b)
	logins(b)
	hosts(b)
	notices(b)
	missed(b)
	b.heading("Lines", false) // last, so that only who comes here asks for them
	b.add(24, 14, rawLines())
	return b
}

const missedBytes = "|~ `\"missed_bytes\":[1-9]`"

// withMissed selects the connections with gaps; a filter on the text comes before all
// parsing.
func withMissed(run string) string { return lines("conn", run) + " " + missedBytes }

func overview(b *board) {
	b.add(4, 4, number("Connections", "Lines of conn.log.", "short", count(of("conn"))))
	b.add(4, 4, number("Bytes", "IP bytes of all connections, both directions, as Zeek counted them.", "decbytes",
		"sum(sum_over_time("+with(of("conn"), bothWays()...)+" [$__range])) or vector(0)"))
	b.add(4, 4, bad(number("Connections with missed bytes", "Connections in whose TCP payload Zeek saw gaps: lost on the way, or missing in the capture itself.", "short", count(withMissed("run")))))
	b.add(4, 4, bad(number("Missed bytes", "Payload in those gaps.", "decbytes", total(withMissed("run"), "missed_bytes"))))
	b.add(4, 4, bad(number("Notices", "What Zeek's scripts found worth telling.", "short", count(of("notice")))))
	b.add(4, 4, number("Weird", "Traffic that breaks the rules of its protocol.", "short", count(of("weird"))))
	b.add(16, 9, course("Connections by service", "At the time at which each began. The line is written when a connection ends, minutes later for those without an end.", "conn", "service", "unknown"))
	b.add(8, 9, bars("Lines by log", "With a run chosen, only logs that carry the VNI; others, such as dhcp.log, x509.log and known_hosts.log, show under All.", "short", countBy(of(""), "log"), ""))
}

func talkers(b *board) {
	b.heading("Who, and what", false)
	for _, side := range []struct{ title, field, does string }{
		{"Originators", "id.orig_h", "began"}, {"Responders", "id.resp_h", "were asked for"},
	} {
		b.add(6, 8, bars(side.title+" by connections", "The addresses that "+side.does+" most connections.", "short",
			top(10, countBy(of("conn", extract("host="+side.field), has("host"), wellFormed), "host")), "host"))
		b.add(6, 8, bars(side.title+" by bytes", "The addresses whose connections, of those that they "+side.does+", moved most IP bytes, both directions.", "decbytes",
			top(10, sumBy(with(of("conn"), bothWays("host="+side.field)...), "host")), "host"))
	}
	b.add(6, 8, share("Services", "Protocols that Zeek recognised, by connections.", "conn", "service", "unknown"))
	b.add(6, 8, bars("Ports", "The most frequent ports of responders, with their transport.", "short",
		top(10, countBy(of("conn", extract("number=id.resp_p", "proto=proto"), has("number"), "label_format port=`{{ .number }}/{{ .proto }}`", wellFormed), "port")), ""))
	b.add(6, 8, share("Connection states", "SF: established and ended normally; S0: no answer; REJ: refused; OTH: joined in the middle.", "conn", "conn_state", "none"))
	b.add(6, 8, donut("Transports by bytes", "IP bytes of all connections, both directions.", "decbytes", top(12, sumBy(with(of("conn"), bothWays("value=proto")...), "value"))))
}

func connections(b *board) {
	fields := []string{"uid", "proto", "service", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "conn_state", "history", "duration",
		"orig_pkts", "resp_pkts", "orig_ip_bytes", "resp_ip_bytes", "missed_bytes"}
	b.heading("Connections", true)
	b.add(24, 10, table("Connections", "One line each; a click on a uid or an address leads to all that is known of it.", of("conn"), fields...))
	b.add(24, 9, sorted(table("Long connections", "Those of ten seconds and more, the longest first.",
		of("conn", extract("seconds=duration"), "seconds >= 10", wellFormed), fields[:12]...), "duration", true))
}

func dns(b *board) {
	b.heading("DNS", true)
	b.add(10, 8, course("Queries by type", "When questions came, by what was asked for.", "dns", "qtype_name", "none"))
	b.add(8, 8, common("Names asked for", "The most frequent names in questions.", "dns", "query"))
	b.add(6, 8, share("Answers", "Response codes; a question that nobody answered has none.", "dns", "rcode_name", "no answer"))
	nxdomain := "|= `\"rcode_name\":\"NXDOMAIN\"`"
	b.add(4, 8, number("NXDOMAIN", "Answers that a name does not exist.", "short", count(of("dns")+" "+nxdomain)))
	b.add(10, 8, bars("Names that do not exist", "The most frequent names that were answered with NXDOMAIN.", "short",
		top(10, countBy(of("dns")+" "+nxdomain+" | "+with(extract("value=query"), has("value"), wellFormed), "value")), "value"))
	b.add(10, 8, common("Who asks", "The addresses with the most questions.", "dns", "id.orig_h"))
	b.add(24, 9, table("Queries", "One line for each question and its answer.", of("dns"),
		"uid", "id.orig_h", "id.resp_h", "proto", "query", "qtype_name", "rcode_name", "answers", "rtt"))
}

func http(b *board) {
	b.heading("HTTP", true)
	b.add(10, 8, course("Requests by status", "When requests came, by how they were answered.", "http", "status_code", "no answer"))
	b.add(8, 8, common("Hosts", "The most frequent values of the Host header.", "http", "host"))
	b.add(6, 8, share("Methods", "What was asked of the servers.", "http", "method", "none"))
	b.add(12, 8, common("User agents", "What the clients say that they are.", "http", "user_agent"))
	b.add(12, 8, common("Types of bodies", "What the servers sent, by its content.", "http", "resp_mime_types[0]"))
	b.add(24, 9, table("Requests", "One line each.", of("http"),
		"uid", "id.orig_h", "id.resp_h", "id.resp_p", "method", "host", "uri", "status_code", "response_body_len", "user_agent"))
}

func tls(b *board) {
	b.heading("TLS", true)
	b.add(6, 8, share("TLS versions", "What client and server agreed on.", "ssl", "version", "none agreed"))
	b.add(9, 8, bars("Server names", "What the client asked for (SNI).", "short",
		top(10, countBy(of("ssl", extract("value=server_name"), or("value", "(none sent)"), wellFormed), "value")), "value"))
	b.add(9, 8, common("Validation of certificates", "Whether the chain leads to a root that Zeek knows, at the time of the replay.", "ssl", "validation_status"))
	expiry := extract("subject=certificate.subject", "issuer=certificate.issuer", "until=certificate.not_valid_after")
	b.add(4, 9, bad(number("Expired certificates", "Certificates whose time was over at the end of this time range, as often as they were seen.", "short",
		count(of("x509", expiry, "until < ${__to:date:seconds}", wellFormed)))))
	b.add(20, 9, sorted(ranking("Certificates that expire first", "The twenty with the earliest end.", "dateTimeFromNow",
		"bottomk(20, min by (subject, issuer) (min_over_time("+of("x509", expiry, "unwrap until", wellFormed)+" [$__range]) by (subject, issuer))) * 1000",
		"expires", "subject", "issuer"), "expires", false))
	b.add(24, 8, table("Handshakes", "One line each.", of("ssl"), "uid", "id.orig_h", "id.resp_h", "id.resp_p", "version", "cipher", "server_name", "established", "validation_status"))
}

func files(b *board) {
	b.heading("Files", true)
	b.add(9, 8, common("Types", "What files are, by their content.", "files", "mime_type"))
	b.add(6, 8, share("Carried by", "The protocols that files came in.", "files", "source", "none"))
	b.add(4, 8, bad(number("Incomplete files", "Files of which Zeek missed bytes: their hashes are not logged.", "short", count(of("files")+" |~ `\"missing_bytes\":[1-9]`"))))
	b.add(5, 8, number("Bytes in files", "Content of files that Zeek saw.", "decbytes", total(of("files"), "seen_bytes")))
	b.add(24, 9, table("Files", "One line for each file seen in traffic, with its hashes.", of("files"),
		"fuid", "uid", "source", "mime_type", "seen_bytes", "missing_bytes", "id.orig_h", "id.resp_h", "md5", "sha1", "sha256"))
}

func logins(b *board) {
	b.heading("SSH, SMB, Kerberos", true)
	b.add(6, 8, share("SSH logins", "Whether the client got in, as Zeek infers it from the sizes of packets.", "ssh", "auth_success", "not known"))
	b.add(18, 8, table("SSH", "One line for each connection.", of("ssh"), "uid", "id.orig_h", "id.resp_h", "id.resp_p", "auth_success", "auth_attempts", "direction", "client", "server", "host_key_fingerprint"))
	b.add(6, 8, share("SMB actions", "What was done to files on shares.", "smb_files", "action", "none"))
	b.add(18, 8, table("SMB files", "One line for each action.", of("smb_files"), "uid", "id.orig_h", "id.resp_h", "action", "path", "name", "size"))
	b.add(12, 8, table("SMB shares", "One line for each share that was connected.", of("smb_mapping"), "uid", "id.orig_h", "id.resp_h", "path", "share_type"))
	b.add(12, 8, table("Windows logins", "NTLM: one line for each authentication.", of("ntlm"), "uid", "id.orig_h", "id.resp_h", "username", "hostname", "domainname", "success"))
	b.add(6, 8, share("Kerberos errors", "How requests were answered; none is success.", "kerberos", "error_msg", "none"))
	b.add(18, 8, table("Kerberos", "One line for each request.", of("kerberos"), "uid", "id.orig_h", "id.resp_h", "request_type", "client", "service", "success", "error_msg", "cipher"))
}

func hosts(b *board) {
	b.heading("Hosts: DHCP, software, services", true)
	b.add(12, 8, table("DHCP", "One line for each conversation; it carries no VNI.", of("dhcp"), "client_addr", "mac", "msg_types", "duration"))
	b.add(12, 8, table("Services of hosts", "Ports on which a host answered for the first time in a day.", of("known_services"), "host", "port_num", "port_proto", "service"))
	b.add(8, 8, common("Software", "Programs by the traffic that they make; the log carries no VNI.", "software", "name"))
	b.add(16, 8, table("Software by host", "One line for each program on a host.", of("software"), "host", "software_type", "name", "version.major", "version.minor", "unparsed_version"))
}

func notices(b *board) {
	b.heading("Notices and weird", true)
	b.add(8, 9, common("Notices by kind", "What Zeek's scripts found, by its name.", "notice", "note"))
	b.add(16, 9, table("Notices", "One line each.", of("notice"), "uid", "note", "msg", "sub", "src", "dst"))
	b.add(8, 9, common("Weird by name", "Rules of protocols that were broken, by name.", "weird", "name"))
	b.add(16, 9, table("Weird", "One line each.", of("weird"), "uid", "name", "addl", "id.orig_h", "id.resp_h", "id.resp_p", "source"))
}

func missed(b *board) {
	b.heading("Missed bytes", true)
	b.add(15, 8, table("Connections with missed bytes", "Verify the capture to learn whether the gap is in it, or came on the way.", withMissed("run"),
		"uid", "service", "id.orig_h", "id.resp_h", "id.resp_p", "conn_state", "history", "duration", "resp_ip_bytes", "missed_bytes"))
	p := panel("timeseries", "TCP data acknowledged but never seen", "The log capture_loss: per sensor, over all runs.", "percent", "none")
	defaults(p)["min"] = 0
	p["targets"] = []object{{"refId": "A", "datasource": loki(), "queryType": "range", "legendFormat": "{{sensor}}",
		"expr": "max by (sensor) (max_over_time({service_name=\"zeek\", sensor=~\"$sensor\", log=\"capture_loss\"} | json lost=`percent_lost` | unwrap lost | __error__=\"\" [$__auto]))"}}
	p["options"] = object{"legend": object{"displayMode": "list", "placement": "bottom", "calcs": []string{}, "showLegend": true}, "tooltip": object{"mode": "multi", "sort": "desc"}}
	b.add(9, 8, p)
}

func rawLines() object {
	p := panel("logs", "Lines as Zeek wrote them", "All of a connection's lines: click a uid above, or put one into the field on top. The latest 500 at most.", "", "none")
	p["targets"] = []object{{"refId": "A", "datasource": loki(), "queryType": "range", "expr": of(""), "maxLines": maxLines}}
	p["options"] = object{"showTime": true, "showLabels": false, "showCommonLabels": false, "wrapLogMessage": true, "prettifyLogMessage": false,
		"enableLogDetails": true, "dedupStrategy": "none", "sortOrder": "Descending"}
	return p
}
