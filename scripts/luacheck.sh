#!/usr/bin/env bash
# Reads the scripts of Redis as they are sent: each after the prelude. Assembled they are in .local/lua, where the printed lines are.
set -euo pipefail
cd "$(dirname "$0")/.."

sources=handler/store
out=.local/lua
prelude=$sources/prelude.lua
[ -e "$prelude" ] || prelude=$sources/conversation.lua
rm -rf "$out"
mkdir -p "$out"
# A script need not use all of the prelude, so the prelude is read once, with a use in any script.
cp "$prelude" "$out/prelude.lua"
for script in "$sources"/*.lua; do
  if [ "$script" = "$prelude" ]; then continue; fi
  { echo '-- luacheck: push ignore'; cat "$prelude"; echo '-- luacheck: pop'; cat "$script"; } >"$out/$(basename "$script")"
  { printf -- '-- luacheck: push ignore\ndo local function script()\n'; cat "$script"; printf 'end script() end\n-- luacheck: pop\n'; } >>"$out/prelude.lua"
done
luacheck --quiet "$out"/*.lua
