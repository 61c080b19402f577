package orchestrate

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// DefaultGrafanaUser and DefaultGrafanaPassword open Grafana where nothing
// else was set. They are public, so they are refused beyond loopback.
const (
	DefaultGrafanaUser     = "zeek"
	DefaultGrafanaPassword = "zeek"
)

// ImageNames are the images of the stack that can be replaced. Both sensors
// run the image called zeek, and the three exporters that called exporter.
func ImageNames() []string {
	return []string{"collector", "exporter", "gateway", "grafana", "loki", "prometheus", "zeek"}
}

// Settings are what a user may choose about the stack.
type Settings struct {
	Bind            netip.Addr        // address of the published ports
	Expose          bool              // publish Loki and Prometheus there too, which ask for no password, beyond loopback
	GrafanaUser     string            // empty for the default
	GrafanaPassword string            // empty for the default
	Images          map[string]string // image reference by name out of ImageNames
	Pull            PullPolicy
	Geneve          GeneveMode // what the GENEVE sensor takes; empty for Ethernet
	Cluster         Cluster    // how many processes make a sensor
	Bounds          Bounds
	DNS             netip.Addr // at which Zeek looks names up; not valid for nowhere
}

// Validate refuses settings that are wrong or unsafe. It touches nothing.
func (s Settings) Validate() error {
	for _, name := range slices.Sorted(maps.Keys(s.Images)) {
		if !slices.Contains(ImageNames(), name) {
			return fmt.Errorf("no image %q in the stack: there are %s", name, strings.Join(ImageNames(), ", "))
		}
		if s.Images[name] == "" {
			return fmt.Errorf("image %s: the reference is empty", name)
		}
	}
	switch s.Pull {
	case PullMissing, PullAlways, PullNever:
	default:
		return fmt.Errorf("pull policy %q: want missing, always or never", s.Pull)
	}
	if s.Geneve != "" {
		if _, err := ParseGeneveMode(string(s.Geneve)); err != nil {
			return err
		}
	}
	if err := errors.Join(s.Cluster.Validate(), s.Bounds.validate()); err != nil {
		return err
	}
	if !s.Bind.IsValid() {
		return errors.New("no address to bind the published ports to")
	}
	if s.Expose && s.Bind.IsLoopback() {
		return WithHint(fmt.Errorf("expose Loki and Prometheus: %s is reached from this machine only", s.Bind), "say with --bind on which address")
	}
	if !s.Bind.IsLoopback() && (s.GrafanaPassword == "" || s.GrafanaPassword == DefaultGrafanaPassword) {
		return WithHint(fmt.Errorf("bind to %s: Grafana would be open to the network with its default password", s.Bind),
			"set another one with --grafana-password, or stay on 127.0.0.1")
	}
	return nil
}

// Environment returns the variables that complete the embedded Compose file.
func (s Settings) Environment() map[string]string {
	bind := s.Bind.String()
	if s.Bind.Is6() {
		bind = "[" + bind + "]" // the Compose short port syntax
	}
	// On another loopback address the default password is as good as on 127.0.0.1,
	// and Validate has refused it anywhere else.
	env := map[string]string{"ZEEKDEMO_BIND": bind, "ZEEKDEMO_GRAFANA_PASSWORD": DefaultGrafanaPassword}
	if s.Bind.IsLoopback() || s.Expose {
		env["ZEEKDEMO_BIND_UNAUTHENTICATED"] = bind
	}
	if s.GrafanaUser != "" {
		env["ZEEKDEMO_GRAFANA_USER"] = s.GrafanaUser
	}
	if s.GrafanaPassword != "" {
		env["ZEEKDEMO_GRAFANA_PASSWORD"] = s.GrafanaPassword
	}
	maps.Copy(env, s.Geneve.environment())
	maps.Copy(env, s.Cluster.environment())
	maps.Copy(env, s.Bounds.environment())
	if s.DNS.IsValid() { // which takes a way out, and the way back
		env["ZEEKDEMO_DNS"], env["ZEEKDEMO_MASQUERADE"] = s.DNS.String(), "true"
		env["ZEEKDEMO_DNS_FAKE"] = "" // Zeek asks nobody where the variable has a value
	}
	for name, ref := range s.Images {
		env[ImageVariable(name)] = ref
	}
	return env
}

// ImageVariable is the environment variable that replaces an image, e.g.
// ZEEKDEMO_IMAGE_ZEEK.
func ImageVariable(name string) string { return "ZEEKDEMO_IMAGE_" + strings.ToUpper(name) }

// ParseImage splits NAME=REF as `up --image` takes it.
func ParseImage(arg string) (name, ref string, err error) {
	name, ref, ok := strings.Cut(arg, "=")
	if !ok || name == "" || ref == "" {
		return "", "", fmt.Errorf("image %q: want NAME=REF, e.g. zeek=zeek/zeek:9.0", arg)
	}
	return name, ref, nil
}
