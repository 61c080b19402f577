#!/bin/sh
# How a cluster's lossless rate grows with its workers, each slowed to 20 000 packets
# a second (the stand-in for Zeek of the test images), and what looking at their
# sockets costs the sender; as a Markdown table. Without a slow receiver the last
# lines show what is left of one worker's rate for as many as eight, on the same
# processors.
#
#     sudo testdata/bench/workers.sh [RUNS]
set -eu
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "workers.sh: needs root: it makes network namespaces" >&2; exit 1; }
CGO_ENABLED=0 go test -run '^$' -bench '^BenchmarkWorkers$' -benchtime "${1:-5}x" -timeout 30m ./cmd/internal/delivery/watch |
	awk 'BEGIN { print "| workers | lossless, kpps | of one | a look, µs | of the sender'\''s time |"; print "|---|---|---|---|---|" }
	/^BenchmarkWorkers/ {
		sub(/^BenchmarkWorkers\//, ""); sub(/-[0-9]+$/, "", $1); gsub(/_/, " ", $1); sub(/ workers, 0s a packet/, ", as fast as they can", $1); sub(/ workers/, "", $1)
		n = $1; for (i = 2; i < NF; i++) { if ($(i+1) == "kpps") k = $i; if ($(i+1) == "us/look") u = $i; if ($(i+1) == "%looking") s = $i }
		if (n ~ /^1,/) one = k
		printf "| %s | %.1f | %.2f | %.1f | %.1f %% |\n", n, k, k / one, u, s
		next
	} /FAIL|lost/ { print; bad = 1 } END { exit bad }'
