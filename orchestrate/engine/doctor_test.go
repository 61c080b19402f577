package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/zeekdemo/zeekdemo/assets"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// What the doctor must know of the embedded file, once its variables are filled
// in, without any engine.
func TestCompleteTheEmbeddedFile(t *testing.T) {
	stack, err := new(Engine).Complete(t.Context(), orchestrate.Project{Name: orchestrate.ProjectName, Compose: assets.Compose(),
		Env: map[string]string{"ZEEKDEMO_IMAGE_ZEEK": "example.invalid/zeek:1", "ZEEKDEMO_BIND": "[::1]", "ZEEKDEMO_GRAFANA_PASSWORD": "p"}})
	if err != nil {
		t.Fatal(err)
	}
	var ports []string
	for _, p := range stack.Ports {
		ports = append(ports, fmt.Sprintf("%s %s/%s", p.Service, p.Address, p.Protocol))
	}
	slices.Sort(ports)
	want := []string{"gateway 127.0.0.1:13100/tcp", "gateway 127.0.0.1:19090/tcp", "grafana [::1]:13000/tcp", "zeek [::1]:4789/udp", "zeek-geneve [::1]:6081/udp"}
	if !slices.Equal(ports, want) {
		t.Errorf("ports %q, want %q", ports, want)
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(stack.Images)))); n != len(stack.Images) || !slices.Contains(stack.Images, "example.invalid/zeek:1") {
		t.Errorf("images %q", stack.Images)
	}
	if stack.Bridge != "br-zeekmon0" || stack.Memory < 4<<30 || !json.Valid(stack.JSON) {
		t.Errorf("bridge %q, %d bytes of memory, %d bytes of JSON", stack.Bridge, stack.Memory, len(stack.JSON))
	}
}

// What engines say of a registry, and what is told of it.
func TestRefusal(t *testing.T) {
	for said, want := range map[string]string{
		`Error response from daemon: Get "https://example.invalid/v2/": dial tcp: lookup example.invalid on 10.0.0.53:53: no such host`: "its registry's name cannot be looked up",
		`Error response from daemon: Get "https://127.0.0.1:5000/v2/": dial tcp 127.0.0.1:5000: connect: connection refused`:            "its registry refuses the connection",
		`errors:
denied: requested access to the resource is denied
unauthorized: authentication required
`: "its registry has no such image, or wants a login",
		"manifest unknown: manifest unknown": "its registry has no such image",
		`Get "https://r.example/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority`: "its registry's certificate is not trusted",
		"toomanyrequests: You have reached your pull rate limit":                                                        "its registry wants a login for more pulls",
		"Error response from daemon: something\n else":                                                                  "something else",
	} {
		if got := refusal(errors.New(said)); got != want {
			t.Errorf("%q: got %q, want %q", said, got, want)
		}
	}
}
