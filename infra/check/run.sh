#!/usr/bin/env bash
# Checks the infrastructure without Azure, then the checks themselves: infra/check/run.sh. The network is used for npm ci alone.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "The infrastructure checks need node (18.17 or newer) and npm. Install them, with Debian: sudo apt-get install nodejs npm" >&2
    exit 1
  fi
  echo "Installing nodejs and npm"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
fi
if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 18 || (a == 18 && b >= 17) ? 0 : 1)'; then
  echo "The infrastructure checks need node 18.17 or newer; this is $(node --version)" >&2
  exit 1
fi
# The grammar's package would compile a native module that is not needed: its WebAssembly is used.
if ! cmp -s package-lock.json node_modules/.installed; then
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.installed
fi

node check.mjs
node --test tests/check.test.mjs tests/deployments.test.mjs tests/scripts.test.mjs >node_modules/.tests 2>&1 || failed=yes
if [ "${failed:-}" = yes ]; then grep -E -A 20 '^ *not ok|✖' node_modules/.tests || cat node_modules/.tests; fi
grep -E '^(#|ℹ) (tests|pass|fail|skipped) ' node_modules/.tests
[ -z "${failed:-}" ]
