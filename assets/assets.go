// Package assets holds what the program brings along: the stack, as one plain
// Compose file.
//
// stack/compose.yaml is complete by itself: `docker compose -f
// assets/stack/compose.yaml up` works without this program. The configuration
// of each service lies beside it as a file of its own, to be read, edited and
// checked like any other, and is copied into the Compose file as inline
// content: engines on other machines and engines of old then need no file of
// this machine. A block of compose.yaml whose header says
//
//	content: | # from loki/loki.yaml
//
// holds that file, dollar signs doubled so that Compose interpolates nothing in
// it but the variables below; several names mean their concatenation. `go generate` renews the blocks,
// after the dashboards that internal/boards writes; a test fails where one is out of
// date.
//
// These variables change the stack, with or without the program:
//
//	ZEEKDEMO_IMAGE_ZEEK, _PROMETHEUS, _LOKI, _GRAFANA, _COLLECTOR, _EXPORTER   image references
//	ZEEKDEMO_BIND                                                   address of the published ports, IPv6 in brackets; 127.0.0.1
//	ZEEKDEMO_GRAFANA_USER, ZEEKDEMO_GRAFANA_PASSWORD                Grafana's login; zeek, zeek
//	ZEEKDEMO_GENEVE_SOURCE                                          what the GENEVE sensor takes: geneve, geneve:dlt=raw or geneve+vxlan; geneve
//	ZEEKDEMO_GENEVE_VNI                                             the script that logs its VNIs: geneve_vni, or geneve_vxlan_vni with geneve+vxlan; geneve_vni
package assets

import _ "embed"

//go:generate go test . -run ^TestBoardsAreWritten$ -update
//go:generate go test . -run ^TestComposeHoldsTheFiles$ -update

//go:embed stack/compose.yaml
var compose string

// Compose returns the stack's Compose file: project zeekdemo, services zeek,
// zeek-geneve, prometheus, loki, collector, grafana, and exporter-host,
// exporter-zeek and exporter-zeek-geneve. The caller owns the slice.
func Compose() []byte { return []byte(compose) }
