// Every check and every rule finds what is wrong in a copy of the project with one fault.

import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { checks } from '../check.mjs'
import { compiler } from '../compiler.mjs'
import { load } from '../project.mjs'
import { rules } from '../rules.mjs'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const typesFolder = process.env.BICEP_TYPES ?? join(root, '../shared/bicep-types')
const original = load(root, typesFolder)
const folders = []
after(() => folders.forEach(folder => rmSync(folder, { recursive: true })))

// What is missing here, so that a check cannot run.
const absent = {
  'resource types': original.types ? false : 'there is no ../shared/bicep-types',
  'compiler': compiler(root) ? false : 'there is no bicep',
}

// withFault copies the project, changes one text in one file, and reads the copy.
function withFault(path, from, to) {
  const folder = mkdtempSync(join(tmpdir(), 'infra-'))
  folders.push(folder)
  const copy = join(folder, 'project')
  for (const name of ['infra', 'functions', 'azure.yaml', 'host.json', 'handler/config.go', 'scripts/package.sh', 'docs/deploy.md']) {
    cpSync(join(root, name), join(copy, name), { recursive: true, filter: source => !/infra\/check/.test(source) })
  }
  symlinkSync(join(root, '../shared'), join(folder, 'shared'))
  const text = readFileSync(join(copy, path), 'utf8')
  assert.ok(text.includes(from), `${path} must have ${from}, or this test tests nothing`)
  writeFileSync(join(copy, path), text.replace(from, to))
  return load(copy, typesFolder)
}

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
  ['syntax', main, "param location string", 'param location string = = 1', /main\.bicep:\d+: cannot be read/],
  ['syntax', main, 'var groupName', "var spread = { ...tags }\nvar groupName", /cannot be read/],
  ['names', main, 'scope: group\n', 'scope: grupp\n', /nothing declares grupp/],
  ['names', main, 'toLower(uniqueString', 'toLowr(uniqueString', /nothing declares toLowr/],
  ['names', app, "httpsOnly: true\n", 'httpsOnly: true\n    httpsOnly: false\n', /httpsOnly is declared twice/],
  ['names', main, 'var groupName', "var token = 'x'\nvar groupName", /token is declared twice/],
  ['unused names', cache, 'tags: tags\n', '', /tags is not used/],
  ['unused names', main, 'var groupName', "var idle = 1\nvar groupName", /idle is not used/],
  ['modules', main, 'private: vnetEnabled', 'privately: vnetEnabled', /storage: private is missing/],
  ['modules', main, 'private: vnetEnabled', 'private: vnetEnabled\n    color: 1', /has no parameter color/],
  ['modules', main, "groupId: 'blob'", 'groupId: 7', /storageEndpoint: groupId must be string, not number/],
  ['modules', main, 'highAvailability: redisHighAvailability', "highAvailability: 'Perhaps'", /none of Enabled, Disabled/],
  ['modules', main, 'storage.outputs.name', 'storage.outputs.nam', /storage has no output nam/],
  ['modules', main, 'modules/workbook.bicep', 'modules/wrokbook.bicep', /there is no infra\/modules\/wrokbook\.bicep/],
  ['modules', main, 'modules/workbook.bicep', 'modules/alerts.bicep', /no module statement names this file/],
  ['parameters file', parameters, '    "agent": {', '    "agnt": {', /main\.bicep has no parameter agnt/],
  ['parameters file', parameters, '    "agent": {', '    "agnt": {', /agent is missing/],
  ['parameters file', parameters, 'CHATKEEP_AGENT=none', 'CHATKEEP_AGNT=none', /agent must read the environment variable CHATKEEP_AGENT$/],
  ['parameters file', parameters, 'INSTANCE_COUNT=100', 'INSTANCE_COUNT=200', /has the default '200', but main\.bicep '100'/],
  ['parameters file', parameters, '"tags": { "value": {} }', '"tags": {\n      "value": {} }', /on a line of its own/],
  ['parameters file', parameters, '"settings": { "value": {} }', '"settings": { "value": [] }', /settings must be object, not array/],
  ['handler settings', main, '  TURN_LEASE: string?\n', '', /reads TURN_LEASE, which no deployment can set/],
  ['handler settings', main, '  REDIS_PORT:', '  REDIS_PROT:', /sets REDIS_PROT, which handler\/config\.go does not read/],
  ['handler settings', main, '  LOG_LEVEL: string?', '  LOG_LEVEL: string?\n  REDIS_PORT: string?', /must not be in handlerSettings as well/],
  ['handler settings', 'handler/config.go', '"TURN_WAIT"', '"TURN_WAITS"', /sets TURN_WAIT, which/],
  ['routes', routes, "'/api/chat/*'", "'/api/chat/s*'", /no route leads to the function get/],
  ['routes', routes, "['/health']", "['/health', '/metrics']", /\/metrics leads to no function/],
  ['routes', 'functions/get/function.json', 'api/chat/conversations', 'api/talk/conversations', /no route leads to the function get/],
  ['routes', routes, "probePath: '/health'", "probePath: '/healthz'", /no function answers the probe HEAD \/healthz/],
  ['routes', app, "'/health?live=1'", "'/live'", /health check GET \/live/],
  ['routes', 'host.json', '"routePrefix": ""', '"routePrefix": "v1"', /at \/v1\/health/],
  ['azure.yaml', 'azure.yaml', '    language: custom', '    language: go', /language: custom is missing/],
  ['azure.yaml', 'azure.yaml', 'run: bash ./scripts/package.sh', 'run: make package', /prepackage hook for sh is missing/],
  ['azure.yaml', app, "'azd-service-name': 'api'", "'azd-service-name': 'web'", /azd-service-name/],
  ['docs/deploy.md', 'docs/deploy.md', '`HOSTING=premium`', '`HOSTED=premium`', /names HOSTED, which is no parameter/],
  ['docs/deploy.md', 'docs/deploy.md', '| 9,900 |', '| 12,000 |', /0\.5 GB: states 40,000, but 33,000 fit at 12000 bytes/],
  ['docs/deploy.md', 'docs/deploy.md', '| 645,000 |', '| 646,000 |', /states 646,000, but 645,000 fit/],
  ['resource types', app, 'serverFarmId: plan.id', 'serverFarmID: plan.id', /serverFarmID is not a property/],
  ['resource types', app, 'instanceMemoryMB: instanceMemoryMB', 'instanceMemory: instanceMemoryMB', /instanceMemory is not a property/],
  ['resource types', managed, "    publicNetworkAccess: private ? 'Disabled' : 'Enabled'\n", '', /properties\.publicNetworkAccess is missing/],
  ['resource types', managed, "evictionPolicy: 'NoEviction'", "evictionPolicy: 'NeverEvict'", /'NeverEvict', which is none of/],
  ['resource types', managed, "private ? 'Disabled' : 'Enabled'", "private ? 'Disabled' : 'Open'", /'Open', which is none of/],
  ['resource types', managed, 'redisEnterprise@2025-07-01', 'redisEnterprise@2023-01-01', /the types do not have Microsoft\.Cache\/redisEnterprise@2023-01-01/],
  ['resource types', storage, 'days: 7', "days: '7'", /days must be number, not string/],
  ['resource types', routes, 'weight: 1000', 'weight: 1001', /weight is 1001, not from 1 to 1000/],
  ['resource types', routes, "name: 'ModifyResponseHeader'", "name: 'ChangeResponseHeader'", /actions\[0\]\.name is 'ChangeResponseHeader'/],
  ['resource types', storage, "location: location", "location: location\n  id: 'x'", /id can only be read/],
  ['resource types', 'infra/modules/agent-access.bicep', 'account.id', 'account.properties.endpoint', /do not have Microsoft\.CognitiveServices/],
  ['compiler', app, 'var floor = max(', 'var floor = maxx(', /BCP057|maxx/],
  ['compiler', main, "url: 'https://${frontDoorRoutes.outputs.host}'", "url: 'https://management.azure.com'", /no-hardcoded-env-urls/],
]

const faultsOfRules = [
  ['Azure.AppService.UseHTTPS', app, 'httpsOnly: true', 'httpsOnly: false'],
  ['Azure.AppService.MinTLS', app, "minTlsVersion: '1.2'", "minTlsVersion: '1.1'"],
  ['Azure.AppService.ManagedIdentity', app, "type: 'UserAssigned'\n", "type: 'None'\n"],
  ['Azure.AppService.RemoteDebug', app, 'remoteDebuggingEnabled: false', 'remoteDebuggingEnabled: true'],
  ['Azure.AppService.WebProbe', app, "healthCheckPath: '/health?live=1'", ''],
  ['Azure.AppService.WebProbePath', app, "'/health?live=1'", "'/'"],
  ['Azure.AppService.HTTP2', app, 'http20Enabled: true', 'http20Enabled: false'],
  ['Azure.AppService.ARRAffinity', app, 'clientAffinityEnabled: false', 'clientAffinityEnabled: true'],
  ['Azure.AppService.WebSecureFtp', app, "ftpsState: 'Disabled'", "ftpsState: 'FtpsOnly'"],
  ['Azure.AppService.WebSecureFtp', app, 'properties: { allow: false }', 'properties: { allow: true }'],
  ['Azure.AppService.PublicAccess', app, "ipSecurityRestrictionsDefaultAction: 'Deny'", "ipSecurityRestrictionsDefaultAction: 'Allow'"],
  ['Azure.AppService.PublicAccess', app, "headers: { 'x-azure-fdid': [frontDoorId] }", ''],
  ['Azure.AppService.CORS', app, 'allowedOrigins: allowedOrigins', "allowedOrigins: ['*']"],
  ['Azure.AppService.CORS', main, "contains(corsOrigins, '*')", "contains(corsOrigins, '?')"],
  ['Azure.Redis.NonSslPort', cache, 'enableNonSslPort: false', 'enableNonSslPort: true'],
  ['Azure.Redis.MinTLS', cache, "minimumTlsVersion: '1.2'", "minimumTlsVersion: '1.0'"],
  ['Azure.Redis.PublicNetworkAccess', cache, "private ? 'Disabled' : 'Enabled'", "'Enabled'"],
  ['Azure.Redis.PublicNetworkAccess', managed, "private ? 'Disabled' : 'Enabled'", "private ? 'Enabled' : 'Disabled'"],
  ['Azure.Redis.Version', cache, "redisVersion: '6'", "redisVersion: '4'"],
  ['Azure.Redis.MinSKU', main, "redisCacheSku string = 'Standard_C1'", "redisCacheSku string = 'Basic_C1'"],
  ['Azure.RedisEnterprise.MinTLS', managed, "minimumTlsVersion: '1.2'", "minimumTlsVersion: '1.1'"],
  ['Azure.RedisEnterprise.Zones', managed, 'sku: { name: skuName }', "sku: { name: skuName }\n  zones: ['1']"],
  ['Azure.FrontDoor.Logs', profile, "logs: [{ categoryGroup: 'allLogs', enabled: true }]", ''],
  ['Azure.FrontDoor.Probe', routes, "probeProtocol: 'Https'", "probeProtocol: 'Http'"],
  ['Azure.FrontDoor.ProbeMethod', routes, "probeRequestType: 'HEAD'", "probeRequestType: 'GET'"],
  ['Azure.FrontDoor.ProbePath', routes, "probePath: '/health'", "probePath: '/'"],
  ['Azure.FrontDoor.UseWAF', routes, "patternsToMatch: ['/*']", "patternsToMatch: ['/api/*']"],
  ['Azure.FrontDoorWAF.Enabled', routes, "policySettings: {\n      enabledState: 'Enabled'", "policySettings: {\n      enabledState: 'Disabled'"],
  ['Azure.FrontDoorWAF.PreventionMode', routes, "mode: 'Prevention'", "mode: 'Detection'"],
  ['Azure.FrontDoorWAF.RuleGroups', routes, 'Microsoft_BotManagerRuleSet', 'Microsoft_OtherRuleSet'],
  ['Azure.FrontDoorWAF.RuleGroups', routes, "selectorMatchOperator: 'Equals', selector: 'text'", "selectorMatchOperator: 'Equals', selector: 'value'"],
  ['Azure.FrontDoor.ManagedIdentity', profile, "type: 'SystemAssigned'", "type: 'None'"],
  ['Azure.Storage.SecureTransfer', storage, 'supportsHttpsTrafficOnly: true', 'supportsHttpsTrafficOnly: false'],
  ['Azure.Storage.SecureTransfer', storage, 'TLS1_2', 'TLS1_0'],
  ['Azure.Storage.BlobPublicAccess', storage, 'allowBlobPublicAccess: false', 'allowBlobPublicAccess: true'],
  ['Azure.Storage.BlobPublicAccess', storage, "publicAccess: 'None'", "publicAccess: 'Blob'"],
  ['Azure.Storage.SoftDelete', storage, 'deleteRetentionPolicy: { enabled: true', 'deleteRetentionPolicy: { enabled: false'],
  ['Azure.Storage.Firewall', storage, "private ? 'Deny' : 'Allow'", "'Allow'"],
  ['Azure.Storage.SharedKey', storage, 'allowSharedKeyAccess: false', 'allowSharedKeyAccess: true'],
  ['Azure.AppInsights.Workspace', monitoring, 'WorkspaceResourceId: workspace.id', ''],
  ['Azure.AppInsights.LocalAuth', monitoring, 'DisableLocalAuth: true', 'DisableLocalAuth: false'],
  ['Azure.VNET.UseNSGs', network, 'networkSecurityGroup: { id: appSecurity.id }', ''],
  ['Azure.Resource.UseTags', monitoring, "location: 'global'\n  tags: tags", "location: 'global'"],
  ['Azure.Template.UseDescriptions', network, "@description('Azure region.')\n", ''],
  ['Chatkeep.Redis.NoKeys', managed, "accessKeysAuthentication: 'Disabled'", "accessKeysAuthentication: 'Enabled'"],
  ['Chatkeep.Redis.NoKeys', cache, 'disableAccessKeyAuthentication: true', 'disableAccessKeyAuthentication: false'],
  ['Chatkeep.Redis.NoKeys', cache, "'aad-enabled': 'True'", "'aad-enabled': 'False'"],
  ['Chatkeep.Redis.NoEviction', managed, "evictionPolicy: 'NoEviction'", "evictionPolicy: 'VolatileLRU'"],
  ['Chatkeep.Redis.NoEviction', cache, "'maxmemory-policy': 'noeviction'", "'maxmemory-policy': 'volatile-lru'"],
  ['Chatkeep.NoSecrets', cache, 'output id string = cache.id', 'output id string = cache.listKeys().primaryKey'],
  ['Chatkeep.Flex.SiteConfig', app, "minTlsVersion: '1.2'\n", "minTlsVersion: '1.2'\n  alwaysOn: true\n"],
  ['Chatkeep.Flex.Settings', app, "AzureWebJobsStorage__credential: 'managedidentity'", "FUNCTIONS_WORKER_RUNTIME: 'custom'"],
  ['Chatkeep.Flex.Runtime', app, "name: 'custom'", "name: 'go'"],
  ['Chatkeep.FrontDoor.Routes', routes, "httpsRedirect: 'Enabled'", "httpsRedirect: 'Disabled'"],
  ['Chatkeep.FrontDoor.Routes', routes, "forwardingProtocol: 'HttpsOnly'", "forwardingProtocol: 'HttpsOnly'\n    cacheConfiguration: {}"],
  ['Chatkeep.FrontDoor.Timeout', main, 'originTimeoutSeconds int = 240', 'originTimeoutSeconds int = 60'],
  ['Chatkeep.FrontDoorWAF.RateLimit', routes, "ruleType: 'RateLimitRule'", "ruleType: 'MatchRule'"],
  ['Chatkeep.FrontDoorWAF.NoText', routes, "logScrubbing: {\n        state: 'Enabled'", "logScrubbing: {\n        state: 'Disabled'"],
  ['Chatkeep.Diagnostics', network, 'scope: endpointSecurity', 'scope: appSecurity'],
  ['Chatkeep.Alerts', alerts, "metricName: 'evictedkeys'", "metricName: 'expiredkeys'"],
  ['Chatkeep.Alerts', alerts, 'actions: [{ actionGroupId: actionGroupId }]', 'actions: []'],
  ['Chatkeep.Workbook', 'infra/modules/workbook.json', 'Turns in progress', 'Something'],
  ['Chatkeep.Workbook', 'infra/modules/workbook.bicep', "'{{redisType}}'", "'{{redisTyp}}'"],
  ['Chatkeep.StableVersions', storage, 'storageAccounts@2025-08-01', 'storageAccounts@2025-08-01-preview'],
  ['Chatkeep.RoleNames', storage, 'guid(account.id, principalId, storageBlobDataOwner)', 'guid(account.id)'],
]

describe('a fault is found', () => {
  for (const [name, path, from, to, wanted] of faultsOfChecks) {
    test(`${name}: ${wanted.source}`, { skip: absent[name] }, () => {
      assert.ok(name === 'compiler' || !checks[name](original).some(finding => wanted.test(`${finding.where}: ${finding.message}`)))
      const findings = checks[name](withFault(path, from, to)).map(finding => `${finding.where}: ${finding.message}`)
      assert.ok(findings.some(finding => wanted.test(finding)), findings.join('\n') || 'nothing was found')
    })
  }
  for (const [name, path, from, to] of faultsOfRules) {
    test(`${name}: ${to.trim().split('\n').at(-1) || `without ${from.trim()}`}`, () => {
      assert.deepEqual(rules[name](original), [])
      assert.notDeepEqual(rules[name](withFault(path, from, to)), [])
    })
  }
})

test('every check and every rule has a fault that it finds', () => {
  const ruleCheck = Object.keys(checks).find(name => / rules$/.test(name))
  const tested = new Set([...faultsOfChecks, ...faultsOfRules].map(([name]) => name))
  assert.deepEqual([...Object.keys(checks), ...Object.keys(rules)].filter(name => name !== ruleCheck && !tested.has(name)), [])
})
