package assets_test

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/zeekdemo/zeekdemo/assets"
)

// loadStack loads the embedded Compose file as Compose does, with nothing but
// env to interpolate.
func loadStack(tb testing.TB, env map[string]string) *types.Project {
	tb.Helper()
	project, err := loader.LoadWithContext(tb.Context(), types.ConfigDetails{
		WorkingDir:  tb.TempDir(),
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: assets.Compose()}},
		Environment: env,
	})
	if err != nil {
		tb.Fatalf("load compose.yaml: %v", err)
	}
	return project
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
		{"services", p.ServiceNames(), []string{"collector", "exporter-host", "exporter-zeek", "exporter-zeek-geneve", "grafana", "loki", "prometheus", "zeek", "zeek-geneve"}},
		{"networks", slices.Sorted(maps.Keys(p.Networks)), []string{"monitoring", "telemetry"}},
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
	wantUser := map[string]string{"collector": "0:0"} // writes to a volume that belongs to root
	wantReadOnly := map[string]bool{                  // the others get inline configs, which exclude it
		"zeek": true, "zeek-geneve": true, "exporter-host": true, "exporter-zeek": true, "exporter-zeek-geneve": true}
	wantPid := map[string]string{"exporter-host": "host"} // reads the counters of its first process's network
	wantNetwork := map[string]string{"exporter-zeek": "service:zeek", "exporter-zeek-geneve": "service:zeek-geneve"}
	for name, s := range loadStack(t, nil).Services {
		t.Run(name, func(t *testing.T) {
			if !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || s.Privileged {
				t.Errorf("cap_drop %q, cap_add %q, privileged %v; want ALL dropped, none added", s.CapDrop, s.CapAdd, s.Privileged)
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
			if h := s.HealthCheck; h != nil && h.StartInterval != nil {
				t.Error("start_interval: engines before API 1.44 refuse it")
			}
		})
	}
}

func TestPublishedPorts(t *testing.T) {
	want := []string{
		"grafana 127.0.0.1:13000->3000/tcp",
		"loki 127.0.0.1:13100->3100/tcp",
		"prometheus 127.0.0.1:19090->9090/tcp",
		"zeek 127.0.0.1:4789->4789/udp",
		"zeek-geneve 127.0.0.1:6081->6081/udp",
	}
	if got := publishedPorts(t, nil); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for bind, address := range map[string]string{"192.0.2.1": "192.0.2.1", "[::1]": "::1"} {
		moved := slices.Clone(want)
		for i := range moved {
			moved[i] = strings.Replace(moved[i], "127.0.0.1", address, 1)
		}
		if got := publishedPorts(t, map[string]string{"ZEEKDEMO_BIND": bind}); !slices.Equal(got, moved) {
			t.Errorf("ZEEKDEMO_BIND=%s: got %q\nwant %q", bind, got, moved)
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
		"collector":   "otel/opentelemetry-collector-contrib:0.160.0",

		"exporter-host":        "prom/node-exporter:v1.12.1",
		"exporter-zeek":        "prom/node-exporter:v1.12.1",
		"exporter-zeek-geneve": "prom/node-exporter:v1.12.1",
	}
	variable := map[string]string{
		"zeek":        "ZEEKDEMO_IMAGE_ZEEK",
		"zeek-geneve": "ZEEKDEMO_IMAGE_ZEEK",
		"prometheus":  "ZEEKDEMO_IMAGE_PROMETHEUS",
		"loki":        "ZEEKDEMO_IMAGE_LOKI",
		"grafana":     "ZEEKDEMO_IMAGE_GRAFANA",
		"collector":   "ZEEKDEMO_IMAGE_COLLECTOR",

		"exporter-host":        "ZEEKDEMO_IMAGE_EXPORTER",
		"exporter-zeek":        "ZEEKDEMO_IMAGE_EXPORTER",
		"exporter-zeek-geneve": "ZEEKDEMO_IMAGE_EXPORTER",
	}
	for name, s := range loadStack(t, nil).Services {
		if s.Image != want[name] {
			t.Errorf("%s: image %q, want %q", name, s.Image, want[name])
		}
		replaced := loadStack(t, map[string]string{variable[name]: "example.org/other:1"})
		if got := replaced.Services[name].Image; got != "example.org/other:1" {
			t.Errorf("%s: image %q with %s set", name, got, variable[name])
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

// Interpolation gives back what the files say, each dollar sign once.
func TestConfigsAreTheFiles(t *testing.T) {
	want := map[string]string{
		"prometheus":          "prometheus/prometheus.yml",
		"prometheus-rules":    "prometheus/rules.yml",
		"loki":                "loki/loki.yaml",
		"collector":           "collector/config.yaml",
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
		if configs[name].Content != readFile(t, "stack/"+path) {
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
			if want := []string{"zeek", "-i", tt.source, "local", "-e", script}; !slices.Equal(s.Command, want) {
				t.Errorf("command %q\nwant %q", s.Command, want)
			}
			if s.WorkingDir != "/logs/"+tt.name {
				t.Errorf("working directory %q: the collector takes the folder below /logs for the sensor's name", s.WorkingDir)
			}
			if want := (types.HealthCheckTest{"CMD", "grep", "-q", tt.hexPort, "/proc/net/udp"}); !slices.Equal(s.HealthCheck.Test, want) {
				t.Errorf("health check %q, want %q", s.HealthCheck.Test, want)
			}
			if got := slices.Sorted(maps.Keys(s.Networks)); !slices.Equal(got, []string{"monitoring", "telemetry"}) {
				t.Errorf("networks %q", got)
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
		command := chosen.Services["zeek-geneve"].Command
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

func TestNetworks(t *testing.T) {
	p := loadStack(t, nil)
	want := types.Options{"com.docker.network.bridge.name": "br-zeekmon0", "com.docker.network.driver.mtu": "65535"}
	if n := p.Networks["monitoring"]; n.Driver != "bridge" || !maps.Equal(n.DriverOpts, want) {
		t.Errorf("monitoring: driver %q, options %v", n.Driver, n.DriverOpts)
	}
	for name, s := range p.Services {
		if _, ok := s.Networks["telemetry"]; !ok && s.NetworkMode == "" {
			t.Errorf("%s is not in telemetry", name)
		}
		if _, ok := s.Networks["monitoring"]; ok && !strings.HasPrefix(name, "zeek") {
			t.Errorf("%s is in monitoring, which is for packets only", name)
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
