#!/usr/bin/env bash
# Runs each fuzz target of the module for FUZZTIME (30s), two at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZTIME=${FUZZTIME:-30s}

one() { # PACKAGE TARGET
  local out
  if out=$(go test -run '^$' -fuzz "^$2\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 20x -parallel 1 "$1" 2>&1); then
    printf '%s %s: ok (%s)\n' "$1" "$2" "$(grep -o 'execs: [0-9]*' <<<"$out" | tail -n 1)"
  elif grep -q '^    context deadline exceeded$' <<<"$out" && ! grep -q 'Failing input' <<<"$out"; then
    # The end of the time caught a worker between two inputs: none has failed.
    printf '%s %s: ok (time was up)\n' "$1" "$2"
  else
    printf '%s %s: FAILED\n%s\n' "$1" "$2" "$out"
    return 1
  fi
}
export -f one

grep -rhoE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' forward orchestrate cmd -H |
  sed -E 's#^(.*)/[^/]+:func (Fuzz.*)#./\1 \2#' | sort -u |
  xargs -P 2 -L 1 bash -c 'one "$@"' _
