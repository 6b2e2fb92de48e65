#!/usr/bin/env bash
# Stages dist/, the folder that Azure Functions runs, and packs dist.zip: host.json, the static binary handler, and a folder for each
# function. Equal sources give equal bytes. DIST names another folder, VERSION another version.
set -euo pipefail
cd "$(dirname "$0")/.."

dist=${DIST:-dist}
version=${VERSION:-$(git describe --always --dirty 2>/dev/null || echo dev)}

rm -rf "$dist" "$dist.zip"
mkdir -p "$dist"
CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -buildvcs=false \
  -ldflags "-s -w -X main.version=$version" -o "$dist/handler" ./handler
cp host.json "$dist/"
cp -R functions/. "$dist/"
go run ./scripts/zip "$dist" "$dist.zip"
echo "Packaged version $version in $dist and $dist.zip ($(du -h "$dist.zip" | cut -f1))"
