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
	return []string{"collector", "exporter", "grafana", "loki", "prometheus", "zeek"}
}

// Settings are what a user may choose about the stack.
type Settings struct {
	Bind            netip.Addr        // address of the published ports
	GrafanaUser     string            // empty for the default
	GrafanaPassword string            // empty for the default
	Images          map[string]string // image reference by name out of ImageNames
	Pull            PullPolicy
	Geneve          GeneveMode // what the GENEVE sensor takes; empty for Ethernet
	Cluster         Cluster    // how many processes make a sensor
	Bounds          Bounds
	DNS             bool // whether Zeek looks names up, at the engine's resolvers
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
	if !s.Bind.IsLoopback() && (s.GrafanaPassword == "" || s.GrafanaPassword == DefaultGrafanaPassword) {
		return WithHint(fmt.Errorf("bind to %s: Grafana would be open to the network with its default password", s.Bind),
			"set another one with --grafana-password, or stay on 127.0.0.1")
	}
	return nil
}

// Environment returns the variables that complete the embedded Compose file.
func (s Settings) Environment() map[string]string {
	env := map[string]string{"ZEEKDEMO_BIND": s.Bind.String()}
	if s.Bind.Is6() {
		env["ZEEKDEMO_BIND"] = "[" + s.Bind.String() + "]" // the Compose short port syntax
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
	if s.DNS {
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
