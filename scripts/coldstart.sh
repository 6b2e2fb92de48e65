#!/usr/bin/env bash
# Prints how long the packaged program takes from its start to its first answer of GET /, as the best and median of 20 starts.
set -euo pipefail
cd "$(dirname "$0")/.."
go run ./scripts/coldstart dist/handler
