package main

// recipe says what an image is made from and how it looks. The paths, users
// and commands are those of the image whose name it takes.
type recipe struct {
	name     string
	tag      string
	standIn  bool
	module   string   // folder of the Go module, from testdata/images
	source   string   // folder of its sources, from testdata/images
	pkg      string   // what is built
	tags     string   // Go build tags
	linkVars []string // NAME=VALUE for the linker's -X
	binary   string   // where the program is in the image
	caps     uint32   // capabilities of the binary's file, permitted and effective
	also     []also   // further programs of the module
	busybox  bool     // with a shell and the usual tools
	entries  []entry
	changes  []string // Dockerfile instructions
}

// also is one more program: what is built, and where it is in the image.
type also struct{ pkg, binary string }

// entry is a folder or file of an image.
type entry struct {
	path    string
	owner   int
	group   int
	mode    int64  // 0: 0755 for a folder, 0644 for a file
	content string // of a file; "" for a folder
	module  string // a file of that Go module instead, at the path in content
}

// recipes lists the images, the quickest to build first.
func recipes() []recipe {
	return []recipe{zeek(), grafana(), exporter(), gateway(), prometheus(), collector(), loki()}
}

func zeek() recipe {
	const path = "/usr/local/zeek/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	return recipe{
		name: "zeek", tag: "zeek/zeek:9.0", standIn: true,
		module: ".", source: "zeek-standin", pkg: "./zeek-standin",
		binary: "/usr/local/zeek/bin/zeek", busybox: true,
		entries: []entry{{path: "/etc/passwd", content: "root:x:0:0:root:/root:/bin/sh\n"}, {path: "/root"},
			{path: "/proc"}, {path: "/sys"}, {path: "/mnt"},
			{path: "/usr/local/zeek/bin/zeek-cluster-layout-generator", mode: 0o755,
				content: "#!/bin/sh\nexec /usr/local/zeek/bin/zeek --standin-cluster-layout \"$@\"\n"}},
		changes: []string{"ENV PATH=" + path, `CMD ["/bin/sh"]`},
	}
}

func grafana() recipe {
	const user = 472
	return recipe{
		name: "grafana", tag: "grafana/grafana:13.2.0", standIn: true,
		module: ".", source: "grafana-standin", pkg: "./grafana-standin",
		binary: "/run.sh", busybox: true,
		entries: []entry{
			{path: "/etc/passwd", content: "grafana:x:472:0:grafana:/usr/share/grafana:/sbin/nologin\n"},
			{path: "/etc/grafana/provisioning/datasources", owner: user}, {path: "/etc/grafana/provisioning/dashboards", owner: user},
			{path: "/usr/share/grafana"}, {path: "/var/lib/grafana", owner: user, mode: 0o777},
		},
		changes: []string{"USER 472", "EXPOSE 3000", "WORKDIR /usr/share/grafana", `ENTRYPOINT ["/run.sh"]`},
	}
}

func prometheus() recipe {
	const nobody = 65534
	return recipe{
		name: "prometheus", tag: "prom/prometheus:v3.14.0",
		module: "prometheus", source: "prometheus", pkg: "github.com/prometheus/prometheus/cmd/prometheus",
		// Of the service discoveries only file, http and dns: the others bring
		// the client libraries of every cloud there is.
		tags:     "remove_all_sd,enable_dns_sd",
		linkVars: []string{"github.com/prometheus/common/version.Version=3.12.0"},
		binary:   "/bin/prometheus", busybox: true,
		also: []also{{"github.com/prometheus/prometheus/cmd/promtool", "/bin/promtool"}}, // the rules' unit tests run in it
		entries: []entry{
			{path: "/etc/passwd", content: "nobody:x:65534:65534:nobody:/home:/bin/false\n"},
			{path: "/etc/prometheus", owner: nobody, group: nobody},
			{path: "/etc/prometheus/prometheus.yml", content: "documentation/examples/prometheus.yml", module: "github.com/prometheus/prometheus"},
			{path: "/prometheus", owner: nobody, group: nobody, mode: 0o775},
		},
		changes: []string{"USER 65534", "EXPOSE 9090", "WORKDIR /prometheus", `VOLUME ["/prometheus"]`, `ENTRYPOINT ["/bin/prometheus"]`,
			`CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]`},
	}
}

func exporter() recipe {
	return recipe{
		name: "exporter", tag: "prom/node-exporter:v1.12.1",
		module: "node-exporter", source: "node-exporter", pkg: "github.com/prometheus/node_exporter",
		linkVars: []string{"github.com/prometheus/common/version.Version=1.12.1"},
		binary:   "/bin/node_exporter", busybox: true,
		entries: []entry{{path: "/etc/passwd", content: "nobody:x:65534:65534:nobody:/home:/bin/false\n"}},
		changes: []string{"USER nobody", "EXPOSE 9100", `ENTRYPOINT ["/bin/node_exporter"]`},
	}
}

// gateway is Caddy. Its image lets it open low ports by a capability of the file,
// so the kernel refuses to start it where a container lacks that one.
func gateway() recipe {
	const netBindService = 1 << 10
	return recipe{
		name: "gateway", tag: "caddy:2.10.2",
		module: "gateway", source: "gateway", pkg: "github.com/caddyserver/caddy/v2/cmd/caddy",
		linkVars: []string{"github.com/caddyserver/caddy/v2.CustomVersion=v2.10.2"},
		binary:   "/usr/bin/caddy", caps: netBindService, busybox: true,
		entries: []entry{
			{path: "/etc/passwd", content: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"},
			{path: "/config/caddy"}, {path: "/data/caddy"}, {path: "/etc/caddy"}, {path: "/srv"},
		},
		changes: []string{"ENV XDG_CONFIG_HOME=/config", "ENV XDG_DATA_HOME=/data", "EXPOSE 80", "WORKDIR /srv",
			`CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]`},
	}
}

func collector() recipe {
	return recipe{
		name: "collector", tag: "otel/opentelemetry-collector-contrib:0.160.0",
		module: "collector", source: "collector", pkg: ".",
		binary:  "/otelcol-contrib",
		entries: []entry{{path: "/etc/otelcol-contrib"}},
		changes: []string{"USER 10001", "EXPOSE 4317", `ENTRYPOINT ["/otelcol-contrib"]`,
			`CMD ["--config", "/etc/otelcol-contrib/config.yaml"]`},
	}
}

func loki() recipe {
	const user = 10001
	return recipe{
		name: "loki", tag: "grafana/loki:3.7.6",
		module: "loki", source: "loki", pkg: "github.com/grafana/loki/v3/cmd/loki",
		linkVars: []string{"github.com/grafana/loki/v3/pkg/util/build.Version=3.7.8"},
		binary:   "/usr/bin/loki",
		entries: []entry{
			{path: "/etc/passwd", content: "loki:x:10001:10001:loki:/home/loki:/bin/false\n"},
			{path: "/etc/loki", owner: user, group: user},
			{path: "/etc/loki/local-config.yaml", owner: user, group: user, content: "cmd/loki/loki-docker-config.yaml", module: "github.com/grafana/loki/v3"},
			{path: "/loki", owner: user, group: user}, {path: "/loki/rules", owner: user, group: user},
			{path: "/loki/rules-temp", owner: user, group: user},
		},
		changes: []string{"USER 10001", "EXPOSE 3100", "WORKDIR /", `ENTRYPOINT ["/usr/bin/loki"]`,
			`CMD ["-config.file=/etc/loki/local-config.yaml"]`},
	}
}
