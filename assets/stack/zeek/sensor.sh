# Process 1 of a sensor: one Zeek, or the nodes of a cluster.
#
#   sh -c "$(cat sensor.sh)" sensor zeek -i SOURCE local -e SCRIPT
#
# What follows the word sensor is the command line of a Zeek that reads SOURCE. With
# one worker it runs in this process's place. With more, every node of the cluster
# runs it, those that are no workers without the source; a node that dies is started
# again, and all are stopped in the order in which no log line is lost. A Zeek that
# reads a capture (-r) runs as it is.
#
# It comes as text on a command line because a container with a read-only root takes
# no copied file. It is POSIX sh, for dash and busybox.
#
#   SENSOR_WORKERS  processes that share the port (1, which is no cluster)
#   SENSOR_LOGGERS, SENSOR_PROXIES  nodes of a cluster besides (1)
#   SENSOR_PIN      CPUs of the workers, in turn, such as 2,3,4 (none: any)
#   SENSOR_ROTATE   seconds after which a log goes on in a new file (0: never)
#   SENSOR_KEEP     seconds for which a finished file is kept (0: for ever)
#   SENSOR_DISK     KiB that the files of this sensor may take (0: any)
#   SENSOR_GRACE    seconds for stopping: the container's stop_grace_period (60)
set -u

# Zeek asks nobody for names where this is set, even to nothing (fake_dns in its
# src/Options.cc), and a Compose file cannot leave a variable out.
[ -n "${ZEEK_DNS_FAKE:-}" ] || unset ZEEK_DNS_FAKE

workers=${SENSOR_WORKERS:-1} loggers=${SENSOR_LOGGERS:-1} proxies=${SENSOR_PROXIES:-1}
rotate=${SENSOR_ROTATE:-0} keep=${SENSOR_KEEP:-0} disk=${SENSOR_DISK:-0} grace=${SENSOR_GRACE:-60}
logs=$PWD nodes=${TMPDIR:-/tmp}/nodes

say() { printf 'sensor: %s\n' "$*" >&2; }

# Zeek opens its logs with O_TRUNC. What an earlier one left in a folder gets a name
# that neither its own rotation gives nor the next start.
move_aside() { # FOLDER
  now=$(date +%Y-%m-%d-%H-%M-%S)
  for log in "$1"/*.log; do
    name=${log##*/}
    name=${name%.log}
    case $name in *.*) continue ;; esac # finished
    [ -s "$log" ] || continue
    try=1
    while [ -e "$1/$name.$now-left$try.log" ]; do try=$((try + 1)); done
    mv "$log" "$1/$name.$now-left$try.log" && continue
    say "cannot move $log aside, which a Zeek would empty"
    return 1
  done
}

# Removes finished files: what is too old, and of what is too much the oldest first.
# By then they were shipped long ago, unless the collector stands still, of which an
# alert tells.
tidy() {
  if [ "$keep" -gt 0 ]; then
    find "$logs" -name '*.*.log' -mmin +"$((keep / 60))" -exec rm -f {} +
  fi
  [ "$disk" -gt 0 ] || return 0
  find "$logs" -name '*.*.log' -exec ls -tr {} + | while IFS= read -r log; do
    [ "$(du -sk "$logs" | cut -f 1)" -gt "$disk" ] || break
    say "the logs take more than $disk KiB: $log is removed"
    rm -f "$log"
  done
}

# The inodes of the workers' sockets, with their names.
worker_sockets() {
  for file in "$nodes"/worker-*.pid; do
    [ -e "$file" ] || continue
    name=${file##*/}
    { ls -l "/proc/$(cat "$file")/fd"; } 2>/dev/null | sed -n "s/.* -> socket:\[\([0-9]*\)\]\$/\1 ${name%.pid}/p"
  done
}

# Writes down what the kernel says of each worker's socket, which no Zeek sees: the
# exporter of the host reads it, and Prometheus that. Numbers of /proc/net/udp are
# hexadecimal; a socket that listens is in state 07.
tell_sockets() {
  {
    worker_sockets
    cat /proc/net/udp
  } | awk -v port="$(printf %04X "$port")" -v sensor="${logs##*/}" '
    function number(text, i, n) {
      for (i = 1; i <= length(text); i++) n = 16 * n + index("0123456789ABCDEF", substr(text, i, 1)) - 1
      return n
    }
    function tell(name, type, help, of, node) {
      printf "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type
      for (node in of) printf "%s{sensor=\"%s\",node=\"%s\"} %.0f\n", name, sensor, node, of[node]
    }
    NF == 2 { names[$1] = $2; next }
    $4 == "07" && $2 ~ ":" port "$" {
      node = ($10 in names) ? names[$10] : "zeek"
      split($5, queues, ":")
      queued[node] += number(queues[2])
      drops[node] += $13
    }
    END {
      tell("zeekdemo_socket_queued_bytes", "gauge", "Kernel memory of the datagrams that wait at the socket.", queued)
      tell("zeekdemo_socket_drops_total", "counter", "Datagrams that the kernel dropped because the socket was full.", drops)
    }' >"$logs/sockets.new" && mv "$logs/sockets.new" "$logs/sockets.prom"
}

# One Zeek in this process's place. What tidies up beside it ends with the container.
standalone() { # ZEEK ARGUMENTS...
  while :; do
    sleep 5
    tidy
    tell_sockets
  done &
  zeek=$1
  shift
  exec "$zeek" -i "$source" "$@" -e "$script
redef Telemetry::metrics_port = 9991/tcp;
redef Telemetry::metrics_address = \"0.0.0.0\";"
}

# The folder in which a node runs. Only loggers write logs.
folder() { # NODE
  case $1 in
  logger-1) echo "$logs" ;;
  logger-*) echo "$logs/$1" ;;
  *) echo "$nodes/$1" ;;
  esac
}

# The CPU of a worker, where they are pinned.
cpu() { # NODE
  case $1 in
  worker-*) echo "${SENSOR_PIN:-}" | tr , '\n' | awk -v n="${1#worker-}" '$1 != "" { cpu[i++] = $1 } END { if (i) print cpu[(n - 1) % i] }' ;;
  esac
}

# A node's Zeek in this process's place. Its script's last line tells whoever looks
# at the list of processes which node it is.
node() { # NODE ZEEK ARGUMENTS...
  node=$1 zeek=$2 on=$(cpu "$1")
  shift 2
  case $node in worker-*) set -- -i "$source" "$@" ;; esac
  cd "$(folder "$node")" && cp "$nodes/cluster-layout.zeek" . || exit 1
  export CLUSTER_NODE="$node" ZEEK_TELEMETRY_LISTEN_ADDRESS=0.0.0.0
  exec ${on:+taskset -c "$on"} "$zeek" frameworks/cluster/backend/zeromq "$@" -e "$script
redef Log::default_rotation_postprocessor_cmd = \"\";
# $node"
}

# Every line with a node's name in front.
named() { # NODE
  while IFS= read -r line || [ -n "$line" ]; do printf '%s: %s\n' "$1" "$line"; done
}

# Waits for a process, also through signals that interrupt the waiting, and sets
# code.
await() { # PID
  while :; do
    code=0
    wait "$1" || code=$?
    [ "$code" -gt 128 ] && kill -0 "$1" 2>/dev/null || return 0
  done
}

# Starts a node's Zeek in the background and sets child. Each has a pipe of its own:
# of one that was killed a child may still hold the old one.
begin() { # NODE ZEEK ARGUMENTS...
  rm -f "$nodes/$1.out"
  mkfifo "$nodes/$1.out"
  named "$1" <"$nodes/$1.out" &
  reader=$!
  node "$@" >"$nodes/$1.out" 2>&1 &
  child=$!
  echo "$child" >"$nodes/$1.pid"
  [ -z "$stopping" ] || kill -TERM "$child" # asked for while there was none yet
}

# Whether a process has ended, waited for or not.
gone() { # PID
  { read -r _ _ state _ <"/proc/$1/stat"; } 2>/dev/null || return 0
  [ "$state" = Z ]
}

# Waits for the last lines of a node that has ended, not for those of its children.
drain() { # PID OF THE READER
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    gone "$1" && return
    sleep 0.1
  done
  kill "$1" 2>/dev/null
}

# Keeps a node running until TERM. Of one that ends five times within a minute it is
# tired, and tells process 1.
keeper() { # NODE ZEEK ARGUMENTS...
  child='' stopping='' deaths=0 since=0
  trap 'stopping=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM
  while move_aside "$(folder "$1")"; do
    begin "$@"
    await "$child"
    child=''
    if [ -n "$stopping" ]; then
      drain "$reader"
      exit "$code"
    fi
    now=$(date +%s)
    [ $((now - since)) -le 60 ] || since=$now deaths=0
    deaths=$((deaths + 1))
    say "$1 ended by itself, exit code $code; what it had not finished is lost"
    [ "$deaths" -lt 5 ] || break
    sleep 1
    [ -z "$stopping" ] || exit 0
    say "$1 starts again"
  done
  say "$1 is given up"
  kill -USR1 $$
  exit 1
}

# Starts the keeper of a node.
launch() { # NODE ZEEK ARGUMENTS...
  keeper "$@" &
  echo $! >"$nodes/$1.keeper"
}

# A keeper that somebody killed gets a successor, and its node with it.
inspect() { # ZEEK ARGUMENTS...
  for file in "$nodes"/*.keeper; do
    gone "$(cat "$file")" || continue
    name=${file##*/}
    name=${name%.keeper}
    say "the keeper of $name was killed; $name starts again, and what it had not finished is lost"
    kill -KILL "$(cat "$nodes/$name.pid")" 2>/dev/null
    launch "$name" "$@"
  done
}

# Ends all nodes of a kind and waits until they have; what takes too long is killed.
end() { # KIND SECONDS
  keepers=$(cat "$nodes/$1"*.keeper 2>/dev/null) || return 0
  # shellcheck disable=SC2086 # one word each, here and below
  kill -TERM $keepers 2>/dev/null
  (
    trap 'kill $nap; exit' TERM
    sleep "$2" &
    nap=$!
    wait $nap
    say "$1: no end after $2 s, killed; what was not finished is lost"
    # shellcheck disable=SC2046,SC2086
    kill -KILL $(cat "$nodes/$1"*.pid) $keepers 2>/dev/null
  ) &
  timer=$!
  for pid in $keepers; do
    await "$pid"
    case $code in 0 | 143) ;; *) failed=1 ;; esac
  done
  kill $timer 2>/dev/null
  wait $timer
}

# Workers first, for they hold the connections; then, when what they logged has
# arrived, those who pass it on and who write it.
stop() { # EXIT CODE
  trap : TERM INT USR1
  failed=$1
  end worker $((grace / 2))
  sleep 2
  end proxy $((grace / 8))
  end logger $((grace / 8))
  end manager $((grace / 8))
  exit "$failed"
}

# Lists for Prometheus the nodes whose numbers are not on the first port.
list() { # NODE PORT, a line each
  separator='['
  while read -r who where; do
    [ "$where" != 9991 ] || continue
    printf '%s{"targets":["%s:%s"],"labels":{"sensor":"%s","node":"%s"}}' "$separator" "${logs##*/}" "$where" "${logs##*/}" "$who"
    separator=,
  done
  [ "$separator" = , ] || printf '['
  echo ']'
}

# As a whole, for it may be read at any time.
tell_prometheus() { # NODE PORT, a line each
  list >"$logs/nodes.new" && mv "$logs/nodes.new" "$logs/nodes.json"
}

names() { # KIND COUNT
  i=1
  while [ "$i" -le "$2" ]; do
    echo "$1-$i"
    i=$((i + 1))
  done
}

cluster() { # ZEEK ARGUMENTS...
  rm -rf "$nodes"
  mkdir -p "$nodes"
  zeek-cluster-layout-generator -L "$loggers" -P "$proxies" -W "$workers" -a 127.0.0.1 -m 9991 -b 0.0.0.0 \
    -o "$nodes/cluster-layout.zeek" || exit 1
  sed -n 's/^ *\["\([^"]*\)"\].*metrics_port=\([0-9]*\).*/\1 \2/p' "$nodes/cluster-layout.zeek" | tell_prometheus
  trap 'stop 0' TERM INT
  trap 'stop 1' USR1
  for name in manager $(names logger "$loggers") $(names proxy "$proxies") $(names worker "$workers"); do
    mkdir -p "$(folder "$name")"
    launch "$name" "$@"
  done
  say "$workers workers, $loggers loggers, $proxies proxies, a manager"
  while :; do
    sleep 5 &
    wait $!
    tidy
    tell_sockets
    inspect "$@"
  done
}

for word in "$@"; do
  [ "$word" != -r ] || exec "$@"
done
for number in "$workers" "$loggers" "$proxies" "$rotate" "$keep" "$disk" "$grace"; do
  case $number in '' | *[!0-9]*)
    say "\"$number\" in a variable SENSOR_… is no whole number"
    exit 2
    ;;
  esac
done

# The source and the script apart from the rest of the command line.
source='' script='' left=$#
while [ "$left" -gt 0 ]; do
  case $1 in
  -i) source=$2 && shift 2 && left=$((left - 2)) ;;
  -e) script=$2 && shift 2 && left=$((left - 2)) ;;
  *)
    set -- "$@" "$1"
    shift
    left=$((left - 1))
    ;;
  esac
done
script="$script
redef Log::default_rotation_interval = $rotate sec;"
port=${source#udp::*:} # udp::ADDRESS:PORT:ENCAPSULATION
port=${port%%:*}

for place in "$logs" "$logs"/logger-*/; do
  move_aside "${place%/}" || exit 1
done
if [ "$workers" -le 1 ]; then
  tell_prometheus </dev/null
  standalone "$@"
fi
cluster "$@"
