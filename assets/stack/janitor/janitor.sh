# Keeps Loki's store within its share of the disk, which Loki cannot by itself, and
# writes down how large every store is: `zeekdemo status` shows it.
#
#   sh -c "$(cat janitor.sh)" janitor
#
# Loki deletes by age (limits_config.retention_period, its compactor). When its store
# has taken nine tenths of its share, the janitor lowers that age, in the file of
# limits which Loki reads again every ten seconds, so far that what is older takes at
# least what is too much; when three fifths are not exceeded, all of it is kept again.
# Loki deletes some twenty minutes later. For what comes meanwhile the tenth is there;
# if it is used up, Loki refuses lines until there is room: the collector waits, and
# the files of Zeek are the buffer.
#
# POSIX sh, for dash and busybox; it needs no network and no privilege, only Loki's
# user.
#
#   JANITOR_KEEP        seconds for which lines are kept
#   JANITOR_LOKI_DISK   KiB which Loki's store may take (0: any)
#   JANITOR_LOG_DISK    KiB which a sensor's files may take (0: any), for the account
#   JANITOR_PROMETHEUS_DISK  bytes which Prometheus' store may take, for the account
#   JANITOR_LOG_KEEP    seconds for which a sensor keeps its files, for the account
#   JANITOR_STATE_DISK  KiB which the positions of the collector may take, for the account
#   JANITOR_EVERY       seconds between two looks (20)
#   JANITOR_ROOT        before /loki, /logs, /prometheus and /state (none)
set -u

#   JANITOR_LOG_KEEP    seconds for which a sensor keeps its files, for the account
#   JANITOR_STATE_DISK  KiB which the positions of the collector may take, for the account
keep=${JANITOR_KEEP:-0} share=${JANITOR_LOKI_DISK:-0} every=${JANITOR_EVERY:-20}
root=${JANITOR_ROOT:-} account=${TMPDIR:-/tmp}/stores
limits=$root/loki/limits.yaml
least=1200 # seconds: what Loki has not yet written to its store, it cannot delete

say() { printf 'janitor: %s\n' "$*" >&2; }

size() { # FOLDER: KiB
  du -sk "$1" 2>/dev/null | cut -f 1
}

# Times and sizes of files, the oldest first: seconds since 1970, blocks of 512 bytes.
ages() { # FOLDER PATTERN
  find "$1" -type f -name "$2" -exec stat -c '%Y %b' {} + 2>/dev/null | sort -n
}

oldest() { # FOLDER PATTERN: seconds since 1970; - without such a file
  ages "$1" "$2" | awk 'NR == 1 { print $1; found = 1 } END { if (!found) print "-" }'
}

# How old Loki's lines may get so that KIB go.
window() { # KIB
  ages "$root/loki/chunks/fake" '*' | awk -v want="$1" -v now="$(date +%s)" -v least="$least" -v keep="$keep" '
    { sum += $2 / 2; last = $1; if (sum >= want) exit }
    END {
      age = (NR ? now - last : keep)
      print (age < least ? least : age > keep ? keep : age)
    }'
}

# What Loki is told. A write that fails leaves the file of before.
tell() { # AGE BLOCKED
  {
    echo "overrides:"
    echo "  fake:" # as Loki calls everybody without auth_enabled
    echo "    retention_period: ${1}s"
    if [ -n "$2" ]; then
      echo "    block_ingestion_until: 2100-01-01T00:00:00Z"
      echo "    block_ingestion_status_code: 429"
    fi
  } >"$limits.new" && { cmp -s "$limits.new" "$limits" || mv "$limits.new" "$limits"; }
  rm -f "$limits.new"
}

# Compares the store with its share and decides; sets age and blocked.
decide() {
  used=$(size "$root/loki")
  [ "$share" -gt 0 ] && [ -n "$used" ] || return 0
  if [ "$used" -gt $((share / 10 * 9)) ]; then
    wanted=$(window $((used - share / 10 * 8)))
    [ "$wanted" -ge "$age" ] || say "Loki's store takes $used of $share KiB: lines older than $wanted s go"
    [ "$wanted" -ge "$age" ] || age=$wanted
  elif [ "$used" -lt $((share / 10 * 6)) ] && [ "$age" -lt "$keep" ]; then
    age=$keep
    say "Loki's store takes $used of $share KiB: lines are kept for $keep s again"
  fi
  if [ "$used" -ge "$share" ] && [ -z "$blocked" ]; then
    blocked=yes
    say "Loki's store takes $used KiB, its share is $share: it refuses lines until there is room"
  elif [ "$used" -lt $((share / 20 * 19)) ] && [ -n "$blocked" ]; then
    blocked=
    say "Loki's store takes $used of $share KiB: it takes lines again"
  fi
}

# One line a store: name, KiB, KiB at most (0: any), oldest, seconds kept, state.
write_account() {
  {
    echo "loki $(size "$root/loki") $share $(oldest "$root/loki/chunks/fake" '*') $age ${blocked:+refuses}"
    echo "prometheus $(size "$root/prometheus") $((${JANITOR_PROMETHEUS_DISK:-0} / 1024)) $(oldest "$root/prometheus" meta.json) $keep"
    for folder in "$root"/logs/*/; do
      [ -d "$folder" ] || continue
      name=$(basename "$folder")
      echo "$name $(size "$folder") ${JANITOR_LOG_DISK:-0} $(oldest "$folder" '*.log') ${JANITOR_LOG_KEEP:-0}"
    done
    echo "collector $(size "$root/state") ${JANITOR_STATE_DISK:-0} - 0"
    echo "at $(date +%s)"
  } >"$account.new" && mv "$account.new" "$account"
}

age=$keep blocked=''
while :; do
  decide
  tell "$age" "$blocked"
  write_account
  [ "$every" -gt 0 ] || exit 0
  sleep "$every"
done
