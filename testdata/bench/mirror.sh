#!/usr/bin/env bash
# How much a mirror keeps up with: its two ways against `tcpdump -w /dev/null` as
# the floor, on one interface that a packet-socket generator floods from another
# network namespace. Each way in turn at each rate: what was lost, and what all
# processes took together (interrupts are served in theirs), as a Markdown table.
# Needs root, Go, iproute2, tcpdump, time, and a machine that does nothing else.
# Whatever it made is gone afterwards.
#
# Usage: mirror.sh [-n RUNS] [-p PACKETS] CAPTURE
set -euo pipefail
runs=3 packets=400000
while getopts n:p: o; do case $o in n) runs=$OPTARG ;; p) packets=$OPTARG ;; *) exit 2 ;; esac; done
shift $((OPTIND - 1))
file=$(realpath "${1:?usage: mirror.sh [-n RUNS] [-p PACKETS] CAPTURE}")
root=$(cd "$(dirname "$0")/../.." && pwd) tmp=$(mktemp -d) id=$(($$ % 100000))
gen=zmg$id tap=zmt$id mon=zmm$id
cleanup() {
  kill $(jobs -p) 2>/dev/null || :
  for ns in $gen $tap $mon; do ip netns del "$ns" 2>/dev/null || :; done
  rm -rf "$tmp"
}
trap cleanup EXIT
(cd "$root" && CGO_ENABLED=0 go build -trimpath -o "$tmp/zeekdemo" ./cmd/zeekdemo && go build -o "$tmp/" ./testdata/bench/receive ./testdata/bench/flood)
for ns in $gen $tap $mon; do
  ip netns add "$ns"
  ip netns exec "$ns" sh -c 'for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$f; done'
  ip -n "$ns" link set lo up
done
ip -n "$gen" link add eth0 type veth peer name eth0 netns "$tap"
ip -n "$tap" link add mon0 mtu 9216 type veth peer name eth0 mtu 9216 netns "$mon"
for ns in $gen $tap $mon; do ip -n "$ns" link set eth0 up; done
ip -n "$tap" link set mon0 up
ip -n "$tap" addr add 10.79.0.1/24 dev mon0
ip -n "$mon" addr add 10.79.0.2/24 dev eth0
timed() { # NAMESPACE NAME COMMAND...: the command in place of this shell; what it takes goes to a file
  exec /usr/bin/time -q -f '%U %S' -o "$tmp/cpu.$2" ip netns exec "$1" "${@:3}"
}
interrupt() { # PID of a timed command: time itself ignores it
  pkill -INT -P "$1" || :
  wait "$1" || :
}

one() { # WAY PPS: one run; appends "way pps-asked kpps lost cpu-seconds-per-million"
  local way=$1 pps=$2 pid='' rx='' sent kpps lost behind=0
  rm -f "$tmp"/cpu.* "$tmp/log" "$tmp/rx"
  case $way in
  nothing) ;;
  tcpdump) (timed "$tap" tap tcpdump -i eth0 -Z root -s 0 -w /dev/null 2>"$tmp/log") & pid=$! ;;
  *)
    (timed "$mon" mon "$tmp/receive" 4789 >"$tmp/rx") & rx=$!
    until ip netns exec "$mon" grep -q ':12B5 ' /proc/net/udp; do sleep 0.05; done
    (timed "$tap" tap "$tmp/zeekdemo" mirror eth0 --how "$way" --to 10.79.0.2 --json >"$tmp/doc" 2>"$tmp/log") & pid=$!
    ;;
  esac
  [ -z "$pid" ] || until grep -qsE '^Run |listening' "$tmp/log"; do sleep 0.05; done
  read -r sent _ kpps < <(timed "$gen" gen "$tmp/flood" eth0 "$file" "$packets" "$pps")
  if [ -n "$rx" ]; then wait "$rx"; else sleep 0.3; fi
  [ -z "$pid" ] || interrupt "$pid"
  case $way in
  nothing) lost=0 ;;
  tcpdump) lost=$(awk '/dropped by (kernel|interface)/ { n += $1 } END { print n + 0 }' "$tmp/log") ;;
  forwarder) # what found no room in the ring, was left in it, or could not be sent
    lost=$(awk -F'[:,]' '/"(dropped|abandoned|datagrams_unsent)":/ { n += $2 } END { print n + 0 }' "$tmp/doc") ;;
  kernel) # what did not leave the tunnel
    lost=$(awk -v sent="$sent" -F'[:,]' '/"datagrams_sent":/ { print sent - $2 }' "$tmp/doc") ;;
  esac
  [ ! -s "$tmp/rx" ] || behind=$((sent - lost - $(cut -d' ' -f1 "$tmp/rx")))
  echo "$way $pps $kpps $lost $(awk -v n="$sent" '{ t += $1 + $2 } END { printf "%.2f", t / n * 1e6 }' "$tmp"/cpu.*) $behind" >>"$tmp/all"
}

one nothing 0
top=$(awk '{ print int($3 * 1000) }' "$tmp/all")
for ((i = 0; i < runs; i++)); do
  one nothing 0
  for part in 0 80 60 50 40 30; do
    for way in tcpdump forwarder kernel; do one $way $((top * part / 100)); done
  done
done
echo "The generator alone: $((top / 1000)) kpps; $packets frames a run, medians of $runs. A cell is the share lost, at the kpps that the generator reached, and behind a +"
echo "what the receiver, on the same processors, lost of what was sent to it."
echo
awk -v top="$top" '
  function median(s,   a, n, i, j, t) { n = split(s, a, " "); for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (a[j] + 0 < a[i] + 0) { t = a[i]; a[i] = a[j]; a[j] = t } return a[int((n + 1) / 2)] }
  function percent(n) { return n == 0 ? "0" : sprintf("%.2f %%", n / '"$packets"' * 100) }
  $1 == "nothing" { alone = alone " " $5; next }
  { key = $1 " " $2; lost[key] = lost[key] " " $4; speed[key] = speed[key] " " $3; behind[key] = behind[key] " " $6; if (!($2 in known)) { known[$2] = 1; rates[++r] = $2 } }
  $2 == 0 { cpu[$1] = cpu[$1] " " $5 } # below, the generator waits actively
  END {
    n = split("tcpdump forwarder kernel", ways, " ")
    print "| rate asked, kpps | tcpdump | forwarder | kernel |"
    print "|---|---|---|---|"
    for (i = 1; i <= r; i++) {
      printf "| %s |", rates[i] ? sprintf("%.0f", rates[i] / 1000) : "as fast as it goes"
      for (w = 1; w <= n; w++) {
        key = ways[w] " " rates[i]
        printf " %s at %.0f", percent(median(lost[key])), median(speed[key])
        if (median(behind[key]) > 0) printf " + %s", percent(median(behind[key]))
        printf " |"
      }
      print ""
    }
    printf "| CPU seconds per million packets as fast as it goes, less the generator alone |"
    for (w = 1; w <= n; w++) printf " %.2f |", median(cpu[ways[w]]) - median(alone)
    print ""
  }' "$tmp/all"
[ -z "${KEEP:-}" ] || cp "$tmp/all" "$KEEP"
