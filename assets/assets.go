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
//	ZEEKDEMO_IMAGE_ZEEK, _PROMETHEUS, _LOKI, _GRAFANA, _COLLECTOR, _EXPORTER, _GATEWAY   image references
//	ZEEKDEMO_BIND                                                   address of the sensors' and Grafana's ports, IPv6 in brackets; 127.0.0.1
//	ZEEKDEMO_BIND_UNAUTHENTICATED                                   the same of Loki's and Prometheus', which ask for no password; 127.0.0.1
//	ZEEKDEMO_GRAFANA_USER, ZEEKDEMO_GRAFANA_PASSWORD                Grafana's login; zeek, zeek. With ZEEKDEMO_BIND the password must be set
//	ZEEKDEMO_GENEVE_SOURCE                                          what the GENEVE sensor takes: geneve, geneve:dlt=raw or geneve+vxlan; geneve
//	ZEEKDEMO_GENEVE_VNI                                             the script that logs its VNIs: geneve_vni, or geneve_vxlan_vni with geneve+vxlan; geneve_vni
//	ZEEKDEMO_WORKERS, ZEEKDEMO_GENEVE_WORKERS                       processes that share a sensor's port; 1, which is a Zeek by itself
//	ZEEKDEMO_LOGGERS, ZEEKDEMO_PROXIES                              other nodes of a sensor that is a cluster; 1 each
//	ZEEKDEMO_MEMORY, ZEEKDEMO_GENEVE_MEMORY                         limit of a sensor's memory; 2g, to which a cluster wants 200m for each worker
//	ZEEKDEMO_PIN_WORKERS                                            CPUs of the workers, in turn; none
//	ZEEKDEMO_LOG_ROTATE                                             seconds after which a log goes on in a new file, 0 for never; an hour
//	ZEEKDEMO_LOG_KEEP                                               seconds for which finished files are kept, 0 for ever; a day
//	ZEEKDEMO_LOG_DISK                                               KiB that a sensor's files may take, 0 for any; 2.5 GB
//	ZEEKDEMO_RETENTION, ZEEKDEMO_KEEP                               for how long Loki and Prometheus keep what they store: as 7d, and in seconds for the janitor; a week
//	ZEEKDEMO_LOKI_DISK                                              KiB that Loki's store may take, 0 for any; 12 GB
//	ZEEKDEMO_PROMETHEUS_DISK                                        bytes that Prometheus' store may take; 2 GB
//	ZEEKDEMO_DNS_FAKE, ZEEKDEMO_DNS, ZEEKDEMO_MASQUERADE            empty, the address of a name server and true let Zeek look names up there; 1, 0.0.0.0, false
package assets

import _ "embed"

//go:generate go test . -run ^TestBoardsAreWritten$ -update
//go:generate go test . -run ^TestComposeHoldsTheFiles$ -update

//go:embed stack/compose.yaml
var compose string

// Compose returns the stack's Compose file: project zeekdemo, services zeek,
// zeek-geneve, prometheus, loki, collector, grafana, gateway, janitor, and exporter-host,
// exporter-zeek and exporter-zeek-geneve. The caller owns the slice.
func Compose() []byte { return []byte(compose) }
