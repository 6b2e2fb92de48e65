#!/usr/bin/env bash
# Registers the API in Entra: scripts/register-api.sh [NAME] (chatkeep-api). Needs the Azure CLI, signed in as somebody who may
# register applications. Run again it finds what is there and changes only what is missing.
#
# ALLOW_CLI=yes lets the Azure CLI ask for tokens of this API, for tests by hand: not for production.
set -euo pipefail

name=${1:-chatkeep-api}
graph=https://graph.microsoft.com/v1.0/applications
azure_cli=04b07795-8ddb-461a-bbee-02f9e1bf7b46

command -v az >/dev/null || { echo "The Azure CLI (az) is missing" >&2; exit 1; }
case $name in *\'*) echo "The name must not have a quote in it" >&2; exit 2 ;; esac

# --display-name finds every name that begins so.
api=$(az ad app list --display-name "$name" --query "[?displayName=='$name'].appId" -o tsv)
if [ "$(grep -c . <<<"$api")" -gt 1 ]; then
  echo "There are several registrations named $name; delete all but one, or choose another name:" >&2
  echo "$api" >&2
  exit 1
fi
if [ -z "$api" ]; then
  api=$(az ad app create --display-name "$name" --sign-in-audience AzureADMyOrg --query appId -o tsv)
  echo "Registered $name"
fi
object=$(az ad app show --id "$api" --query id -o tsv)

show() { az ad app show --id "$api" --query "$1" -o "${2:-tsv}"; }

# patch changes the registration. One that was made just now may not be known everywhere yet.
patch() {
  for attempt in 1 2 3 4 5 6; do
    if az rest --method PATCH --url "$graph/$object" --headers Content-Type=application/json --body "$1"; then return; fi
    [ "$attempt" -eq 6 ] || sleep "${RETRY_SECONDS:-5}"
  done
  return 1
}

# plus prints a JSON list with one element more.
plus() {
  case $1 in '' | null | '[]') echo "[$2]" ;; *) echo "${1%]*}, $2]" ;; esac
}

# Only version 2 tokens have the client id alone as their audience.
if [ "$(show api.requestedAccessTokenVersion)" != 2 ]; then
  patch '{"api": {"requestedAccessTokenVersion": 2}}'
  echo "Set the version of access tokens to 2"
fi
if [ -z "$(show "identifierUris[?@=='api://$api'] | [0]")" ]; then
  patch "{\"identifierUris\": $(plus "$(show identifierUris json)" "\"api://$api\"")}"
  echo "Added the identifier api://$api"
fi
scope=$(show "api.oauth2PermissionScopes[?value=='access_as_user'].id | [0]")
if [ -z "$scope" ]; then
  scope=$(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen | tr '[:upper:]' '[:lower:]')
  patch "{\"api\": {\"oauth2PermissionScopes\": $(plus "$(show api.oauth2PermissionScopes json)" "{
    \"id\": \"$scope\", \"value\": \"access_as_user\", \"type\": \"User\", \"isEnabled\": true,
    \"adminConsentDisplayName\": \"Chat as the user\", \"adminConsentDescription\": \"Chat as the signed-in user\",
    \"userConsentDisplayName\": \"Chat as you\", \"userConsentDescription\": \"Chat as you\"}")}}"
  echo "Added the scope access_as_user"
fi
# Tells tokens of applications from tokens of people.
if [ -z "$(show "optionalClaims.accessToken[?name=='idtyp'].name | [0]")" ]; then
  patch "{\"optionalClaims\": {\"accessToken\": $(plus "$(show optionalClaims.accessToken json)" '{"name": "idtyp", "essential": false}')}}"
  echo "Added the claim idtyp"
fi
if [ "${ALLOW_CLI:-}" = yes ] && [ -z "$(show "api.preAuthorizedApplications[?appId=='$azure_cli'].appId | [0]")" ]; then
  patch "{\"api\": {\"preAuthorizedApplications\": $(plus "$(show api.preAuthorizedApplications json)" \
    "{\"appId\": \"$azure_cli\", \"delegatedPermissionIds\": [\"$scope\"]}")}}"
  echo "Let the Azure CLI ask for tokens"
fi
if ! az ad sp show --id "$api" --query id -o tsv >/dev/null 2>&1; then
  az ad sp create --id "$api" --query id -o tsv >/dev/null
  echo "Added the service principal"
fi

cat <<TEXT

$name is registered in tenant $(az account show --query tenantId -o tsv). Its client id, the audience of its tokens:

$api

For azd:      azd env set CHATKEEP_AUTH_AUDIENCE $api
For az:       export CHATKEEP_AUTH_AUDIENCE=$api
A front end is a registration of its own, with the delegated permission api://$api/access_as_user.
TEXT
