package engine

import (
	"archive/tar"
	"bytes"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/zeekdemo/zeekdemo/assets"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

func sensors(t *testing.T) map[string]types.ServiceConfig {
	t.Helper()
	project, err := load(t.Context(), orchestrate.Project{Name: "x", Compose: assets.Compose(), Env: map[string]string{"ZEEKDEMO_IMAGE_ZEEK": "example/zeek:1"}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]types.ServiceConfig{"zeek": project.Services["zeek"], "zeek-geneve": project.Services["zeek-geneve"]}
}

// A sensor of its own is confined and set up as the stack's.
func TestOneShotIsMadeFromTheService(t *testing.T) {
	for name, s := range sensors(t) {
		config, host, err := oneShotConfig(s, orchestrate.OneShot{Run: "r", Name: "live", Service: name})
		if err != nil {
			t.Fatal(err)
		}
		if config.Image != "example/zeek:1" || !slices.Equal(config.Cmd, []string(s.Command)) || config.WorkingDir != "/logs/"+name {
			t.Errorf("%s: image %s, command %.40q, folder %s", name, config.Image, config.Cmd, config.WorkingDir)
		}
		if !slices.Contains(host.CapDrop, "ALL") || !host.ReadonlyRootfs || host.Memory != 2<<30 ||
			!slices.Contains(host.SecurityOpt, "no-new-privileges:true") || len(host.PortBindings) != 0 ||
			host.PidsLimit == nil || *host.PidsLimit != s.PidsLimit || host.CPUShares != s.CPUShares || len(host.DNS) != 1 || host.DNS[0].String() != "0.0.0.0" {
			t.Errorf("%s: %+v", name, host)
		}
		if _, ok := host.Tmpfs["/tmp"]; !ok {
			t.Errorf("%s: no tmpfs on /tmp: %v", name, host.Tmpfs)
		}
		if want := []mount.Mount{{Type: mount.TypeVolume, Target: "/logs"}}; !slices.Equal(host.Mounts, want) {
			t.Errorf("%s: mounts %+v, want an anonymous volume at /logs", name, host.Mounts)
		}
		if slices.ContainsFunc(config.Env, func(v string) bool {
			return strings.HasPrefix(v, "SENSOR_ROTATE=") || strings.HasPrefix(v, "SENSOR_KEEP=") || strings.HasPrefix(v, "SENSOR_DISK=")
		}) || !slices.Contains(config.Env, "SENSOR_WORKERS=1") {
			t.Errorf("%s: its logs would not stay: %q", name, config.Env)
		}
		if !host.RestartPolicy.IsNone() && host.RestartPolicy.Name != "" {
			t.Errorf("%s: restarts %s", name, host.RestartPolicy.Name)
		}
	}
}

// Asked to publish, it has each of the service's ports on a free one of
// loopback, and nowhere else.
func TestOneShotThatPublishes(t *testing.T) {
	for name, s := range sensors(t) {
		config, host, err := oneShotConfig(s, orchestrate.OneShot{Run: "r", Name: "live", Service: name, Publish: true})
		if err != nil {
			t.Fatal(err)
		}
		port := network.MustParsePort(map[string]string{"zeek": "4789/udp", "zeek-geneve": "6081/udp"}[name])
		bound := host.PortBindings[port]
		if _, ok := config.ExposedPorts[port]; !ok || len(host.PortBindings) != 1 || len(bound) != 1 || bound[0].HostIP.String() != "127.0.0.1" || bound[0].HostPort != "" {
			t.Errorf("%s: exposed %v, bound %v", name, config.ExposedPorts, host.PortBindings)
		}
		in := &container.NetworkSettings{Ports: network.PortMap{port: {{HostIP: bound[0].HostIP, HostPort: "32768"}}}}
		if got := published(in); len(got) != 1 || got[0].PublicPort != 32768 || got[0].PrivatePort != port.Num() || got[0].Type != "udp" {
			t.Errorf("%s: published %+v", name, got)
		}
	}
}

// One that reads a file runs the same scripts, without any network.
func TestOneShotThatReadsAFile(t *testing.T) {
	for name, s := range sensors(t) {
		config, host, err := oneShotConfig(s, orchestrate.OneShot{Run: "r", Name: "sent", Service: name, Capture: "/x.pcap"})
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"zeek", "-C", "-r", "/logs/capture"}; !slices.Equal(config.Cmd[4:8], want) {
			t.Errorf("%s: command %q", name, config.Cmd[4:8])
		}
		if !slices.Equal(config.Cmd[8:], []string(s.Command[7:])) {
			t.Errorf("%s: other scripts than the sensor's", name)
		}
		if host.NetworkMode != "none" {
			t.Errorf("%s: network %q", name, host.NetworkMode)
		}
	}
}

// All Zeek processes of a verification start from the same seeds and ask nobody.
func TestOneShotIsSeededAndAsksNobody(t *testing.T) {
	for name, s := range sensors(t) {
		for what, o := range map[string]orchestrate.OneShot{
			"listens": {Run: "r", Name: "live", Service: name, Seeds: []byte("1\n")},
			"reads":   {Run: "r", Name: "sent", Service: name, Seeds: []byte("1\n"), Capture: "/x.pcap"},
		} {
			config, host, err := oneShotConfig(s, o)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(config.Env, "ZEEK_SEED_FILE=/logs/seeds") || !slices.Contains(config.Env, "ZEEK_DNS_FAKE=1") {
				t.Errorf("%s, one that %s: environment %q", name, what, config.Env)
			}
			if len(host.Binds) > 0 {
				t.Errorf("%s, one that %s: mounts %q of this machine", name, what, host.Binds)
			}
		}
		config, _, err := oneShotConfig(s, orchestrate.OneShot{Run: "r", Name: "live", Service: name})
		if err != nil || slices.ContainsFunc(config.Env, func(v string) bool { return strings.HasPrefix(v, "ZEEK_SEED_FILE=") }) {
			t.Errorf("%s: seeds without a file: %q, %v", name, config.Env, err)
		}
	}
}

// A script of one's own comes after the sensor's, in the same -e.
func TestOneShotWithAScript(t *testing.T) {
	for name, s := range sensors(t) {
		config, _, err := oneShotConfig(s, orchestrate.OneShot{Run: "r", Name: "sent", Service: name, Capture: "/x.pcap", Script: "redef x = 1;\n"})
		if err != nil {
			t.Fatal(err)
		}
		own := s.Command[slices.Index(s.Command, "-e")+1]
		text := config.Cmd[slices.Index(config.Cmd, "-e")+1]
		if !strings.HasPrefix(text, strings.TrimRight(own, "\n")+"\n") || !strings.HasSuffix(text, "\nredef x = 1;\n") || len(config.Cmd) != len(s.Command)+1 {
			t.Errorf("%s: command %q", name, config.Cmd)
		}
	}
}

// All files are in one archive, and no more of a file is read than was there when
// its header was written.
func TestTarOfCopiedFiles(t *testing.T) {
	var b bytes.Buffer
	err := writeTar(&b, entry{tar.Header{Name: "seeds", Size: 2, Mode: 0o444}, strings.NewReader("1\n")},
		entry{tar.Header{Name: "capture", Size: 3, Mode: 0o444}, strings.NewReader("abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(&b)
	for _, want := range []string{"seeds 1\n", "capture abc"} {
		header, err := archive.Next()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil || header.Name+" "+string(content) != want || header.Mode != 0o444 {
			t.Errorf("%s %q, %v, want %q", header.Name, content, err, want)
		}
	}
	if _, err := archive.Next(); err != io.EOF {
		t.Errorf("more: %v", err)
	}
}

// Every field that the embedded file sets for a sensor is translated, or left
// out on purpose. A new one must be put into one of the two lists.
func TestEveryFieldOfASensorIsThoughtOf(t *testing.T) {
	translated := []string{"Image", "Command", "Environment", "WorkingDir", "CapDrop", "SecurityOpt", "ReadOnly", "Tmpfs", "Volumes", "MemLimit", "PidsLimit", "CPUShares", "DNS", "Logging", "Networks"}
	leftOut := []string{
		"Name", "Labels", "CustomLabels", "PullPolicy", // of the project
		"Restart", "Ports", "HealthCheck", "StopGracePeriod", // it serves one question, and its client waits for it
	}
	for name, s := range sensors(t) {
		for _, field := range setFields(reflect.ValueOf(s)) {
			if !slices.Contains(translated, field) && !slices.Contains(leftOut, field) {
				t.Errorf("%s: field %s is neither translated nor left out on purpose", name, field)
			}
		}
	}
}

// setFields lists the fields that are not zero, those of embedded structs too.
func setFields(v reflect.Value) []string {
	var names []string
	for i := range v.NumField() {
		field := v.Type().Field(i)
		switch {
		case field.Anonymous:
			names = append(names, setFields(v.Field(i))...)
		case !v.Field(i).IsZero() && !strings.HasSuffix(field.Name, "Extensions"):
			names = append(names, field.Name)
		}
	}
	return names
}

// One-shots of one project are made of one model; another project has another.
func TestAProjectIsLoadedOnce(t *testing.T) {
	var l loaded
	p := orchestrate.Project{Name: "x", Compose: assets.Compose(), Env: map[string]string{"ZEEKDEMO_IMAGE_ZEEK": "example/zeek:1"}}
	first, err := l.load(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	p.Env = map[string]string{"ZEEKDEMO_IMAGE_ZEEK": "example/zeek:1"}
	if again, err := l.load(t.Context(), p); err != nil || again != first {
		t.Errorf("the same project was loaded again, %v", err)
	}
	p.Env = map[string]string{"ZEEKDEMO_IMAGE_ZEEK": "example/zeek:2"}
	other, err := l.load(t.Context(), p)
	if err != nil || other.Services["zeek"].Image != "example/zeek:2" || first.Services["zeek"].Image != "example/zeek:1" {
		t.Errorf("%v, images %s and %s", err, other.Services["zeek"].Image, first.Services["zeek"].Image)
	}
	if _, err := l.load(t.Context(), orchestrate.Project{Name: "x", Compose: []byte("services: 1")}); err == nil {
		t.Error("what is no project was loaded")
	}
}
