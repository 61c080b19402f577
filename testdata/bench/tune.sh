#!/usr/bin/env bash
# What tune-host changes: loss and reordering of an open-loop replay at full
# speed into the stack's VXLAN sensor, through docker-proxy and by --direct,
# before and after tune-host; medians as a Markdown table. "Before" is the
# machine as it is, and with the buffers of kernels before 6.18 (208 KiB).
#
# It starts the stack and removes it, tunes the machine and takes that back; run
# it where no stack is. Needs root, Go, Docker, tcpdump, nsenter and jq.
#
# Usage: tune.sh [-n RUNS] [-l LOOPS] CAPTURE
set -euo pipefail
runs=5 loops=1
while getopts n:l: o; do case $o in n) runs=$OPTARG ;; l) loops=$OPTARG ;; *) exit 2 ;; esac; done
shift $((OPTIND - 1))
file=$(realpath "${1:?usage: tune.sh [-n RUNS] [-l LOOPS] CAPTURE}")
root=$(cd "$(dirname "$0")/../.." && pwd) tmp=$(mktemp -d)
export XDG_STATE_HOME=$tmp/state
core=/proc/sys/net/core settings="rmem_max rmem_default wmem_max wmem_default netdev_max_backlog"
for s in $settings; do cp "$core/$s" "$tmp/$s"; done
cleanup() {
  "$tmp/zeekdemo" tune-host --revert >/dev/null 2>&1 || :
  "$tmp/zeekdemo" down --volumes >/dev/null 2>&1 || :
  for s in $settings; do cat "$tmp/$s" >"$core/$s"; done
  rm -rf "$tmp"
}
trap cleanup EXIT
(cd "$root" && CGO_ENABLED=0 go build -trimpath -o "$tmp/zeekdemo" ./cmd/zeekdemo && go build -o "$tmp/order" ./testdata/bench/order)
"$tmp/order" number "$file" "$tmp/numbered.pcap"

replay() { # WAY ARGUMENT...: prints sent, taken by the sensor, kpps, and the place of most drops
  local way=$1
  shift
  "$tmp/zeekdemo" replay "$tmp/numbered.pcap" --pace max --lossless off --via "$way" --json "$@" 2>/dev/null >"$tmp/run.json" || [ $? = 3 ]
  jq -r '[.report.datagrams_sent, .lossless.ledger.taken, .report.datagrams_per_second / 1e3,
    ([.lossless.ledger.counters[]? | select(.name | startswith("socket"))] | sort_by(-.count) | if . == [] or .[0].count == 0 then "-" else .[0].place + ", " + .[0].name end)] | @tsv' "$tmp/run.json"
}

measure() { # NAME WAY
  local pid tap
  for ((i = 0; i < runs; i++)); do
    echo "$1 $2	$(replay "$2" --loop "$loops")" >>"$tmp/loss"
  done
  pid=$(docker inspect --format '{{.State.Pid}}' zeekdemo-zeek-1)
  for ((i = 0; i < runs; i++)); do # once more, watched, which costs a little
    nsenter -t "$pid" -n tcpdump -i eth0 -Q in -s 64 -B 262144 --immediate-mode -w "$tmp/arrived.pcap" udp dst port 4789 2>"$tmp/tap" &
    tap=$!
    until grep -q 'listening on' "$tmp/tap"; do
      kill -0 "$tap" 2>/dev/null || { cat "$tmp/tap" >&2; docker inspect --format "{{.State.Status}}, killed for memory: {{.State.OOMKilled}}, restarts: {{.RestartCount}}" zeekdemo-zeek-1 >&2; exit 1; }
      sleep 0.05
    done
    replay "$2" >/dev/null
    kill -INT "$tap" && wait "$tap" || :
    echo "$1 $2	$("$tmp/order" count "$tmp/arrived.pcap")" >>"$tmp/order.tsv"
  done
}

stage() { # NAME: both ways, with sensors that were started under the present settings
  for way in published direct; do measure "$1" "$way"; done
  echo "$1: buffer of the sensor's socket $(jq '[.lossless.sockets[]? | select(.place == "sensor")][0].buffer_bytes' "$tmp/run.json") bytes" >&2
}
fresh() {
  "$tmp/zeekdemo" down --volumes >/dev/null 2>&1
  "$tmp/zeekdemo" up --pull never >/dev/null 2>&1
}

for s in rmem_max rmem_default wmem_max wmem_default; do echo 212992 >"$core/$s"; done
fresh
stage old
for s in $settings; do cat "$tmp/$s" >"$core/$s"; done
fresh
stage untuned
"$tmp/zeekdemo" tune-host --restart-sensors >&2
stage tuned

median() { sort -g | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }
echo "| limits | way | sent, kpps | lost | most at | out of order | out of order in their flow |"
echo "|---|---|---|---|---|---|---|"
declare -A title=([old]="208 KiB" [untuned]="as it is" [tuned]="tune-host")
for name in old untuned tuned; do
  for way in published direct; do
    rows=$(grep -P "^$name $way\t" "$tmp/loss" | cut -f 2-) orders=$(grep -P "^$name $way\t" "$tmp/order.tsv" | cut -f 2-)
    printf '| %s | %s | %.0f | %.1f %% | %s | %.2f %% | %.2f %% |\n' "${title[$name]}" "$way" \
      "$(cut -f 3 <<<"$rows" | median)" \
      "$(awk -F '\t' '{ print ($1 - $2) * 100 / $1 }' <<<"$rows" | median)" \
      "$(cut -f 4 <<<"$rows" | sort | uniq -c | sort -rn | awk 'NR == 1 { $1 = ""; print substr($0, 2) }')" \
      "$(awk '{ print $2 * 100 / $1 }' <<<"$orders" | median)" "$(awk '{ print $3 * 100 / $1 }' <<<"$orders" | median)"
  done
done
