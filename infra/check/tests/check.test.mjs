// Every check and every rule finds what is wrong in a copy of the project with one fault.

import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { checks } from '../check.mjs'
import { Compiler, find } from '../compiler.mjs'
import { compile, expand, load } from '../project.mjs'
import { rules } from '../rules.mjs'
import { publishedTypes } from '../values.mjs'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const compiler = new Compiler(find(root))
const copy = mkdtempSync(join(tmpdir(), 'infra-'))
for (const name of ['infra', 'functions', 'azure.yaml', 'host.json', 'local.settings.json.example', 'README.md', 'docs/deploy.md']) {
  cpSync(join(root, name), join(copy, name), { recursive: true, filter: source => !/infra\/check/.test(source) })
}
const types = publishedTypes(root)
const original = load(copy, await compile(compiler, copy), types)
after(() => {
  compiler.stop()
  rmSync(copy, { recursive: true })
})

// withFault changes one text in one file of the copy, and returns the project with and without that fault, seen in the template, in
// one deployment, in both (the smallest) or in all deployments.
async function withFault(path, from, to, seen) {
  const file = join(copy, path)
  const text = readFileSync(file, 'utf8')
  assert.ok(text.includes(from), `${path} must have ${from}, or this test tests nothing`)
  const names = { [all]: undefined, [both]: ['small'], [template]: [] }
  const wanted = seen in names ? names[seen] : [seen]
  const good = { ...original, deployments: original.deployments.filter(({ name }) => wanted?.includes(name) ?? true) }
  writeFileSync(file, text.replace(from, to))
  try {
    if (!path.endsWith('.bicep')) {
      return { good, faulty: load(copy, good, types) }
    }
    const compiled = seen in names ? await compile(compiler, copy, wanted) : { ...good, deployments: await expand(compiler, copy, wanted) }
    return { good, faulty: load(copy, compiled, types) }
  } finally {
    writeFileSync(file, text)
  }
}

const all = 'every deployment'
const both = 'the template and the smallest deployment'
const template = 'the template'

const main = 'infra/main.bicep'
const app = 'infra/modules/function-app.bicep'
const profile = 'infra/modules/front-door-profile.bicep'
const routes = 'infra/modules/front-door-routes.bicep'
const managed = 'infra/modules/redis-managed.bicep'
const cache = 'infra/modules/redis-cache.bicep'
const storage = 'infra/modules/storage.bicep'
const network = 'infra/modules/network.bicep'
const monitoring = 'infra/modules/monitoring.bicep'
const alerts = 'infra/modules/alerts.bicep'
const parameters = 'infra/main.parameters.json'

// check, file, text, text with a fault, what is found
const faultsOfChecks = [
  ['compiler', main, 'param location string', 'param location string = = 1', /main\.bicep:\d+: BCP009/, template],
  ['compiler', main, 'scope: group\n', 'scope: grupp\n', /BCP057.*grupp/, template],
  ['compiler', main, 'toLower(uniqueString', 'toLowr(uniqueString', /BCP0\d\d.*toLowr/, template],
  ['compiler', app, 'httpsOnly: true\n', 'httpsOnly: true\n    httpsOnly: false\n', /function-app\.bicep:\d+: BCP025.*httpsOnly/, template],
  ['compiler', main, 'var groupName', "var suffix = 'x'\nvar groupName", /BCP028.*suffix/, template],
  ['compiler', cache, 'tags: tags\n', '', /no-unused-params.*tags/, template],
  ['compiler', main, 'var groupName', 'var idle = 1\nvar groupName', /no-unused-vars.*idle/, template],
  ['compiler', main, 'private: vnetEnabled', 'privately: vnetEnabled', /BCP035.*private/, template],
  ['compiler', main, 'private: vnetEnabled', 'private: vnetEnabled\n    color: 1', /BCP037.*color/, template],
  ['compiler', main, "groupId: 'blob'", 'groupId: 7', /BCP036.*groupId/, template],
  ['compiler', main, 'highAvailability: redisHighAvailability', "highAvailability: 'Perhaps'", /BCP036.*Enabled/, template],
  ['compiler', main, 'storage.outputs.name', 'storage.outputs.nam', /BCP\d+.*"nam"/, template],
  ['compiler', main, 'modules/workbook.bicep', 'modules/wrokbook.bicep', /BCP091.*wrokbook/, template],
  ['compiler', app, 'serverFarmId: plan.id', 'serverFarmID: plan.id', /BCP089.*serverFarmID/, template],
  ['compiler', app, 'instanceMemoryMB: instanceMemoryMB', 'instanceMemory: instanceMemoryMB', /BCP089.*instanceMemory"/, template],
  ['compiler', managed, "    publicNetworkAccess: private ? 'Disabled' : 'Enabled'\n", '', /BCP035.*publicNetworkAccess/, template],
  ['values', managed, "evictionPolicy: 'NoEviction'", "evictionPolicy: 'NeverEvict'", /'NeverEvict', which is none of/],
  ['values', managed, "private ? 'Disabled' : 'Enabled'", "private ? 'Disabled' : 'Open'", /'Open', which is none of/],
  ['compiler', managed, 'redisEnterprise@2025-07-01', 'redisEnterprise@2023-01-01', /BCP081.*redisEnterprise@2023-01-01/, template],
  ['compiler', storage, 'days: 7', "days: '7'", /BCP036.*days/, template],
  ['compiler', routes, 'weight: 1000', 'weight: 1001', /BCP\d+.*1001/, template],
  ['compiler', routes, "name: 'ModifyResponseHeader'", "name: 'ChangeResponseHeader'", /BCP\d+.*ChangeResponseHeader/, template],
  ['compiler', storage, 'location: location', "location: location\n  id: 'x'", /BCP073.*"id"/, template],
  ['compiler', app, 'var floor = max(', 'var floor = maxx(', /BCP\d+.*maxx/, template],
  ['compiler', main, "    url: url", "    url: 'https://management.azure.com'", /no-hardcoded-env-urls/, template],
  ['modules', main, 'modules/workbook.bicep', 'modules/alerts.bicep', /workbook\.bicep: no module statement names this file/, template],
  ['parameters file', parameters, '    "agent": {', '    "agnt": {', /main\.bicep has no parameter agnt/],
  ['parameters file', parameters, '    "agent": {', '    "agnt": {', /agent is missing/],
  ['parameters file', parameters, 'CHATKEEP_AGENT=none', 'CHATKEEP_AGNT=none', /agent must read the environment variable CHATKEEP_AGENT$/],
  ['parameters file', parameters, 'INSTANCE_COUNT=100', 'INSTANCE_COUNT=200', /has the default '200', but main\.bicep '100'/],
  ['parameters file', parameters, '"settings": { "value": {} }', '"settings": { "value": [] }', /settings must be object, not array/],
  ['handler settings', main, '  TURN_LEASE: string?\n', '', /reads TURN_LEASE, which no deployment can set/],
  ['handler settings', main, '  REDIS_PORT:', '  REDIS_PROT:', /sets REDIS_PROT, which the handler does not read/],
  ['handler settings', main, '  LOG_LEVEL: string?', '  LOG_LEVEL: string?\n  REDIS_PORT: string?', /must not be in handlerSettings as well/],
  ['handler settings', 'README.md', '| `TURN_WAIT` |', '| `TURN_WAITS` |', /sets TURN_WAIT, which/],
  ['routes', routes, "'/api/chat/*'", "'/api/chat/s*'", /no route leads to the function get/],
  ['routes', routes, "['/health']", "['/health', '/metrics']", /\/metrics leads to no function/],
  ['routes', 'functions/get/function.json', 'api/chat/conversations', 'api/talk/conversations', /no route leads to the function get/],
  ['routes', routes, "probePath: '/health'", "probePath: '/healthz'", /no function answers the probe HEAD \/healthz/],
  ['routes', app, "'/health?live=1'", "'/live'", /health check GET \/live/, 'premium'],
  ['routes', 'host.json', '"routePrefix": ""', '"routePrefix": "v1"', /at \/v1\/health/],
  ['azure.yaml', 'azure.yaml', '    language: custom', '    language: go', /language: custom is missing/],
  ['azure.yaml', 'azure.yaml', 'dist: ./dist.zip', 'dist: ./dist', /dist: \.\/dist\.zip is missing/],
  ['azure.yaml', 'azure.yaml', 'posix: { shell: sh, run: go run ./scripts/package }', 'posix: { shell: sh, run: make package }', /the hook prepackage for sh is missing/],
  ['azure.yaml', 'azure.yaml', 'go run ./scripts/deploy storage; exit $LASTEXITCODE', 'go run ./scripts/deploy storage', /the hook predeploy for pwsh is missing/],
  ['azure.yaml', 'azure.yaml', '  postprovision:', '  postup:', /the hook postprovision for sh is missing/],
  ['azure.yaml', app, "'azd-service-name': 'api'", "'azd-service-name': 'web'", /azd-service-name/],
  ['docs/deploy.md', 'docs/deploy.md', '`HOSTING=premium`', '`HOSTED=premium`', /names HOSTED, which is no parameter/],
  ['docs/deploy.md', 'docs/deploy.md', '| 9,250 |', '| 12,000 |', /0\.5 GB: states 43,000, but 33,000 fit at 12000 bytes/],
  ['docs/deploy.md', 'docs/deploy.md', '| 579,000 |', '| 580,000 |', /states 580,000, but 579,000 fit/],
]

// rule, file, text, text with a fault, where it is seen unless in the smallest deployment
const faultsOfRules = [
  ['Azure.AppService.UseHTTPS', app, 'httpsOnly: true', 'httpsOnly: false'],
  ['Azure.AppService.MinTLS', app, "minTlsVersion: '1.2'", "minTlsVersion: '1.1'"],
  ['Azure.AppService.ManagedIdentity', app, "type: 'UserAssigned'\n", "type: 'None'\n"],
  ['Azure.AppService.RemoteDebug', app, 'remoteDebuggingEnabled: false', 'remoteDebuggingEnabled: true', 'premium'],
  ['Azure.AppService.WebProbe', app, "  healthCheckPath: '/health?live=1'\n", '', 'premium'],
  ['Azure.AppService.WebProbe', app, "minTlsVersion: '1.2'\n", "minTlsVersion: '1.2'\n  healthCheckPath: '/health?live=1'\n"],
  ['Azure.AppService.WebProbePath', app, "'/health?live=1'", "'/'", 'premium'],
  ['Azure.AppService.HTTP2', app, 'http20Enabled: true', 'http20Enabled: false', 'premium'],
  ['Azure.AppService.ARRAffinity', app, 'clientAffinityEnabled: false', 'clientAffinityEnabled: true'],
  ['Azure.AppService.WebSecureFtp', app, "ftpsState: 'Disabled'", "ftpsState: 'FtpsOnly'", 'premium'],
  ['Azure.AppService.WebSecureFtp', app, 'properties: { allow: false }', 'properties: { allow: true }'],
  ['Azure.AppService.PublicAccess', app, "? 'Allow' : 'Deny'", "? 'Allow' : 'Allow'"],
  ['Azure.AppService.PublicAccess', app, "? 'Allow' : 'Deny'", "? 'Allow' : 'Allow'", 'development'],
  ['Azure.AppService.PublicAccess', app, 'ipAddress: address', "ipAddress: 'AzureCloud', tag: 'ServiceTag'", 'development'],
  ['Azure.AppService.PublicAccess', app, "'x-azure-fdid': [frontDoorId]", "'x-azure-fdid': [frontDoorId, 'another']"],
  ['Azure.AppService.CORS', app, 'allowedOrigins: allowedOrigins', "allowedOrigins: union(allowedOrigins, ['*'])"],
  ['Azure.AppService.CORS', main, "contains(corsOrigins, '*')", "contains(corsOrigins, '?')", template],
  ['Azure.Redis.NonSslPort', cache, 'enableNonSslPort: false', 'enableNonSslPort: true', 'premium'],
  ['Azure.Redis.MinTLS', cache, "minimumTlsVersion: '1.2'", "minimumTlsVersion: '1.0'", 'premium'],
  ['Azure.Redis.PublicNetworkAccess', cache, "private ? 'Disabled' : 'Enabled'", "private ? 'Enabled' : 'Enabled'", 'privatePremium'],
  ['Azure.Redis.PublicNetworkAccess', managed, "private ? 'Disabled' : 'Enabled'", "private ? 'Enabled' : 'Disabled'"],
  ['Azure.Redis.Version', cache, "redisVersion: '6'", "redisVersion: '4'", 'premium'],
  ['Azure.Redis.MinSKU', main, "redisCacheSku string = 'Standard_C1'", "redisCacheSku string = 'Basic_C1'", template],
  ['Azure.RedisEnterprise.MinTLS', managed, "minimumTlsVersion: '1.2'", "minimumTlsVersion: '1.1'"],
  ['Azure.RedisEnterprise.Zones', managed, 'sku: { name: skuName }', "sku: { name: skuName }\n  zones: ['1']"],
  ['Azure.FrontDoor.Logs', profile, "logs: [{ categoryGroup: 'allLogs', enabled: true }]", ''],
  ['Azure.FrontDoor.Probe', routes, "probeProtocol: 'Https'", "probeProtocol: 'Http'"],
  ['Azure.FrontDoor.ProbeMethod', routes, "probeRequestType: 'HEAD'", "probeRequestType: 'GET'"],
  ['Azure.FrontDoor.ProbePath', routes, "probePath: '/health'", "probePath: '/'"],
  ['Azure.FrontDoor.UseWAF', routes, "patternsToMatch: ['/*']", "patternsToMatch: ['/api/*']"],
  ['Azure.FrontDoorWAF.Enabled', routes, "policySettings: {\n      enabledState: 'Enabled'", "policySettings: {\n      enabledState: 'Disabled'"],
  ['Azure.FrontDoorWAF.PreventionMode', routes, "mode: 'Prevention'", "mode: 'Detection'"],
  ['Azure.FrontDoorWAF.RuleGroups', routes, 'Microsoft_BotManagerRuleSet', 'Microsoft_OtherRuleSet', 'private'],
  ['Azure.FrontDoorWAF.RuleGroups', routes, "selectorMatchOperator: 'Equals', selector: 'text'", "selectorMatchOperator: 'Equals', selector: 'value'", 'private'],
  ['Azure.FrontDoor.ManagedIdentity', profile, "type: 'SystemAssigned'", "type: 'None'"],
  ['Azure.Storage.SecureTransfer', storage, 'supportsHttpsTrafficOnly: true', 'supportsHttpsTrafficOnly: false'],
  ['Azure.Storage.SecureTransfer', storage, 'TLS1_2', 'TLS1_0'],
  ['Azure.Storage.BlobPublicAccess', storage, 'allowBlobPublicAccess: false', 'allowBlobPublicAccess: true'],
  ['Azure.Storage.BlobPublicAccess', storage, "publicAccess: 'None'", "publicAccess: 'Blob'"],
  ['Azure.Storage.SoftDelete', storage, 'deleteRetentionPolicy: { enabled: true', 'deleteRetentionPolicy: { enabled: false'],
  ['Azure.Storage.Firewall', storage, "private ? 'Deny' : 'Allow'", "'Allow'", 'private'],
  ['Azure.Storage.SharedKey', storage, 'allowSharedKeyAccess: false', 'allowSharedKeyAccess: true'],
  ['Azure.AppInsights.Workspace', monitoring, 'WorkspaceResourceId: workspace.id', ''],
  ['Azure.AppInsights.LocalAuth', monitoring, 'DisableLocalAuth: true', 'DisableLocalAuth: false'],
  ['Azure.VNET.UseNSGs', network, 'networkSecurityGroup: { id: appSecurity.id }', '', 'private'],
  ['Azure.VNET.PrivateSubnet', network, 'defaultOutboundAccess: false', 'defaultOutboundAccess: true', 'private'],
  ['Azure.NSG.LateralTraversal', network, "destinationPortRanges: ['22', '3389']", "destinationPortRanges: ['22']", 'private'],
  ['Azure.Deployment.SecureParameter', network, "output id string = network.id", "output id string = network.id\n\n@description('Unused.')\nparam token string = ''\n\n@description('Used.')\noutput used string = token", template],
  ['Azure.Resource.UseTags', monitoring, "location: 'global'\n  tags: tags", "location: 'global'"],
  ['Azure.Template.UseDescriptions', network, "@description('Azure region.')\n", '', template],
  ['Chatkeep.Redis.NoKeys', managed, "accessKeysAuthentication: 'Disabled'", "accessKeysAuthentication: 'Enabled'"],
  ['Chatkeep.Redis.NoKeys', cache, 'disableAccessKeyAuthentication: true', 'disableAccessKeyAuthentication: false', 'premium'],
  ['Chatkeep.Redis.NoKeys', cache, "'aad-enabled': 'True'", "'aad-enabled': 'False'", 'premium'],
  ['Chatkeep.Redis.NoEviction', managed, "evictionPolicy: 'NoEviction'", "evictionPolicy: 'VolatileLRU'"],
  ['Chatkeep.Redis.NoEviction', cache, "'maxmemory-policy': 'noeviction'", "'maxmemory-policy': 'volatile-lru'", 'premium'],
  ['Chatkeep.Redis.Lock', managed, "level: 'CanNotDelete'", "level: 'ReadOnly'"],
  ['Chatkeep.Redis.Lock', managed, '= if (lock) {', '= if (lock || true) {', 'development'],
  ['Chatkeep.Redis.Lock', cache, '= if (lock) {', '= if (!lock) {', 'premium'],
  ['Chatkeep.Redis.Lock', main, 'redisLock bool = true', 'redisLock bool = false', template],
  ['Chatkeep.NoSecrets', cache, 'param skuName string', '@secure()\nparam skuName string', template],
  ['Chatkeep.Flex.SiteConfig', app, "minTlsVersion: '1.2'\n", "minTlsVersion: '1.2'\n  alwaysOn: true\n"],
  ['Chatkeep.Flex.Settings', app, "AzureWebJobsStorage__credential: 'managedidentity'", "FUNCTIONS_WORKER_RUNTIME: 'custom'"],
  ['Chatkeep.Flex.Runtime', app, "name: 'custom'", "name: 'go'"],
  ['Chatkeep.FrontDoor.Routes', routes, "httpsRedirect: 'Enabled'", "httpsRedirect: 'Disabled'"],
  ['Chatkeep.FrontDoor.Routes', routes, "forwardingProtocol: 'HttpsOnly'", "forwardingProtocol: 'HttpsOnly'\n    cacheConfiguration: {}"],
  ['Chatkeep.FrontDoor.Timeout', main, 'originTimeoutSeconds int = 240', 'originTimeoutSeconds int = 60', template],
  ['Chatkeep.FrontDoorWAF.RateLimit', routes, "ruleType: 'RateLimitRule'", "ruleType: 'MatchRule'"],
  ['Chatkeep.FrontDoorWAF.RateLimit', routes, "matchValue: ['/'], transforms", "matchValue: ['/api/'], transforms"],
  ['Chatkeep.FrontDoorWAF.RateLimit', routes, "['UrlDecode', 'Lowercase']", "['Lowercase']"],
  ['Chatkeep.FrontDoorWAF.Block', routes, "  code: 'blocked'\n", ''],
  ['Chatkeep.FrontDoorWAF.Block', routes, 'customBlockResponseStatusCode: 403', 'customBlockResponseStatusCode: 429'],
  ['Chatkeep.FrontDoorWAF.NoText', routes, "logScrubbing: {\n        state: 'Enabled'", "logScrubbing: {\n        state: 'Disabled'"],
  ['Chatkeep.Diagnostics', network, "resource endpointSecurityDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {", "resource endpointSecurityDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (empty(location)) {", 'private'],
  ['Chatkeep.Alerts', alerts, "metric: 'evictedkeys'", "metric: 'expiredkeys'"],
  ['Chatkeep.Alerts', alerts, "metric: 'connectedclients'", "metric: 'serverLoad'"],
  ['Chatkeep.Alerts', alerts, "metric: 'WebApplicationFirewallRequestCount'", "metric: 'TotalLatency'"],
  ['Chatkeep.Alerts', alerts, "name: 'send-latency'", "name: 'sends'"],
  ['Chatkeep.Alerts', alerts, 'workspaceCapped ? capAlerts : []', 'workspaceCapped ? [] : capAlerts'],
  ['Chatkeep.Alerts', alerts, 'behindFrontDoor ? [] : errorAlerts', 'behindFrontDoor ? errorAlerts : []', 'development'],
  ['Chatkeep.Alerts', alerts, "equals: 'ServiceHealth'", "equals: 'Administrative'"],
  ['Chatkeep.Alerts', alerts, 'actions: [{ actionGroupId: actionGroupId }]', 'actions: []'],
  ['Chatkeep.Alerts', alerts, 'actions: { actionGroups: [{ actionGroupId: actionGroupId }] }', 'actions: { actionGroups: [] }'],
  ['Chatkeep.Alerts.LeastCount', alerts, 'threshold: leastRequests', 'threshold: 0'],
  ['Chatkeep.Alerts.LeastCount', alerts, '| where requests >= least\n', ''],
  ['Chatkeep.Alerts.LeastCount', alerts, "!in ('health', 'send', ", "!in ('send', "],
  ['Chatkeep.Alerts.LeastCount', alerts, "resultCode == '401'\n| summarize value = sum(itemCount)", "resultCode == '401'\n| summarize value = count()"],
  ['Chatkeep.Alerts.First', main, 'alertsEnabled bool = true', 'alertsEnabled bool = false', template],
  ['Chatkeep.Alerts.First', monitoring, 'enabled: alertsEnabled', 'enabled: !alertsEnabled'],
  ['Chatkeep.Probes', routes, 'probeSeconds == 0\n', 'probeSeconds != 0\n'],
  ['Chatkeep.Probes', alerts, 'webtests@2022-06-15\' = if (probed) {', 'webtests@2022-06-15\' = {', 'development'],
  ['Chatkeep.LogsOnce', app, '    // No logs: Application Insights has them already.\n', "    logs: [{ categoryGroup: 'allLogs', enabled: true }]\n"],
  ['Chatkeep.LogsOnce', main, 'logDailyQuotaGb int = 2', 'logDailyQuotaGb int = -1', template],
  ['Chatkeep.LogsOnce', 'host.json', '"Function.health": "Warning"', '"Function.health": "Information"'],
  ['Chatkeep.Host.NoTables', app, "        AzureWebJobsFeatureFlags: 'DisableDiagnosticEventLogging'\n", ''],
  ['Chatkeep.Host.Sampling', 'host.json', '"excludedTypes": "Request"', '"excludedTypes": "Trace"'],
  ['Chatkeep.Workbook', 'infra/modules/workbook.json', 'sum(itemCount) by bin(timestamp, 1m), operation_Name', 'count() by bin(timestamp, 1m), operation_Name'],
  ['Chatkeep.Workbook', 'infra/modules/workbook.json', 'line.poolWaitMs', 'line.poolWait'],
  ['Chatkeep.Workbook', 'infra/modules/workbook.json', 'Turns in progress', 'Something'],
  ['Chatkeep.Workbook', 'infra/modules/workbook.bicep', "'{{redisType}}'", "'{{redisTyp}}'"],
  ['Chatkeep.StableVersions', storage, 'storageAccounts@2025-08-01', 'storageAccounts@2025-08-01-preview'],
  ['Chatkeep.RoleNames', storage, 'guid(account.id, principalId, storageBlobDataOwner)', 'guid(account.id)'],
  ['Chatkeep.Host.BodyLimit', app, "'1114112'", "'104857600'"],
  ['Chatkeep.Host.BodyLimit', app, "smallInstances ? '327680'", "smallInstances ? '1114112'", 'development'],
  ['Chatkeep.Host.BodyLimit', app, "smallInstances ? '262144'", "smallInstances ? '1048576'", 'development'],
  ['Chatkeep.Host.BodyLimit', 'local.settings.json.example', '"FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "1114112",', ''],
  ['Chatkeep.Host.NoHomepage', app, "AzureWebJobsDisableHomepage: 'true'", ''],
  ['Chatkeep.Host.NoHomepage', 'local.settings.json.example', '"AzureWebJobsDisableHomepage": "true",', ''],
  ['Chatkeep.Host.Timeout', 'host.json', '"12:00:00"', '"00:05:00"'],
  ['Chatkeep.Host.LogLevel', 'host.json', '"Function": "Warning"', '"Function": "Information"'],
  ['Chatkeep.Deployments', storage, 'resource accountDiagnostics ', "resource vault 'Microsoft.KeyVault/vaults@2025-05-01' = if (empty(name)) {\n  name: name\n  location: location\n  tags: tags\n  properties: { sku: { family: 'A', name: 'standard' }, tenantId: tenant().tenantId }\n}\n\nresource accountDiagnostics ", all],
]

describe('a fault is found', () => {
  for (const [name, path, from, to, wanted, seen = both] of faultsOfChecks) {
    test(`${name}: ${wanted.source}`, { skip: name === 'values' && !types && 'there is no ../shared/bicep-types' }, async () => {
      const { good, faulty } = await withFault(path, from, to, seen)
      assert.deepEqual(checks[name](good), [])
      const findings = checks[name](faulty).map(finding => `${finding.where}: ${finding.message}`)
      assert.ok(findings.some(finding => wanted.test(finding)), findings.join('\n') || 'nothing was found')
    })
  }
  for (const [name, path, from, to, seen = 'small'] of faultsOfRules) {
    test(`${name}: ${to.trim().split('\n').at(-1) || `without ${from.trim()}`}`, async () => {
      const { good, faulty } = await withFault(path, from, to, seen)
      assert.ok(faulty.template, JSON.stringify(faulty.diagnostics))
      const known = rules[name](good) // in one deployment there is not everything
      assert.notDeepEqual(rules[name](faulty).filter(message => !known.includes(message)), [])
    })
  }
})

test('without a fault no rule and no check finds anything', () => {
  assert.deepEqual(Object.entries(checks).flatMap(([name, check]) => (name === 'values' && !types ? [] : check(original))), [])
})

test('every check and every rule has a fault that it finds', () => {
  const ruleCheck = Object.keys(checks).find(name => / rules$/.test(name))
  const tested = new Set([...faultsOfChecks, ...faultsOfRules].map(([name]) => name))
  assert.deepEqual([...Object.keys(checks), ...Object.keys(rules)].filter(name => name !== ruleCheck && !tested.has(name)), [])
})
