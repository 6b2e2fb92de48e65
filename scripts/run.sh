#!/usr/bin/env bash
# Serves Chatkeep on this machine with a local issuer and the playground, and prints how to talk to it. Ctrl-C ends both.
# Conversations are kept in memory, or in the Redis that REDIS_URL names, or with REDIS=1 in a private one, which keeps them until the next
# time. PORT (8080), HOST (127.0.0.1) and ISSUER_PORT (7072) say where they listen, LOCAL_FOLDER (.local) where they keep things.
set -euo pipefail
cd "$(dirname "$0")/.."

export PORT=${PORT:-8080} HOST=${HOST:-127.0.0.1}
issuer_port=${ISSUER_PORT:-7072}
case $HOST in
0.0.0.0) reached=127.0.0.1 ;;
::) reached=::1 ;;
*) reached=$HOST ;;
esac
case $reached in
*:*) url=http://[$reached]:$PORT ;;
*) url=http://$reached:$PORT ;;
esac

listens() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

# free says when another program has a port: free HOST PORT VARIABLE.
free() {
  if listens "$1" "$2"; then
    echo "Port $2 is taken: end what listens there, or choose another, such as $3=$(($2 + 1)) make run" >&2
    exit 1
  fi
}
free "$reached" "$PORT" PORT
free 127.0.0.1 "$issuer_port" ISSUER_PORT

if [ -n "${REDIS:-}" ]; then
  if [ -n "${REDIS_URL:-}${REDIS_HOSTNAME:-}" ]; then
    echo "REDIS starts a private Redis, and REDIS_URL or REDIS_HOSTNAME names another: leave one out." >&2
    exit 1
  fi
  if ! command -v redis-server >/dev/null || ! command -v redis-cli >/dev/null; then
    echo "REDIS=1 needs redis-server and redis-cli. Install them (sudo apt-get install redis-server, or brew install redis), or leave REDIS out" >&2
    echo "to keep conversations in memory." >&2
    exit 1
  fi
fi

local=${LOCAL_FOLDER:-.local}
mkdir -p "$local"
local=$(cd "$local" && pwd)
echo "Building (the first time takes a minute)"
go build -tags playground -o "$local/" ./handler ./scripts/devissuer

cleanup() {
  trap - EXIT
  trap '' INT TERM HUP # a second Ctrl-C leaves nothing behind
  kill "${issuer:-}" "${handler:-}" 2>/dev/null || true
  wait
  if [ -n "${sockets:-}" ]; then
    redis-cli -s "$sockets/redis" shutdown >/dev/null 2>&1 || true
    rm -rf "$sockets"
  fi
}
trap cleanup EXIT
trap 'exit 0' INT TERM HUP

# answers says whether a Redis listens at a socket: answers SOCKET.
answers() { [ "$(redis-cli -s "$1" ping 2>/dev/null)" = PONG ]; }

# A private Redis listens at a socket alone, in a folder that is ours. It is a daemon, so that the playground can start it, too.
if [ -n "${REDIS:-}" ]; then
  mkdir -p "$local/redis"
  before=$(sed -n 's/^unixsocket "\(.*\)"$/\1/p' "$local/redis.conf" 2>/dev/null || true)
  if [ -n "$before" ] && answers "$before"; then # two would write the same files
    echo "Another make run keeps conversations in $local/redis. End it, or, if there is none, what it left: redis-cli -s $before shutdown" >&2
    exit 1
  fi
  sockets=$(mktemp -d)
  cat >"$local/redis.conf" <<TEXT
port 0
unixsocket "$sockets/redis"
unixsocketperm 700
dir "$local/redis"
logfile "$local/redis/log"
daemonize yes
appendonly yes
maxmemory-policy noeviction
TEXT
  redis-server "$local/redis.conf"
  for _ in $(seq 100); do
    if answers "$sockets/redis"; then break; fi
    sleep 0.1
  done
  if ! answers "$sockets/redis"; then
    echo "Redis did not start; $local/redis/log says why." >&2
    exit 1
  fi
  export REDIS_URL=unix://$sockets/redis PLAYGROUND_REDIS=$local/redis.conf
fi

export AGENT_ECHO_DELAY=${AGENT_ECHO_DELAY:-80ms} # so that an echo can be watched

export AUTH_ISSUER=http://127.0.0.1:$issuer_port AUTH_JWKS_URL=http://127.0.0.1:$issuer_port/keys
export AUTH_AUDIENCE=11111111-2222-3333-4444-555555555555
# started waits until a program that was started listens: started PID HOST PORT.
started() {
  for _ in $(seq 100); do
    if ! kill -0 "$1" 2>/dev/null; then
      echo "Chatkeep did not start; the reason is above." >&2
      exit 1
    fi
    if listens "$2" "$3"; then break; fi
    sleep 0.1
  done
}

token=$("$local/devissuer" token -dir "$local" -issuer "$AUTH_ISSUER" -user alice) # makes the key, when there is none
"$local/devissuer" serve -dir "$local" -addr "127.0.0.1:$issuer_port" -issuer "$AUTH_ISSUER" >/dev/null & issuer=$!
started "$issuer" 127.0.0.1 "$issuer_port"
if [ -z "${REDIS_URL:-}${REDIS_HOSTNAME:-}" ]; then export STORE=memory; fi
unset AUTH_TENANT_ID ALLOWED_TENANT_IDS FUNCTIONS_CUSTOMHANDLER_PORT
"$local/handler" & handler=$!
started "$handler" "$reached" "$PORT"

issue="${LOCAL_FOLDER:-.local}/devissuer token${LOCAL_FOLDER:+ -dir $LOCAL_FOLDER}${ISSUER_PORT:+ -issuer $AUTH_ISSUER}"
cat <<TEXT

Chatkeep serves $url (Ctrl-C ends it). Try it in a browser: $url/playground/

In another terminal, as alice:

TOKEN=$token

ID=\$(curl -s -X POST $url/api/chat/start -H "Authorization: Bearer \$TOKEN" | cut -d'"' -f4); echo \$ID
curl -s $url/api/chat/send -H "Authorization: Bearer \$TOKEN" -H 'Content-Type: application/json' -d '{"conversationId":"'\$ID'","text":"Hello"}'
curl -s $url/api/chat/conversations/\$ID -H "Authorization: Bearer \$TOKEN"

Another user: TOKEN=\$($issue -user bob)
TEXT
wait "$handler"
