// What the resources must say, after PSRule for Azure (whose names are kept) and what our own decisions add.
//
// A rule returns what is wrong, as texts; nothing is good. Values that a condition chooses must be good in every outcome.

import { Unknown, at, outcomes } from './bicep.mjs'

const websites = 'Microsoft.Web/sites'
const profiles = 'Microsoft.Cdn/profiles'
const managedRedis = 'Microsoft.Cache/redisEnterprise'
const cacheForRedis = 'Microsoft.Cache/redis'
const firewall = 'Microsoft.Network/FrontDoorWebApplicationFirewallPolicies'
const storage = 'Microsoft.Storage/storageAccounts'
const diagnostics = 'Microsoft.Insights/diagnosticSettings'

// Properties that Flex Consumption refuses, in some regions only.
const refusedByFlex = ['ftpsState', 'linuxFxVersion', 'functionAppScaleLimit', 'use32BitWorkerProcess', 'netFrameworkVersion',
  'preWarmedInstanceCount', 'functionsRuntimeScaleMonitoringEnabled', 'alwaysOn']
const notSetOnFlex = ['FUNCTIONS_WORKER_RUNTIME', 'FUNCTIONS_EXTENSION_VERSION', 'WEBSITE_RUN_FROM_PACKAGE', 'WEBSITE_CONTENTSHARE',
  'WEBSITE_CONTENTAZUREFILECONNECTIONSTRING']

/** The rules by name. */
export const rules = {
  // Function App. In siteConfig the first outcome is Flex Consumption, the others Elastic Premium.
  'Azure.AppService.UseHTTPS': p => one(p, websites, 'properties.httpsOnly', true),
  'Azure.AppService.MinTLS': p => one(p, websites, 'properties.siteConfig.minTlsVersion', '1.2', '1.3'),
  'Azure.AppService.ManagedIdentity': p => one(p, websites, 'identity.type', 'UserAssigned'),
  'Azure.AppService.RemoteDebug': p => one(p, websites, 'properties.siteConfig.remoteDebuggingEnabled', false, undefined), // it is off by default
  'Azure.AppService.WebProbe': p => each(p, websites, 'properties.siteConfig.healthCheckPath', path => typeof path === 'string'),
  'Azure.AppService.WebProbePath': p => each(p, websites, 'properties.siteConfig.healthCheckPath', path => /^\/.{1,63}$/.test(path)),
  'Azure.AppService.HTTP2': p => siteConfigs(p, (config, flex) => flex || config.http20Enabled === true), // Flex: not known to be taken
  'Azure.AppService.ARRAffinity': p => one(p, websites, 'properties.clientAffinityEnabled', false),
  'Azure.AppService.WebSecureFtp': p => [ // on Flex there is no ftpsState; its credentials are off
    ...siteConfigs(p, (config, flex) => flex || config.ftpsState === 'Disabled'),
    ...one(p, `${websites}/basicPublishingCredentialsPolicies`, 'properties.allow', false),
    ...count(p, `${websites}/basicPublishingCredentialsPolicies`, 2),
  ],
  'Azure.AppService.PublicAccess': p => [
    ...one(p, websites, 'properties.siteConfig.ipSecurityRestrictionsDefaultAction', 'Deny'),
    ...each(p, websites, 'properties.siteConfig.ipSecurityRestrictions', list => list.every(rule => rule.action === 'Allow' &&
      rule.tag === 'ServiceTag' && rule.ipAddress === 'AzureFrontDoor.Backend' && rule.headers?.['x-azure-fdid']?.length === 1)),
    ...one(p, websites, 'properties.siteConfig.scmIpSecurityRestrictionsUseMain', false),
  ],
  'Azure.AppService.CORS': p => [
    ...each(p, websites, 'properties.siteConfig.cors.allowedOrigins', list => list instanceof Unknown || !list.includes('*')),
    ...(/contains\(corsOrigins, '\*'\)\s*\? fail\(/.test(p.main.text) ? [] : ['main.bicep must refuse * in corsOrigins']),
  ],

  // Redis
  'Azure.Redis.NonSslPort': p => one(p, cacheForRedis, 'properties.enableNonSslPort', false),
  'Azure.Redis.MinTLS': p => one(p, cacheForRedis, 'properties.minimumTlsVersion', '1.2'),
  'Azure.Redis.PublicNetworkAccess': p => [
    ...privately(p, cacheForRedis, 'properties.publicNetworkAccess'), ...privately(p, managedRedis, 'properties.publicNetworkAccess'),
  ],
  'Azure.Redis.Version': p => one(p, cacheForRedis, 'properties.redisVersion', '6', 'latest'),
  'Azure.Redis.MinSKU': p => (/^(Basic|Standard_C0)/.test(p.main.parameters.get('redisCacheSku').value) ? ['the default is below Standard_C1'] : []),
  'Azure.RedisEnterprise.MinTLS': p => one(p, managedRedis, 'properties.minimumTlsVersion', '1.2'),
  'Azure.RedisEnterprise.Zones': p => one(p, managedRedis, 'zones', undefined), // managed SKUs spread over zones by themselves and take none

  // Front Door
  'Azure.FrontDoor.Logs': p => (diagnosedWithLogs(p, profiles) ? [] : ['the profile keeps no logs']),
  'Azure.FrontDoor.Probe': p => each(p, `${profiles}/originGroups`, 'properties.healthProbeSettings', probe => probe?.probeProtocol === 'Https'),
  'Azure.FrontDoor.ProbeMethod': p => one(p, `${profiles}/originGroups`, 'properties.healthProbeSettings.probeRequestType', 'HEAD'),
  'Azure.FrontDoor.ProbePath': p => each(p, `${profiles}/originGroups`, 'properties.healthProbeSettings.probePath', path => path?.length > 1),
  'Azure.FrontDoor.UseWAF': p => each(p, `${profiles}/securityPolicies`, 'properties.parameters.associations',
    list => list[0]?.patternsToMatch[0] === '/*' && JSON.stringify(list[0].domains).includes('endpoint.id')),
  'Azure.FrontDoorWAF.Enabled': p => one(p, firewall, 'properties.policySettings.enabledState', 'Enabled'),
  'Azure.FrontDoorWAF.PreventionMode': p => one(p, firewall, 'properties.policySettings.mode', 'Prevention'),
  'Azure.FrontDoorWAF.RuleGroups': p => [
    ...(at(resource(p, firewall).body, 'properties.managedRules.managedRuleSets')
      .some(sets => ['Microsoft_DefaultRuleSet', 'Microsoft_BotManagerRuleSet'].every(type => sets.some(set => set.ruleSetType === type)))
      ? [] : ['Premium lacks a managed rule set']),
    ...each(p, firewall, 'properties.managedRules.managedRuleSets', sets => sets.every(set =>
      outcomes(set.exclusions ?? []).every(list => list.every(e => e.selector === 'text' && e.selectorMatchOperator === 'Equals')))),
  ],
  'Azure.FrontDoor.ManagedIdentity': p => one(p, profiles, 'identity.type', 'SystemAssigned'),

  // Storage
  'Azure.Storage.SecureTransfer': p => [
    ...one(p, storage, 'properties.supportsHttpsTrafficOnly', true), ...one(p, storage, 'properties.minimumTlsVersion', 'TLS1_2'),
  ],
  'Azure.Storage.BlobPublicAccess': p => [
    ...one(p, storage, 'properties.allowBlobPublicAccess', false),
    ...one(p, `${storage}/blobServices/containers`, 'properties.publicAccess', 'None'),
  ],
  'Azure.Storage.SoftDelete': p => [
    ...one(p, `${storage}/blobServices`, 'properties.deleteRetentionPolicy.enabled', true),
    ...one(p, `${storage}/blobServices`, 'properties.containerDeleteRetentionPolicy.enabled', true),
  ],
  'Azure.Storage.Firewall': p => [ // without a virtual network the app has no address that could be let in
    ...privately(p, storage, 'properties.publicNetworkAccess'),
    ...(at(resource(p, storage).body, 'properties.networkAcls.defaultAction')[0] === 'Deny' ? [] : ['a private account is open']),
  ],
  'Azure.Storage.SharedKey': p => one(p, storage, 'properties.allowSharedKeyAccess', false),

  // Everything
  'Azure.AppInsights.Workspace': p => each(p, 'Microsoft.Insights/components', 'properties.WorkspaceResourceId', id => id !== undefined),
  'Azure.AppInsights.LocalAuth': p => [
    ...one(p, 'Microsoft.Insights/components', 'properties.DisableLocalAuth', true),
    ...one(p, 'Microsoft.OperationalInsights/workspaces', 'properties.features.disableLocalAuth', true),
  ],
  'Azure.VNET.UseNSGs': p => each(p, 'Microsoft.Network/virtualNetworks', 'properties.subnets',
    subnets => subnets.every(subnet => subnet.properties.networkSecurityGroup?.id !== undefined)),
  'Azure.Resource.UseTags': p => created(p).filter(r => takesTags(p, r) && r.body.tags === undefined).map(r => `${r.name} has no tags`),
  'Azure.Template.UseDescriptions': p => p.files.flatMap(file => [...file.parameters.values(), ...file.outputs.values()]
    .filter(declaration => !declaration.decorators.description).map(declaration => `${file.name}: ${declaration.name} has no description`)),

  // Our own
  'Chatkeep.Redis.NoKeys': p => [
    ...one(p, `${managedRedis}/databases`, 'properties.accessKeysAuthentication', 'Disabled'),
    ...one(p, `${managedRedis}/databases`, 'properties.clientProtocol', 'Encrypted'),
    ...one(p, cacheForRedis, 'properties.disableAccessKeyAuthentication', true),
    ...one(p, cacheForRedis, 'properties.redisConfiguration.aad-enabled', 'True'),
    ...count(p, `${managedRedis}/databases/accessPolicyAssignments`, 2), ...count(p, `${cacheForRedis}/accessPolicyAssignments`, 2),
  ],
  'Chatkeep.Redis.NoEviction': p => [
    ...one(p, `${managedRedis}/databases`, 'properties.evictionPolicy', 'NoEviction'),
    ...one(p, cacheForRedis, 'properties.redisConfiguration.maxmemory-policy', 'noeviction'),
  ],
  'Chatkeep.NoSecrets': p => p.files.filter(file => /\blist\w*\(|@secure\(|AccountKey|SharedAccessSignature/.test(file.text))
    .map(file => `${file.name} reads or takes a key`),
  'Chatkeep.Flex.SiteConfig': p => siteConfigs(p, (config, flex) => !flex || !refusedByFlex.some(name => name in config)),
  'Chatkeep.Flex.Settings': p => {
    const [onFlex] = at(resource(p, `${websites}/config`).body, 'properties')
    return notSetOnFlex.filter(name => name in onFlex).map(name => `${name} is set on Flex Consumption`)
  },
  'Chatkeep.Flex.Runtime': p => [
    ...someOf(p, websites, 'properties.functionAppConfig.runtime.name', 'custom'),
    ...someOf(p, websites, 'properties.functionAppConfig.runtime.version', '1.0'),
    ...someOf(p, websites, 'properties.functionAppConfig.deployment.storage.authentication.type', 'UserAssignedIdentity'),
  ],
  'Chatkeep.FrontDoor.Routes': p => [
    ...one(p, `${profiles}/afdEndpoints/routes`, 'properties.httpsRedirect', 'Enabled'),
    ...one(p, `${profiles}/afdEndpoints/routes`, 'properties.forwardingProtocol', 'HttpsOnly'),
    ...one(p, `${profiles}/afdEndpoints/routes`, 'properties.cacheConfiguration', undefined),
  ],
  'Chatkeep.FrontDoor.Timeout': p => { // the platform ends every answer after 230 s; Front Door must not end it before
    const { value } = p.main.parameters.get('originTimeoutSeconds')
    return value >= 230 ? [] : [`the default is ${value} seconds`]
  },
  'Chatkeep.FrontDoorWAF.RateLimit': p => each(p, firewall, 'properties.customRules.rules', rulesOf => rulesOf.some(rule =>
    rule.ruleType === 'RateLimitRule' && rule.action === 'Block' && rule.groupBy?.[0]?.variableName === 'SocketAddr')),
  'Chatkeep.FrontDoorWAF.NoText': p => one(p, firewall, 'properties.policySettings.logScrubbing.state', 'Enabled'),
  'Chatkeep.Diagnostics': p => created(p).filter(r => keepsDiagnostics.has(r.type) && !diagnosedBy(p, r)).map(r => `${r.name} has no diagnostic settings`),
  'Chatkeep.Alerts': p => [
    ...['Percentage5XX', 'OriginHealthPercentage', 'usedmemorypercentage', 'percentProcessorTime', 'evictedkeys']
      .filter(metric => !p.file('infra/modules/alerts.bicep').text.includes(`metricName: '${metric}'`)).map(metric => `nothing watches ${metric}`),
    ...count(p, 'Microsoft.Insights/scheduledQueryRules', 1), ...count(p, 'Microsoft.Insights/webtests', 1),
    ...each(p, 'Microsoft.Insights/metricAlerts', 'properties.actions', list => list?.length === 1),
    ...each(p, 'Microsoft.Insights/scheduledQueryRules', 'properties.actions.actionGroups', list => list?.length === 1),
  ],
  'Chatkeep.Workbook': p => {
    const titles = JSON.parse(p.workbookText).items.map(item => item.content.title ?? '').join('\n')
    const placeholders = [...p.workbookText.matchAll(/\{\{\w+\}\}/g)].map(([name]) => name)
    return [
      ...['Requests', 'Latency', 'Answers of 4xx and 5xx', 'Server errors, by code', 'Turns in progress', 'Redis: latency', 'Redis: memory']
        .filter(title => !titles.includes(title)).map(title => `nothing shows ${title}`),
      ...new Set(placeholders.filter(name => !p.file('infra/modules/workbook.bicep').text.includes(`'${name}'`)).map(name => `nothing fills ${name}`)),
    ]
  },
  'Chatkeep.StableVersions': p => p.resources.filter(r => /preview/.test(r.version) && r.type !== diagnostics) // which has only previews
    .map(r => `${r.name} uses ${r.version}`),
  'Chatkeep.RoleNames': p => created(p).filter(r => r.type.endsWith('/roleAssignments') && !/^guid\(\w+\.id, \w+, \w+\)$/.test(r.body.name?.text))
    .map(r => `${r.name} must be named guid(scope, principal, role), so that a second deployment finds it`),
}

// What writes logs or metrics worth keeping. Not the plan: its app tells the same.
const keepsDiagnostics = new Set([websites, profiles, managedRedis, `${managedRedis}/databases`, cacheForRedis, storage, `${storage}/blobServices`,
  'Microsoft.OperationalInsights/workspaces', 'Microsoft.Network/virtualNetworks', 'Microsoft.Network/networkSecurityGroups'])

/** checkRules applies every rule. */
export function checkRules(project) {
  return Object.entries(rules).flatMap(([name, rule]) => rule(project).map(message => ({ where: name, message })))
}

function created(project) {
  return project.resources.filter(resource => !resource.existing)
}

function ofType(project, type) {
  return created(project).filter(resource => resource.type === type)
}

function resource(project, type) {
  return ofType(project, type)[0] ?? { body: {} }
}

// each says which resources of a type have a value at a path that is not good; none of the type is not good either.
function each(project, type, path, good) {
  const found = ofType(project, type)
  if (found.length === 0) {
    return [`there is no ${type}`]
  }
  return found.flatMap(r => at(r.body, path).filter(value => !good(value)).map(value => `${r.name}: ${path} is ${show(value)}`))
}

function one(project, type, path, ...good) {
  return each(project, type, path, value => good.includes(value))
}

function someOf(project, type, path, good) {
  const values = at(resource(project, type).body, path)
  return values.includes(good) ? [] : [`${path} is never ${good}`]
}

function count(project, type, wanted) {
  const found = ofType(project, type).length
  return found === wanted ? [] : [`there are ${found} of ${type}, not ${wanted}`]
}

// privately: closed when the parameter private is true, which is the first outcome.
function privately(project, type, path) {
  return ofType(project, type).flatMap(r => {
    const [whenPrivate, otherwise] = at(r.body, path)
    return whenPrivate === 'Disabled' && otherwise === 'Enabled' ? [] : [`${r.name}: ${path} does not follow the parameter private`]
  })
}

// siteConfigs looks at what the site says on Flex Consumption (without what only Premium takes) and on Elastic Premium.
function siteConfigs(project, good) {
  const configs = at(resource(project, websites).body, 'properties.siteConfig')
  const premiumOnly = Object.keys(project.file('infra/modules/function-app.bicep')?.variables.get('premiumConfig')?.value ?? {})
  return configs.flatMap(config => {
    const flex = !premiumOnly.some(name => name in config)
    return good(config, flex) ? [] : [`siteConfig ${flex ? 'on Flex Consumption' : 'on Elastic Premium'} is not as it must be`]
  })
}

function diagnosedBy(project, resource) {
  const own = new RegExp(`(^|::)${resource.name}$`)
  return ofType(project, diagnostics).find(setting => setting.file === resource.file && own.test(setting.body.scope?.text))
}

function diagnosedWithLogs(project, type) {
  const setting = diagnosedBy(project, resource(project, type))
  return setting?.body.properties.logs?.some(log => log.categoryGroup === 'allLogs' && log.enabled)
}

function takesTags(project, r) {
  const entry = project.types?.[`${r.type}@${r.version}`]
  if (!entry) {
    return r.body.location !== undefined
  }
  const body = entry.types[entry.types[entry.root].body.$ref.slice(2)]
  return 'tags' in (body.properties ?? {})
}

function show(value) {
  return value instanceof Unknown ? value.text : JSON.stringify(value) ?? 'not set'
}
