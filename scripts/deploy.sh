#!/bin/sh
# Deploys Chatkeep with the Azure CLI alone: scripts/deploy.sh [--yes] [--no-smoke]. scripts/deploy/main.go says how; without a shell,
# on Windows, run: go run ./scripts/deploy
set -eu
cd "$(dirname "$0")/.."
exec go run ./scripts/deploy "$@"
