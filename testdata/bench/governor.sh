#!/bin/sh
# What the governor costs, and how close it keeps a slow receiver to what that
# can do: the rate at which a receiver takes packets while it is governed,
# against the rate at which it takes them while it is flooded, run by run.
#
#     sudo testdata/bench/governor.sh [PAIRS]
set -eu
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "governor.sh: needs root: it makes network namespaces" >&2; exit 1; }
CGO_ENABLED=0 go test -run '^$' -bench '^BenchmarkGovernor$' -benchtime "${1:-5}x" ./cmd/internal/delivery/watch |
	awk '/^BenchmarkGovernor/ {
		sub(/^BenchmarkGovernor\//, ""); sub(/-[0-9]+$/, "", $1); gsub(/_/, " ", $1)
		for (i = 2; i < NF; i++) { if ($(i+1) == "open_kpps") o = $i; if ($(i+1) == "governed_kpps") g = $i; if ($(i+1) == "ratio") r = $i }
		printf "%-28s flooded %6.1f kpps, governed %6.1f kpps, ratio %.2f\n", $1, o, g, r
	} /FAIL|lost/ { print; bad = 1 } END { exit bad }'
