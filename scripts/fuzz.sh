#!/usr/bin/env bash
# Runs every fuzz target below some folders for the given time: scripts/fuzz.sh 30s ./handler/...
set -euo pipefail
cd "$(dirname "$0")/.."

for package in $(go list "${@:2}"); do
  targets=$(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true)
  for target in $targets; do
    echo "Fuzzing $package $target for $1"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 10x "$package"
  done
done
