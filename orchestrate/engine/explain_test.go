package engine

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

func TestUnreachableEnginesAreExplained(t *testing.T) {
	for name, tc := range map[string]struct {
		address string
		err     error
		hint    string
	}{
		"no permission": {"unix:///var/run/docker.sock", os.ErrPermission, "usermod -aG docker"},
		"not running":   {"unix:///var/run/docker.sock", errors.New("dial unix: connect: no such file or directory"), "start the engine"},
		"refused":       {"tcp://127.0.0.1:2375", errors.New("dial tcp: connection refused"), "start the engine"},
		"over ssh":      {"ssh://far", errors.New("exit status 255: stderr=Host key verification failed.\r\n\n"), "ssh far docker version"},
		"anything else": {"tcp://h:1", errors.New("odd"), "docker version"},
	} {
		t.Run(name, func(t *testing.T) {
			err := explainReach(tc.address, tc.err)
			if !strings.Contains(hintOf(err), tc.hint) || !errors.Is(err, tc.err) || strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%v, hint %q", err, hintOf(err))
			}
		})
	}
}

func TestFailedStartsAreExplained(t *testing.T) {
	for name, tc := range map[string]struct {
		text, port, protocol, hint string
	}{
		"docker-proxy, 20.10": {"driver failed programming external connectivity on endpoint zeekdemo-grafana-1 (96): Error starting userland proxy: listen tcp4 127.0.0.1:13000: bind: address already in use", "127.0.0.1:13000", "tcp", "another address"},
		"UDP":                 {"Error starting userland proxy: listen udp4 127.0.0.1:4789: bind: address already in use", "127.0.0.1:4789", "udp", "another address"},
		"another container":   {"Bind for 127.0.0.1:13000 failed: port is already allocated", "127.0.0.1:13000", "tcp", "another address"},
		"newer engines":       {"failed to bind host port 127.0.0.1:6081/udp: address already in use", "127.0.0.1:6081", "udp", "another address"},
		"disk full":           {"write /var/lib/docker/tmp/x: no space left on device", "", "", "docker system df"},
		"no image":            {"No such image: zeek/zeek:9.0", "", "", "--pull never"},
		"no registry":         {"Get \"https://registry/v2/\": dial tcp: lookup registry: no such host", "", "", "--image"},
		"name taken":          {"Error response from daemon: Conflict. The container name \"/zeekdemo-grafana-1\" is already in use by container \"57\". You have to remove (or rename) that container", "", "", "`docker rm -f zeekdemo-grafana-1`"},
		"address ranges":      {"all predefined address pools have been fully subnetted", "", "", "docker network prune"},
	} {
		t.Run(name, func(t *testing.T) {
			err := explainUp(t.Context(), errors.New(tc.text))
			if !strings.Contains(hintOf(err), tc.hint) {
				t.Errorf("%v, hint %q", err, hintOf(err))
			}
			var taken *orchestrate.PortTakenError
			if errors.As(err, &taken) != (tc.port != "") || taken != nil && (taken.Address != tc.port || taken.Protocol != tc.protocol) {
				t.Errorf("port %+v, want %s/%s", taken, tc.port, tc.protocol)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := explainUp(ctx, errors.New("whatever")); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestIsRemote(t *testing.T) {
	for address, want := range map[string]bool{
		"unix:///var/run/docker.sock": false, "npipe:////./pipe/docker_engine": false, "tcp://127.0.0.1:2375": false,
		"tcp://localhost:2375": false, "tcp://192.0.2.1:2376": true, "ssh://far": true, "http://docker.example.com": true,
	} {
		if got := isRemote(address); got != want {
			t.Errorf("%s: %t, want %t", address, got, want)
		}
	}
}

func TestLoadSeesOnlyItsOwnEnvironment(t *testing.T) {
	t.Setenv("ZEEKDEMO_TEST_LEAK", "leaked")
	compose := []byte("services: {a: {image: '${IMAGE:-x:1}', environment: {V: '${ZEEKDEMO_TEST_LEAK:-clean}'}}}")
	p, err := load(t.Context(), orchestrate.Project{Name: "p", Compose: compose, Env: map[string]string{"IMAGE": "y:2"}, Pull: orchestrate.PullNever})
	if err != nil {
		t.Fatal(err)
	}
	a := p.Services["a"]
	if a.Image != "y:2" || *a.Environment["V"] != "clean" || a.PullPolicy != "never" || a.CustomLabels["com.docker.compose.project"] != "p" {
		t.Errorf("loaded %+v", a)
	}
}

func TestLogNamesBecomeServices(t *testing.T) {
	var got []string
	c := &consumer{project: "zeekdemo", line: func(service, line string) { got = append(got, service+"|"+line) }}
	c.Log("zeek-geneve-1", "one\ntwo\r\n")
	c.Err("zeekdemo-loki-1", "three")
	if want := "zeek-geneve|one zeek-geneve|two loki|three"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Compose makes a container anew where its service changed. What its inline
// configurations hold is a part of it.
func TestAnotherConfigurationIsAnotherService(t *testing.T) {
	label := func(level string) string {
		compose := []byte("services: {a: {image: x, configs: [{source: c, target: /etc/c}]}, b: {image: x}}\nconfigs: {c: {content: \"level: ${LEVEL}\"}}\n")
		p, err := load(t.Context(), orchestrate.Project{Name: "p", Compose: compose, Env: map[string]string{"LEVEL": level}})
		if err != nil {
			t.Fatal(err)
		}
		if labels := p.Services["b"].Labels; len(labels) != 0 {
			t.Errorf("a service without configurations has the labels %v", labels)
		}
		return p.Services["a"].Labels[configurationLabel]
	}
	if a, again, b := label("warn"), label("warn"), label("info"); a == "" || a != again || a == b {
		t.Errorf("warn %q, again %q, info %q", a, again, b)
	}
}
