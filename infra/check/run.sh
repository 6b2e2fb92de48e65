#!/usr/bin/env bash
# Checks the infrastructure without Azure, then the checks themselves and the scripts of a deployment: infra/check/run.sh
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v node >/dev/null; then
  if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "The infrastructure checks need node (18.17 or newer). Install it, with Debian: sudo apt-get install nodejs" >&2
    exit 1
  fi
  echo "Installing nodejs"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs >/dev/null
fi
if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 18 || (a == 18 && b >= 17) ? 0 : 1)'; then
  echo "The infrastructure checks need node 18.17 or newer; this is $(node --version)" >&2
  exit 1
fi

node check.mjs
output=$(mktemp)
trap 'rm -f "$output"' EXIT
node --test tests/*.test.mjs >"$output" 2>&1 || failed=yes
if [ "${failed:-}" = yes ]; then grep -E -A 20 '^ *not ok|✖' "$output" || cat "$output"; fi
echo 'Tests of the infrastructure:'
grep -E '^(#|ℹ) (tests|pass|fail|skipped) ' "$output"
[ -z "${failed:-}" ]
