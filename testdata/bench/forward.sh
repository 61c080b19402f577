#!/usr/bin/env bash
# How fast the forwarder is, against tcpreplay into a kernel vxlan device, in
# one run: a network namespace behind veth and a bridge, as a container is; each
# sender in turn, against a fresh receiver; medians as a Markdown table. Needs
# root, Go, iproute2, time; tcpreplay where it is installed. Whatever it made is
# gone afterwards.
#
# Usage: forward.sh [-n RUNS] [-l LOOPS] CAPTURE
set -euo pipefail
runs=5 loops=20
while getopts n:l: o; do case $o in n) runs=$OPTARG ;; l) loops=$OPTARG ;; *) exit 2 ;; esac; done
shift $((OPTIND - 1))
file=$(realpath "${1:?usage: forward.sh [-n RUNS] [-l LOOPS] CAPTURE}")
root=$(cd "$(dirname "$0")/../.." && pwd) tmp=$(mktemp -d) id=$(($$ % 100000))
ns=zbench$id br=zbb$id veth=zbv$id vx=zbx$id net=10.$((150 + id % 50)).$((id / 50 % 250))
cleanup() {
  ip link del "$vx" 2>/dev/null || :
  ip netns del "$ns" 2>/dev/null || :
  ip link del "$br" 2>/dev/null || :
  rm -rf "$tmp"
}
trap cleanup EXIT
(cd "$root" && CGO_ENABLED=0 go build -trimpath -o "$tmp/zeekdemo" ./cmd/zeekdemo && go build -o "$tmp/receive" ./testdata/bench/receive)
ip netns add "$ns"
ip link add "$br" type bridge
ip link set "$br" up mtu 9216
ip addr add "$net.1/24" dev "$br"
ip link add "$veth" mtu 9216 type veth peer name eth0 mtu 9216 netns "$ns"
ip link set "$veth" master "$br" up
ip -n "$ns" link set lo up
ip -n "$ns" link set eth0 up
ip -n "$ns" addr add "$net.2/24" dev eth0

one() { # NAME COMMAND...: one sender against a fresh receiver
  local name=$1 rx
  shift
  ip netns exec "$ns" "$tmp/receive" 4789 >"$tmp/rx" &
  rx=$!
  until ip netns exec "$ns" grep -q ':12B5 ' /proc/net/udp; do sleep 0.05; done
  /usr/bin/time -f '%U %S %M' -o "$tmp/time" "$@" >"$tmp/log" 2>&1 || { cat "$tmp/log" >&2; exit 1; }
  wait "$rx"
  # received, kpps, CPU microseconds per packet, peak resident MiB
  paste -d ' ' "$tmp/rx" "$tmp/time" | awk -v n="$name" -v d="$4" '{printf "%s %d %.1f %.2f %.0f\n", n, $1, $1/$3/1e3, ($5+$6)*1e6/$1, $7/1024}' >>"$tmp/all"
}

for ((i = 0; i < runs; i++)); do
  for tx in packet udp; do
    one "$tx" "$tmp/zeekdemo" replay "$file" --to "$net.2" --loop "$loops" --pace max --tx "$tx"
  done
  if command -v tcpreplay >/dev/null; then
    ip link add "$vx" type vxlan id 4242 remote "$net.2" dstport 4789 dev "$br"
    ip link set "$vx" up mtu 9100
    one tcpreplay tcpreplay --topspeed -K --loop "$loops" -i "$vx" "$file"
    ip link del "$vx"
  fi
done

echo "| sender | kpps (median of $runs) | of tcpreplay | fewest received | CPU µs per packet | peak resident MiB |"
echo "|---|---|---|---|---|---|"
sort -k1,1 "$tmp/all" | awk '
  function median(s,   a, n, i, j, t) { n = split(s, a, " "); for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (a[j] + 0 < a[i] + 0) { t = a[i]; a[i] = a[j]; a[j] = t } return a[int((n + 1) / 2)] }
  { k[$1] = k[$1] " " $3; c[$1] = c[$1] " " $4; m[$1] = ($5 > m[$1]) ? $5 : m[$1]; r[$1] = (r[$1] == "" || $2 < r[$1]) ? $2 : r[$1] }
  END { for (n in k) printf "| %s | %.0f | %s | %d | %.2f | %d |\n", n, median(k[n]), ("tcpreplay" in k) ? sprintf("%.2f", median(k[n]) / median(k["tcpreplay"])) : "-", r[n], median(c[n]), m[n] }' | sort -t'|' -k3 -nr
