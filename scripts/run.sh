#!/usr/bin/env bash
# Serves Chatkeep on this machine with a local issuer, and prints how to talk to it. Ctrl-C ends both.
# Conversations are kept in memory, or in the Redis that REDIS_URL names.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .local
echo "Building (the first time takes a minute)"
go build -o .local/ ./handler ./scripts/devissuer

cleanup() { trap - EXIT; kill "${issuer:-}" "${handler:-}" 2>/dev/null || true; wait; }
trap cleanup EXIT
trap 'exit 0' INT TERM

token=$(.local/devissuer token -user alice) # makes the key, when there is none
.local/devissuer serve >/dev/null & issuer=$!
export AUTH_ISSUER=http://127.0.0.1:7072 AUTH_JWKS_URL=http://127.0.0.1:7072/keys
export AUTH_AUDIENCE=11111111-2222-3333-4444-555555555555
if [ -z "${REDIS_URL:-}${REDIS_HOSTNAME:-}" ]; then export STORE=memory; fi
unset FUNCTIONS_CUSTOMHANDLER_PORT
.local/handler & handler=$!

for _ in $(seq 100); do
  if ! kill -0 "$handler" 2>/dev/null || ! kill -0 "$issuer" 2>/dev/null; then
    echo "Chatkeep did not start; the reason is above. Ports 8080 and 7072 must be free." >&2
    exit 1
  fi
  if (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null; then break; fi
  sleep 0.1
done
cat <<TEXT

Chatkeep serves http://127.0.0.1:8080 (Ctrl-C ends it). In another terminal, as alice:

TOKEN=$token

ID=\$(curl -s -X POST http://127.0.0.1:8080/api/chat/start -H "Authorization: Bearer \$TOKEN" | cut -d'"' -f4); echo \$ID
curl -s http://127.0.0.1:8080/api/chat/send -H "Authorization: Bearer \$TOKEN" -H 'Content-Type: application/json' -d '{"conversationId":"'\$ID'","text":"Hello"}'
curl -s http://127.0.0.1:8080/api/chat/conversations/\$ID -H "Authorization: Bearer \$TOKEN"

Another user: TOKEN=\$(.local/devissuer token -user bob)
TEXT
wait "$handler"
