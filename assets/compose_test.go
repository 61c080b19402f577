package assets_test

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/zeekdemo/zeekdemo/assets"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// loadStack loads the embedded Compose file as Compose does, with nothing but
// env to interpolate.
func loadStack(tb testing.TB, env map[string]string) *types.Project {
	tb.Helper()
	project, err := loadWith(tb, env)
	if err != nil {
		tb.Fatalf("load compose.yaml: %v", err)
	}
	return project
}

func loadWith(tb testing.TB, env map[string]string) (*types.Project, error) {
	return loader.LoadWithContext(tb.Context(), types.ConfigDetails{
		WorkingDir:  tb.TempDir(),
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: assets.Compose()}},
		Environment: env,
	})
}

func TestProjectHasItsNames(t *testing.T) {
	p := loadStack(t, nil)
	if p.Name != "zeekdemo" {
		t.Errorf("project %q, want zeekdemo", p.Name)
	}
	for _, tt := range []struct {
		what      string
		got, want []string
	}{
		{"services", p.ServiceNames(), []string{"collector", "exporter-host", "exporter-zeek", "exporter-zeek-geneve", "gateway", "grafana", "janitor", "loki", "prometheus", "zeek", "zeek-geneve"}},
		{"networks", slices.Sorted(maps.Keys(p.Networks)), []string{"front", "monitoring", "scrape", "storage"}},
		{"volumes", p.VolumeNames(), []string{"collector-state", "loki-data", "prometheus-data", "zeek-logs"}},
	} {
		slices.Sort(tt.got)
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s %q, want %q", tt.what, tt.got, tt.want)
		}
	}
}

// What every service keeps to. The exceptions are in the table, not in the loop.
func TestServicesKeepToThePolicy(t *testing.T) {
	wantUser := map[string]string{"collector": "0:0", // writes to a volume that belongs to root
		"janitor": "10001:10001", // writes to Loki's
		"gateway": "65534:65534"} // whose image says root
	wantCap := map[string][]string{"gateway": {"NET_BIND_SERVICE"}} // without which the kernel does not start its program
	wantReadOnly := map[string]bool{                                // the others get inline configs, which exclude it
		"zeek": true, "zeek-geneve": true, "exporter-host": true, "exporter-zeek": true, "exporter-zeek-geneve": true, "janitor": true}
	wantPid := map[string]string{"exporter-host": "host"} // reads the counters of its first process's network
	wantNetwork := map[string]string{"exporter-zeek": "service:zeek", "exporter-zeek-geneve": "service:zeek-geneve", "janitor": "none"}
	for name, s := range loadStack(t, nil).Services {
		t.Run(name, func(t *testing.T) {
			if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.CapAdd, wantCap[name]) || s.Privileged {
				t.Errorf("cap_drop %q, cap_add %q, privileged %v; want ALL dropped, %q added", s.CapDrop, s.CapAdd, s.Privileged, wantCap[name])
			}
			if !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
				t.Errorf("security_opt %q, want no-new-privileges:true", s.SecurityOpt)
			}
			least := types.UnitBytes(256 << 20)
			if strings.HasPrefix(name, "exporter-") {
				least = 64 << 20
			}
			if s.MemLimit < least || s.MemLimit > 2<<30 {
				t.Errorf("mem_limit %d bytes, want %d to 2 GiB", s.MemLimit, least)
			}
			if s.ReadOnly != wantReadOnly[name] {
				t.Errorf("read_only %v, want %v", s.ReadOnly, wantReadOnly[name])
			}
			if s.ReadOnly && len(s.Configs) > 0 {
				t.Error("read-only and inline configs: Compose refuses that")
			}
			if s.User != wantUser[name] {
				t.Errorf("user %q, want %q", s.User, wantUser[name])
			}
			if s.Restart != types.RestartPolicyUnlessStopped {
				t.Errorf("restart %q, want %q", s.Restart, types.RestartPolicyUnlessStopped)
			}
			if s.Logging == nil || s.Logging.Options["max-size"] == "" || s.Logging.Options["max-file"] == "" {
				t.Error("the engine's log of this service has no limit")
			}
			if s.Build != nil || s.Pid != wantPid[name] || s.Ipc != "" || s.NetworkMode != wantNetwork[name] || s.UserNSMode != wantPid[name] || len(s.Devices) > 0 {
				t.Error("the service builds, or shares something of the host")
			}
			for _, v := range s.Volumes {
				if v.Type != types.VolumeTypeVolume {
					t.Errorf("mount %s of type %s: only named volumes reach every engine", v.Target, v.Type)
				}
			}
			if s.HealthCheck == nil {
				t.Error("no health check")
			}
			if h := s.HealthCheck; h != nil && (h.StartInterval != nil || h.Retries == nil) {
				t.Errorf("health check %+v: engines before API 1.44 refuse start_interval; a slow start needs retries", h)
			}
			if s.PidsLimit < 256 || s.PidsLimit > 4096 {
				t.Errorf("pids_limit %d", s.PidsLimit)
			}
		})
	}
}

func TestPublishedPorts(t *testing.T) {
	want := []string{
		"gateway 127.0.0.1:13100->3100/tcp",
		"gateway 127.0.0.1:19090->9090/tcp",
		"grafana 127.0.0.1:13000->3000/tcp",
		"zeek 127.0.0.1:4789->4789/udp",
		"zeek-geneve 127.0.0.1:6081->6081/udp",
	}
	if got := publishedPorts(t, nil); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for bind, address := range map[string]string{"192.0.2.1": "192.0.2.1", "[::1]": "::1"} {
		moved := slices.Clone(want)
		for i := range moved[2:] { // what asks for no password stays
			moved[2+i] = strings.Replace(moved[2+i], "127.0.0.1", address, 1)
		}
		if got := publishedPorts(t, map[string]string{"ZEEKDEMO_BIND": bind, "ZEEKDEMO_GRAFANA_PASSWORD": "p"}); !slices.Equal(got, moved) {
			t.Errorf("ZEEKDEMO_BIND=%s: got %q\nwant %q", bind, got, moved)
		}
		for i := range moved[:2] {
			moved[i] = strings.Replace(moved[i], "127.0.0.1", address, 1)
		}
		if got := publishedPorts(t, map[string]string{"ZEEKDEMO_BIND": bind, "ZEEKDEMO_BIND_UNAUTHENTICATED": bind, "ZEEKDEMO_GRAFANA_PASSWORD": "p"}); !slices.Equal(got, moved) {
			t.Errorf("ZEEKDEMO_BIND_UNAUTHENTICATED=%s: got %q\nwant %q", bind, got, moved)
		}
	}
}

func publishedPorts(tb testing.TB, env map[string]string) []string {
	var ports []string
	for name, s := range loadStack(tb, env).Services {
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprintf("%s %s:%s->%d/%s", name, p.HostIP, p.Published, p.Target, p.Protocol))
		}
	}
	slices.Sort(ports)
	return ports
}

func TestImages(t *testing.T) {
	want := map[string]string{
		"zeek":        "zeek/zeek:9.0",
		"zeek-geneve": "zeek/zeek:9.0",
		"prometheus":  "prom/prometheus:v3.14.0",
		"loki":        "grafana/loki:3.7.6",
		"grafana":     "grafana/grafana:13.2.0",
		"gateway":     "caddy:2.10.2",
		"collector":   "otel/opentelemetry-collector-contrib:0.160.0",

		"janitor": "zeek/zeek:9.0",

		"exporter-host":        "prom/node-exporter:v1.12.1",
		"exporter-zeek":        "prom/node-exporter:v1.12.1",
		"exporter-zeek-geneve": "prom/node-exporter:v1.12.1",
	}
	variables := map[string]string{
		"zeek":        "ZEEKDEMO_IMAGE_ZEEK",
		"zeek-geneve": "ZEEKDEMO_IMAGE_ZEEK",
		"prometheus":  "ZEEKDEMO_IMAGE_PROMETHEUS",
		"loki":        "ZEEKDEMO_IMAGE_LOKI",
		"grafana":     "ZEEKDEMO_IMAGE_GRAFANA",
		"gateway":     "ZEEKDEMO_IMAGE_GATEWAY",
		"collector":   "ZEEKDEMO_IMAGE_COLLECTOR",

		"janitor": "ZEEKDEMO_IMAGE_ZEEK",

		"exporter-host":        "ZEEKDEMO_IMAGE_EXPORTER",
		"exporter-zeek":        "ZEEKDEMO_IMAGE_EXPORTER",
		"exporter-zeek-geneve": "ZEEKDEMO_IMAGE_EXPORTER",
	}
	for name, s := range loadStack(t, nil).Services {
		if s.Image != want[name] {
			t.Errorf("%s: image %q, want %q", name, s.Image, want[name])
		}
		replaced := loadStack(t, map[string]string{variables[name]: "example.org/other:1"})
		if got := replaced.Services[name].Image; got != "example.org/other:1" {
			t.Errorf("%s: image %q with %s set", name, got, variables[name])
		}
	}
}

func TestGrafanaLogin(t *testing.T) {
	login := func(env map[string]string) string {
		e := loadStack(t, env).Services["grafana"].Environment
		return *e["GF_SECURITY_ADMIN_USER"] + ":" + *e["GF_SECURITY_ADMIN_PASSWORD"]
	}
	if got := login(nil); got != "zeek:zeek" {
		t.Errorf("login %q, want zeek:zeek", got)
	}
	env := map[string]string{"ZEEKDEMO_GRAFANA_USER": "ann", "ZEEKDEMO_GRAFANA_PASSWORD": "pa$$w0rd"}
	if got := login(env); got != "ann:pa$$w0rd" {
		t.Errorf("login %q, want the variables' values untouched", got)
	}
}

// ownVariable is one of the stack's own, with its default.
var ownVariable = regexp.MustCompile(`\$\{ZEEKDEMO_\w+:?-([^}]*)\}`)

// On any other address than 127.0.0.1 Grafana opens for nobody who did not choose a
// password, without the program as with it.
func TestNoDefaultPasswordElsewhere(t *testing.T) {
	for _, tt := range []struct {
		bind, password string
		want           string // Grafana's password; empty where the file is refused
	}{
		{"", "", "zeek"}, {"", "mine", "mine"}, {"0.0.0.0", "mine", "mine"}, {"0.0.0.0", "", ""}, {"192.0.2.1", "", ""},
	} {
		env := map[string]string{"ZEEKDEMO_BIND": tt.bind, "ZEEKDEMO_GRAFANA_PASSWORD": tt.password}
		project, err := loadWith(t, env)
		switch {
		case tt.want == "" && (err == nil || !strings.Contains(err.Error(), "ZEEKDEMO_GRAFANA_PASSWORD")):
			t.Errorf("%v: %v", env, err)
		case tt.want != "" && (err != nil || *project.Services["grafana"].Environment["GF_SECURITY_ADMIN_PASSWORD"] != tt.want):
			t.Errorf("%v: %v", env, err)
		}
	}
}

// Zeek goes before what stores and shows where processors are short: each sensor
// has as large a share as all of that together.
func TestZeekGoesFirst(t *testing.T) {
	var others int64
	services := loadStack(t, nil).Services
	for name, s := range services {
		if !strings.HasPrefix(name, "zeek") {
			others += s.CPUShares
		}
	}
	for _, name := range []string{"zeek", "zeek-geneve"} {
		if s := services[name]; s.CPUShares < others || s.CPUShares > 1024 {
			t.Errorf("%s has %d shares, the others together %d, and who is not of the stack 1024", name, s.CPUShares, others)
		}
	}
}

// Interpolation gives back what the files say, each dollar sign once, and the
// defaults of the variables.
func TestConfigsAreTheFiles(t *testing.T) {
	want := map[string]string{
		"prometheus":          "prometheus/prometheus.yml",
		"prometheus-rules":    "prometheus/rules.yml",
		"loki":                "loki/loki.yaml",
		"loki-limits":         "loki/limits.yaml",
		"collector":           "collector/config.yaml",
		"gateway":             "gateway/Caddyfile",
		"grafana":             "grafana/grafana.ini",
		"grafana-datasources": "grafana/provisioning/datasources/zeekdemo.yaml",
		"grafana-dashboards":  "grafana/provisioning/dashboards/zeekdemo.yaml",
		"dashboard-logs":      "grafana/dashboards/zeekdemo-logs.json",
		"dashboard-runs":      "grafana/dashboards/zeekdemo-runs.json",
		"dashboard-telemetry": "grafana/dashboards/zeekdemo-telemetry.json",
		"dashboard-path":      "grafana/dashboards/zeekdemo-path.json",
	}
	configs := loadStack(t, nil).Configs
	if len(configs) != len(want) {
		t.Errorf("%d configs, want %d", len(configs), len(want))
	}
	for name, path := range want {
		if configs[name].Content != ownVariable.ReplaceAllString(readFile(t, "stack/"+path), "$1") {
			t.Errorf("config %s differs from stack/%s", name, path)
		}
	}
}

func TestSensors(t *testing.T) {
	p := loadStack(t, nil)
	for _, tt := range []struct{ name, source, script, hexPort string }{
		{"zeek", "udp::0.0.0.0:4789:vxlan", "zeek/vxlan.zeek", ":12B5 "},
		{"zeek-geneve", "udp::0.0.0.0:6081:geneve", "zeek/geneve.zeek", ":17C1 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := p.Services[tt.name]
			script := readFile(t, "stack/zeek/sensor.zeek") + strings.ReplaceAll(readFile(t, "stack/"+tt.script), "${ZEEKDEMO_GENEVE_VNI:-geneve_vni}", "geneve_vni")
			if want := []string{"sh", "-c", readFile(t, "stack/zeek/sensor.sh"), "sensor", "zeek", "-i", tt.source, "local", "-e", script}; !slices.Equal(s.Command, want) {
				t.Errorf("command %q\nwant %q", s.Command, want)
			}
			if grace := s.Environment["SENSOR_GRACE"]; grace == nil || *grace != fmt.Sprint(time.Duration(*s.StopGracePeriod).Seconds()) {
				t.Errorf("the engine's patience and the script's differ")
			}
			if s.WorkingDir != "/logs/"+tt.name {
				t.Errorf("working directory %q: the collector takes the folder below /logs for the sensor's name", s.WorkingDir)
			}
			if test := s.HealthCheck.Test[len(s.HealthCheck.Test)-1]; !strings.Contains(test, tt.hexPort) {
				t.Errorf("health check %q does not look for %q", test, tt.hexPort)
			}
			if got := slices.Sorted(maps.Keys(s.Networks)); !slices.Equal(got, []string{"monitoring", "scrape"}) {
				t.Errorf("networks %q", got)
			}
			if want := (types.StringList{"0.0.0.0"}); !slices.Equal(s.DNS, want) {
				t.Errorf("names are asked of %q, want of %q, which is nobody", s.DNS, want)
			}
			if first := s.NetworksByPriority()[0]; first != "monitoring" {
				t.Errorf("the published port leads to network %s, want monitoring", first)
			}
		})
	}
}

// What the GENEVE sensor takes is chosen by two variables, which change nothing else.
func TestWhatTheGENEVESensorTakes(t *testing.T) {
	plain := loadStack(t, nil)
	for _, tt := range []struct{ source, vni string }{{"geneve:dlt=raw", "geneve_vni"}, {"geneve+vxlan", "geneve_vxlan_vni"}} {
		chosen := loadStack(t, map[string]string{"ZEEKDEMO_GENEVE_SOURCE": tt.source, "ZEEKDEMO_GENEVE_VNI": tt.vni})
		command := chosen.Services["zeek-geneve"].Command[4:] // Zeek's own
		if want := "udp::0.0.0.0:6081:" + tt.source; command[2] != want {
			t.Errorf("it listens on %s, want %s", command[2], want)
		}
		if load := "\n@load policy/frameworks/conn_key/packet_source/udp/" + tt.vni + "\n"; !strings.HasSuffix(command[5], load) {
			t.Errorf("its script ends with %q, want %q", command[5][len(command[5])-len(load):], load)
		}
		same := chosen.Services["zeek-geneve"]
		same.Command = plain.Services["zeek-geneve"].Command
		chosen.Services["zeek-geneve"] = same
		if !reflect.DeepEqual(chosen.Services, plain.Services) {
			t.Errorf("%s changes more than the sensor's command", tt.source)
		}
	}
}

// The number beside a log line is that of the run: VXLAN's where there are two.
func TestTheVNIBesideALogLine(t *testing.T) {
	m := regexp.MustCompile(`ExtractPatterns\(log\.body, ("[^\n]*_vni[^\n]*")\), "upsert"`).FindStringSubmatch(readFile(t, "stack/collector/config.yaml"))
	if m == nil {
		t.Fatal("the collector looks for no VNI")
	}
	pattern, err := strconv.Unquote(m[1])
	if err != nil {
		t.Fatal(err)
	}
	vni := regexp.MustCompile(pattern)
	for line, want := range map[string]string{
		`{"ts":1.5,"id.resp_p":80,"id.ctx.vxlan_vni":7,"proto":"tcp"}`:                       "7",
		`{"ts":1.5,"id.resp_p":80,"id.ctx.geneve_vni":8,"proto":"tcp"}`:                      "8",
		`{"ts":1.5,"id.resp_p":80,"id.ctx.geneve_vni":0,"id.ctx.vxlan_vni":9,"proto":"tcp"}`: "9",
		`{"ts":1.5,"id.resp_p":80,"id.ctx.geneve_vni":4711,"id.ctx.vxlan_vni":4242}`:         "4242",
		`{"ts":1.5,"mac":"02:00:00:00:00:01"}`:                                               "",
	} {
		got := ""
		if m := vni.FindStringSubmatch(line); m != nil {
			got = m[vni.SubexpIndex("vni")]
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// `docker compose up` on the file alone has the bounds that `zeekdemo up` has.
func TestTheFileAloneHasTheProgramsBounds(t *testing.T) {
	s := orchestrate.Settings{Bind: netip.MustParseAddr("127.0.0.1"),
		Bounds: orchestrate.Bounds{Retention: orchestrate.DefaultRetention, MaxDisk: orchestrate.DefaultMaxDisk}}
	alone, program := loadStack(t, nil), loadStack(t, s.Environment())
	if !reflect.DeepEqual(alone.Services, program.Services) || !reflect.DeepEqual(alone.Configs, program.Configs) {
		t.Errorf("differences:\n%v\n%v", alone.Services["janitor"].Environment, program.Services["janitor"].Environment)
	}
	short := orchestrate.Bounds{Retention: 36 * time.Hour, MaxDisk: 1e9}
	s.Bounds, s.DNS = short, netip.MustParseAddr("192.0.2.53")
	p := loadStack(t, s.Environment())
	if got := p.Configs["loki"].Content; !strings.Contains(got, "\n  retention_period: 36h\n") {
		t.Error("Loki's retention is not the one that was asked for")
	}
	for _, flag := range []string{"--storage.tsdb.retention.time=36h", "--storage.tsdb.retention.size=100000000B"} {
		if !slices.Contains(p.Services["prometheus"].Command, flag) {
			t.Errorf("Prometheus has no %s: %q", flag, p.Services["prometheus"].Command)
		}
	}
	if v := p.Services["zeek-geneve"].Environment["ZEEK_DNS_FAKE"]; v == nil || *v != "" {
		t.Errorf("ZEEK_DNS_FAKE is %v with --dns", v)
	}
	if s := p.Services["zeek"]; !slices.Equal(s.DNS, []string{"192.0.2.53"}) || p.Networks["monitoring"].DriverOpts["com.docker.network.bridge.enable_ip_masquerade"] != "true" {
		t.Errorf("with --dns names are asked of %q, by %v", s.DNS, p.Networks["monitoring"].DriverOpts)
	}
}

func TestNetworks(t *testing.T) {
	p := loadStack(t, nil)
	want := types.Options{"com.docker.network.bridge.name": "br-zeekmon0", "com.docker.network.driver.mtu": "65535", "com.docker.network.bridge.enable_ip_masquerade": "false"}
	if n := p.Networks["monitoring"]; n.Driver != "bridge" || !maps.Equal(n.DriverOpts, want) {
		t.Errorf("monitoring: driver %q, options %v", n.Driver, n.DriverOpts)
	}
	members := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		for network := range p.Services[name].Networks {
			members[network] = append(members[network], name)
		}
	}
	for network, want := range map[string][]string{
		"monitoring": {"zeek", "zeek-geneve"},
		"scrape":     {"exporter-host", "prometheus", "zeek", "zeek-geneve"},
		"storage":    {"collector", "gateway", "grafana", "loki", "prometheus"},
		"front":      {"gateway", "grafana"},
	} {
		if got := members[network]; !slices.Equal(got, want) {
			t.Errorf("%s: members %q, want %q", network, got, want)
		}
		if internal := network == "scrape" || network == "storage"; p.Networks[network].Internal != internal {
			t.Errorf("%s: internal %t, want %t", network, p.Networks[network].Internal, internal)
		}
	}
}

// Only what the package's documentation lists is interpolated: anything else
// would take its value from whatever the caller's environment holds.
func TestVariablesAreTheDocumentedOnes(t *testing.T) {
	doc := readFile(t, "assets.go")
	for _, m := range regexp.MustCompile(`(?:^|[^$])\$\{?(\w+)`).FindAllStringSubmatch(string(assets.Compose()), -1) {
		name := m[1]
		if short, ok := strings.CutPrefix(name, "ZEEKDEMO_IMAGE"); ok {
			name = short
		}
		if !strings.Contains(doc, name) {
			t.Errorf("compose.yaml uses %s, which assets.go does not document", m[1])
		}
	}
}

func readFile(tb testing.TB, path string) string {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}
