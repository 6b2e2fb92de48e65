#!/usr/bin/env bash
# Deploys Chatkeep with the Azure CLI alone: shows what would change, deploys it, publishes the package, tries it.
# scripts/deploy.sh [--yes] [--no-smoke]
#
# Parameters are environment variables: AZURE_ENV_NAME, AZURE_LOCATION, CHATKEEP_AUTH_AUDIENCE, and any other that
# infra/main.parameters.json names. --yes does not ask before it deploys. The try needs a user's token, in TOKEN or from
# az account get-access-token; --no-smoke leaves it out, for pipelines that run as an application.
set -euo pipefail
cd "$(dirname "$0")/.."

yes=no
smoke=yes
for argument; do
  case $argument in
  --yes) yes=yes ;;
  --no-smoke) smoke=no ;;
  *) echo "Usage: scripts/deploy.sh [--yes] [--no-smoke]" >&2; exit 2 ;;
  esac
done
for name in AZURE_ENV_NAME AZURE_LOCATION CHATKEEP_AUTH_AUDIENCE; do
  if [ -z "${!name:-}" ]; then echo "$name must be set" >&2; exit 2; fi
done
command -v az >/dev/null || { echo "The Azure CLI (az) is missing" >&2; exit 1; }
az account show --query id -o tsv >/dev/null || { echo "Sign in first: az login" >&2; exit 1; }

# Each parameter is a line: "name": { "value": "${VARIABLE=default}" }, or a value as it is.
of_line='^ *"([A-Za-z]+)": \{ "value": (.*) \},?$'
of_variable='^"\$\{([A-Z0-9_]+)(=(.*))?\}"$'
parameters=()
while IFS= read -r line; do
  [[ $line =~ $of_line ]] || continue
  name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
  if [[ $value =~ $of_variable ]]; then
    variable=${BASH_REMATCH[1]} fallback=${BASH_REMATCH[3]}
    value=${!variable:-$fallback}
  fi
  parameters+=("$name=$value")
done <infra/main.parameters.json

scripts/package.sh

deployment=chatkeep-$AZURE_ENV_NAME
template=(--name "$deployment" --location "$AZURE_LOCATION" --template-file infra/main.bicep --parameters "${parameters[@]}")
az deployment sub what-if "${template[@]}"
if [ "$yes" != yes ]; then
  read -r -p "Deploy this? [y/N] " answer || answer=
  case $answer in y | Y | yes) ;; *) echo "Nothing was deployed"; exit 1 ;; esac
fi
az deployment sub create "${template[@]}" --output none

# The service changes the case of output names.
outputs=$(az deployment sub show --name "$deployment" --query properties.outputs -o json | tr -d '\n')
output() {
  local found
  found=$(grep -io "\"$1\": *{[^}]*}" <<<"$outputs" | sed 's/.*"value": *"\([^"]*\)".*/\1/')
  if [ -z "$found" ]; then echo "The deployment has no output $1" >&2; return 1; fi
  echo "$found"
}
url=$(output API_URL)
origin=$(output ORIGIN_URL)
group=$(output AZURE_RESOURCE_GROUP)
app=$(output FUNCTION_APP_NAME)

if [ "${CHATKEEP_HOSTING:-flex}" = premium ]; then
  container=$(output PACKAGE_CONTAINER_URL)
  for attempt in 1 2 3 4 5 6 7 8 9 10; do # a new role takes minutes to be known
    if az storage blob upload --blob-url "$container/handler.zip" --file dist.zip --overwrite --auth-mode login --output none; then break; fi
    if [ "$attempt" -eq 10 ]; then echo "The package could not be uploaded" >&2; exit 1; fi
    sleep "${RETRY_SECONDS:-30}"
  done
  az functionapp restart --resource-group "$group" --name "$app" --output none
  id=$(az functionapp show --resource-group "$group" --name "$app" --query id -o tsv)
  az rest --method POST --url "$id/syncfunctiontriggers?api-version=2025-03-01" --output none
else
  az functionapp deployment source config-zip --resource-group "$group" --name "$app" --src dist.zip --output none
fi

if [ "${CHATKEEP_FRONT_DOOR_PRIVATE_LINK:-false}" = true ]; then
  pending=$(az network private-endpoint-connection list --resource-group "$group" --name "$app" --type Microsoft.Web/sites -o tsv --query \
    "[?properties.privateLinkServiceConnectionState.status=='Pending' && properties.privateLinkServiceConnectionState.description=='Chatkeep Front Door'].id")
  for connection in $pending; do
    az network private-endpoint-connection approve --id "$connection" --description 'Chatkeep Front Door' --output none
  done
fi

echo "Deployed: $url"
if [ "$smoke" = no ]; then exit 0; fi
token=${TOKEN:-$(az account get-access-token --scope "api://${CHATKEEP_AUTH_AUDIENCE%%,*}/access_as_user" --query accessToken -o tsv || true)}
if [ -z "$token" ]; then
  echo "It was not tried, for there is no token. Get one (docs/identity.md), then: ORIGIN_URL=$origin scripts/smoke.sh $url TOKEN" >&2
  exit 1
fi
TOKEN=$token ORIGIN_URL=$origin WAIT=${WAIT:-1200} scripts/smoke.sh "$url"
