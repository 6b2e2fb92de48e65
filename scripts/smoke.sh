#!/bin/sh
# Talks to a deployed Chatkeep as a caller does, and says what works: scripts/smoke.sh URL TOKEN. Needs curl alone.
#
# URL is the public address, TOKEN an access token of a user (docs/identity.md says how to get one); TOKEN may also be in the environment.
# More is tried with, in the environment:
#   ORIGIN_URL    the app's own address, which must refuse everybody
#   OTHER_TOKEN   a token of another user, who must not find the first one's conversation
#   FRONT_DOOR    yes: the answers must have come through Front Door (true without it for *.azurefd.net and where an answer tells)
#   WAIT          seconds to wait first until the API is healthy, for a new Front Door takes minutes (0)
# It leaves one conversation behind, which expires. Exits 1 if anything failed.
set -eu

if [ $# -lt 1 ] || [ -z "${2:-${TOKEN:-}}" ]; then
  echo "Usage: scripts/smoke.sh URL TOKEN" >&2
  exit 2
fi
url=${1%/}
token=${2:-$TOKEN}
passed=0
failed=0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM

# call METHOD ADDRESS TOKEN [BODY] puts the answer's status into $status, its head and body into files. The token reaches curl by
# a file, not by its arguments, which everybody on the machine can read.
call() {
  {
    printf 'silent\nmax-time = 240\nrequest = "%s"\nurl = "%s"\n' "$1" "$2"
    printf 'output = "%s/body"\ndump-header = "%s/head"\nwrite-out = "%%{http_code}"\n' "$folder" "$folder"
    if [ "$1" = HEAD ]; then printf 'head\n'; fi
    if [ -n "$3" ]; then printf 'header = "Authorization: Bearer %s"\n' "$3"; fi
    if [ -n "${4:-}" ]; then printf 'header = "Content-Type: application/json"\ndata-binary = "@%s/request"\n' "$folder"; fi
  } >"$folder/config"
  printf '%s' "${4:-}" >"$folder/request"
  : >"$folder/body"
  : >"$folder/head"
  status=$(curl --config "$folder/config") || status=${status:-000}
}

has() { grep -Eq "$1" "$folder/body"; }
has_header() { tr -d '\r' <"$folder/head" | grep -Eiq "^$1"; }
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$folder/body"; }

# expect STATUS WHAT [CONDITION…] passes if the last answer had the status and the command succeeds.
expect() {
  wanted=$1
  what=$2
  shift 2
  if [ "$status" = "$wanted" ] && { [ $# -eq 0 ] || "$@"; }; then
    passed=$((passed + 1))
    echo "ok    $what"
    return
  fi
  failed=$((failed + 1))
  echo "FAIL  $what"
  if [ "$status" != "$wanted" ]; then
    echo "      wanted status $wanted, got $status$([ "$status" = 000 ] && echo ' (no answer)')"
  else
    echo "      the answer lacks: $*"
  fi
  tr -d '\r' <"$folder/head" | grep -Ei '^(x-request-id|x-azure-ref|www-authenticate):' | sed 's/^/      /' || true
  head -c 400 "$folder/body" | sed 's/^/      /'
  echo
}

left_out() { echo "–     $1"; }

waited=0
call GET "$url/health" ''
while [ "$status" != 200 ] && [ "$waited" -lt "${WAIT:-0}" ]; do
  if [ "$waited" -eq 0 ]; then echo "Waiting up to $WAIT seconds until $url is healthy"; fi
  sleep 10
  waited=$((waited + 10))
  call GET "$url/health" ''
done

expect 200 'health: the API reaches its store' has '"status": *"healthy"'
case $url in *.azurefd.net) front_door=yes ;; *) front_door=${FRONT_DOOR:-} ;; esac
if has_header 'x-azure-ref:'; then front_door=yes; fi
call HEAD "$url/health" ''
expect 200 'health: answers HEAD, the probe of Front Door'

call POST "$url/api/chat/start" '' '{}'
expect 401 'no token: refused, and told how to come' has_header 'www-authenticate: *bearer'
call POST "$url/api/chat/start" "${token}x" '{}'
expect 401 'a token with a broken signature: refused' has '"code": *"unauthenticated"'
call POST "$url/api/chat/start" 'not.a.token' '{}'
expect 401 'not a token: refused' has '"code": *"unauthenticated"'

call POST "$url/api/chat/start" "$token" '{"title":"Smoke test"}'
expect 201 'start: makes a conversation' has '"conversationId": *"[0-9a-f-]{36}"'
id=$(field conversationId | head -n 1)
if [ -z "$id" ]; then
  left_out 'the rest: without a conversation there is nothing to try'
  echo "$passed passed, $failed failed"
  exit 1
fi
text="smoke $(date -u +%Y-%m-%dT%H:%M:%SZ) $$"
call POST "$url/api/chat/send" "$token" "{\"conversationId\":\"$id\",\"text\":\"$text\"}"
expect 200 'send: keeps a message and answers it' has '"role": *"assistant"'
call GET "$url/api/chat/conversations/$id" "$token"
expect 200 'get: the message is there' has "$text"
expect 200 'get: the turn is complete' has '"messageCount": *[2-9]'
expect 200 'get: nobody on the way may keep the answer' has_header 'cache-control: *no-store'
expect 200 'get: the request can be found again' has_header 'x-request-id: *[^ ]'
call POST "$url/api/chat/list-conversations" "$token" '{"limit":5}'
expect 200 'list: has the conversation' has "\"$id\""

stranger=01234567-89ab-7def-8123-456789abcdef
call GET "$url/api/chat/conversations/$stranger" "$token"
expect 404 'a foreign id: get says there is none' has '"code": *"not_found"'
call POST "$url/api/chat/send" "$token" "{\"conversationId\":\"$stranger\",\"text\":\"hello\"}"
expect 404 'a foreign id: send says there is none' has '"code": *"not_found"'
if [ -n "${OTHER_TOKEN:-}" ]; then
  call GET "$url/api/chat/conversations/$id" "$OTHER_TOKEN"
  expect 404 'another user: cannot get the conversation' has '"code": *"not_found"'
  call POST "$url/api/chat/list-conversations" "$OTHER_TOKEN" '{"limit":100}'
  expect 200 'another user: does not see it in the list' sh -c "! grep -q $id '$folder/body'"
else
  left_out 'another user: no OTHER_TOKEN'
fi

if [ -n "${ORIGIN_URL:-}" ]; then
  call POST "${ORIGIN_URL%/}/api/chat/start" "$token" '{}'
  expect 403 "past Front Door: the app's own address refuses"
else
  left_out 'past Front Door: no ORIGIN_URL'
fi
if [ "$front_door" = yes ]; then
  call GET "$url/api/chat/conversations/$id" "$token"
  expect 200 'Front Door: names the request' has_header 'x-azure-ref:'
  expect 200 'Front Door: insists on HTTPS' has_header 'strict-transport-security: *max-age=[1-9]'
  expect 200 'Front Door: did not answer from a cache' sh -c "! tr -d '\r' <'$folder/head' | grep -Eiq '^x-cache: *(TCP_HIT|TCP_REMOTE_HIT|PRIVATE_HIT)'"
  case $url in
  https://*)
    call GET "http://${url#https://}/health" ''
    case $status in 30[1278]) status=redirect ;; esac
    expect redirect 'Front Door: sends HTTP to HTTPS' has_header 'location: *https://'
    ;;
  esac
else
  left_out 'Front Door: the answers did not come through it'
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
