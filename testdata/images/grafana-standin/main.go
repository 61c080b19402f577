// Command grafana-standin takes Grafana's place in tests on machines that have
// no registry. It is not Grafana: it answers the health, login and annotation
// endpoints, and serves back the data sources and dashboards that were
// provisioned, read from the real provisioning files. It draws nothing.
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"
)

// Where the real image looks, too.
const (
	defaultProvisioning = "/etc/grafana/provisioning"
	defaultListen       = ":3000"
)

func main() {
	fmt.Fprintln(os.Stderr, "grafana-standin: this is a stand-in for tests, not Grafana")
	if err := run(os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "grafana-standin:", err)
		os.Exit(1)
	}
}

// run serves until it fails. The provisioning is read once, at the start, as
// Grafana does for data sources.
func run(getenv func(string) string) error {
	content, err := readProvisioning(either(getenv("GF_PATHS_PROVISIONING"), defaultProvisioning))
	if err != nil {
		return err
	}
	s := &server{content: content,
		user:     either(getenv("GF_SECURITY_ADMIN_USER"), "admin"),
		password: either(getenv("GF_SECURITY_ADMIN_PASSWORD"), "admin")}
	listener := &http.Server{Addr: defaultListen, Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	return listener.ListenAndServe()
}

func either(value, fallback string) string {
	if value != "" {
		return value
	}
	return fallback
}
