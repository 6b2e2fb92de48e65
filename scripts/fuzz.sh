#!/usr/bin/env bash
# Runs every fuzz target below some folders for the given time, one on each processor: scripts/fuzz.sh 30s ./handler/...
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=$(go env GOCACHE)/fuzz
go list -f '{{.Dir}} {{.ImportPath}}' "${@:2}" | while read -r folder package; do
  targets=$(grep -ohs '^func Fuzz[A-Za-z0-9_]*' "$folder"/*_test.go | cut -d' ' -f2 || true)
  [ -n "$targets" ] || continue
  binary=$work/${package//\//_}
  go test -c -fuzz . -o "$binary" "$package"
  for target in $targets; do echo "$folder $binary $target $cache/$package"; done
done >"$work/targets"

# fuzz runs a target, in its folder, where a failing input is written, and then tells all of it at once.
fuzz() {
  local said
  cd "$2"
  if ! said=$("$3" -test.run '^$' -test.fuzz "^$4\$" -test.fuzztime "$1" -test.fuzzcachedir "$5" -test.fuzzminimizetime 10x -test.parallel 1 2>&1); then
    # Go 1.26 may take the end of the time for a failure (go.dev/issue/75804). A real one leaves its input behind.
    if ! grep -q '^ *context deadline exceeded$' <<<"$said" || grep -q 'Failing input written' <<<"$said"; then
      printf '%s\nFAIL: %s in %s\n' "$said" "$4" "$2"
      return 1
    fi
  fi
  echo "$4 for $1: $(grep '^fuzz: elapsed' <<<"$said" | tail -1)"
}
export -f fuzz
xargs -P "$(getconf _NPROCESSORS_ONLN)" -L 1 bash -c 'fuzz "$@"' fuzz "$1" <"$work/targets"
