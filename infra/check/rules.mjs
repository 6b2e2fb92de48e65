// What the resources of a deployment must say, after PSRule for Azure (whose names are kept) and what our own decisions add.
//
// A rule returns what is wrong, as texts; nothing is good. A value must be good in each deployment that has it.

import { at, ofType, settings, templates } from './project.mjs'

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
  // Function App
  'Azure.AppService.UseHTTPS': p => one(p, websites, 'properties.httpsOnly', true),
  'Azure.AppService.MinTLS': p => one(p, websites, 'properties.siteConfig.minTlsVersion', '1.2', '1.3'),
  'Azure.AppService.ManagedIdentity': p => one(p, websites, 'identity.type', 'UserAssigned'),
  'Azure.AppService.RemoteDebug': p => one(p, websites, 'properties.siteConfig.remoteDebuggingEnabled', false, undefined), // it is off by default
  'Azure.AppService.WebProbe': p => siteConfigs(p, (config, flex) => flex === !('healthCheckPath' in config)), // Flex has no health check
  'Azure.AppService.WebProbePath': p => siteConfigs(p, (config, flex) => flex || /^\/.{1,63}$/.test(config.healthCheckPath)),
  'Azure.AppService.HTTP2': p => siteConfigs(p, (config, flex) => flex || config.http20Enabled === true), // Flex: not known to be taken
  'Azure.AppService.ARRAffinity': p => one(p, websites, 'properties.clientAffinityEnabled', false),
  'Azure.AppService.WebSecureFtp': p => [ // on Flex there is no ftpsState; its credentials are off
    ...siteConfigs(p, (config, flex) => flex || config.ftpsState === 'Disabled'),
    ...one(p, `${websites}/basicPublishingCredentialsPolicies`, 'properties.allow', false),
    ...count(p, `${websites}/basicPublishingCredentialsPolicies`, 2),
  ],
  'Azure.AppService.PublicAccess': p => [ // without Front Door: the addresses that were named, or everybody, whose token is checked
    ...ofType(p, websites).filter(r => {
      const { ipSecurityRestrictions: list, ipSecurityRestrictionsDefaultAction: otherwise } = r.properties.siteConfig
      const fromUs = rule => rule.tag === 'ServiceTag' && rule.ipAddress === 'AzureFrontDoor.Backend' && rule.headers?.['x-azure-fdid']?.length === 1
      const named = rule => !rule.tag && /\/\d+$/.test(rule.ipAddress)
      const good = list.every(rule => rule.action === 'Allow' && (behindFrontDoor(r.deployment) ? fromUs(rule) : named(rule)))
      return !good || otherwise !== (behindFrontDoor(r.deployment) || list.length > 0 ? 'Deny' : 'Allow')
    }).map(r => `${r.deployment.name}: others are let in than must be`),
    ...one(p, websites, 'properties.siteConfig.scmIpSecurityRestrictionsUseMain', false),
  ],
  'Azure.AppService.CORS': p => [
    ...each(p, websites, 'properties.siteConfig.cors.allowedOrigins', list => Array.isArray(list) && !list.includes('*')),
    ...(/contains\(parameters\('corsOrigins'\), '\*'\), fail\(/.test(p.template.variables.origins) ? [] : ['main.bicep must refuse * in corsOrigins']),
  ],

  // Redis
  'Azure.Redis.NonSslPort': p => one(p, cacheForRedis, 'properties.enableNonSslPort', false),
  'Azure.Redis.MinTLS': p => one(p, cacheForRedis, 'properties.minimumTlsVersion', '1.2'),
  'Azure.Redis.PublicNetworkAccess': p => [...privately(p, cacheForRedis), ...privately(p, managedRedis)],
  'Azure.Redis.Version': p => one(p, cacheForRedis, 'properties.redisVersion', '6', 'latest'),
  'Azure.Redis.MinSKU': p => (/^(Basic|Standard_C0)/.test(p.template.parameters.redisCacheSku.defaultValue) ? ['the default is below Standard_C1'] : []),
  'Azure.RedisEnterprise.MinTLS': p => one(p, managedRedis, 'properties.minimumTlsVersion', '1.2'),
  'Azure.RedisEnterprise.Zones': p => one(p, managedRedis, 'zones', undefined), // managed SKUs spread over zones by themselves and take none

  // Front Door
  'Azure.FrontDoor.Logs': p => ofType(p, profiles).filter(r => !diagnosedBy(r)?.properties.logs?.some(log => log.categoryGroup === 'allLogs' && log.enabled))
    .map(r => `${r.deployment.name}: ${r.name} keeps no logs`),
  'Azure.FrontDoor.Probe': p => each(p, `${profiles}/originGroups`, 'properties.healthProbeSettings', probe => probe === null || probe.probeProtocol === 'Https'),
  'Azure.FrontDoor.ProbeMethod': p => one(p, `${profiles}/originGroups`, 'properties.healthProbeSettings.probeRequestType', 'HEAD', undefined),
  'Azure.FrontDoor.ProbePath': p => each(p, `${profiles}/originGroups`, 'properties.healthProbeSettings', probe => probe === null || probe.probePath?.length > 1),
  'Azure.FrontDoor.UseWAF': p => each(p, `${profiles}/securityPolicies`, 'properties.parameters.associations',
    list => list[0]?.patternsToMatch[0] === '/*' && JSON.stringify(list[0].domains).includes('/afdEndpoints\'')),
  'Azure.FrontDoorWAF.Enabled': p => one(p, firewall, 'properties.policySettings.enabledState', 'Enabled'),
  'Azure.FrontDoorWAF.PreventionMode': p => one(p, firewall, 'properties.policySettings.mode', 'Prevention'),
  'Azure.FrontDoorWAF.RuleGroups': p => ofType(p, firewall).flatMap(r => { // Standard Front Door takes no managed rules
    const sets = r.properties.managedRules.managedRuleSets
    const wanted = r.sku.name.startsWith('Premium') ? ['Microsoft_DefaultRuleSet', 'Microsoft_BotManagerRuleSet'] : []
    return [
      ...wanted.filter(type => !sets.some(set => set.ruleSetType === type)).map(type => `${r.deployment.name}: there is no ${type}`),
      ...sets.flatMap(set => set.exclusions ?? []).filter(e => e.selector !== 'text' || e.selectorMatchOperator !== 'Equals')
        .map(e => `${r.deployment.name}: ${e.selector} is left unread`),
    ]
  }),
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
    ...privately(p, storage),
    ...ofType(p, storage).filter(r => r.deployment.private && r.properties.networkAcls?.defaultAction !== 'Deny').map(r => `${r.deployment.name}: ${r.name} is open`),
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
  'Azure.VNET.PrivateSubnet': p => each(p, 'Microsoft.Network/virtualNetworks', 'properties.subnets',
    subnets => subnets.every(subnet => subnet.properties.defaultOutboundAccess === false)),
  'Azure.NSG.LateralTraversal': p => each(p, 'Microsoft.Network/networkSecurityGroups', 'properties.securityRules', list => list.some(({ properties: r }) =>
    r.direction === 'Outbound' && r.access === 'Deny' && r.destinationAddressPrefix === 'VirtualNetwork' && ['22', '3389'].every(port => r.destinationPortRanges?.includes(port)))),
  'Azure.Deployment.SecureParameter': p => templates(p.template).flatMap(([module, { parameters = {} }]) => // secure ones are refused by NoSecrets
    Object.keys(parameters).filter(name => /token|password|secret|accesskey|connectionpassword/i.test(name)).map(name => `${module}: ${name} is named like a secret`)),
  'Azure.Resource.UseTags': p => all(p).filter(r => r.location && !r.tags).map(r => `${r.deployment.name}: ${r.name} has no tags`), // what has a location takes them
  'Azure.Template.UseDescriptions': p => templates(p.template).flatMap(([module, { parameters = {}, outputs = {} }]) =>
    Object.entries({ ...parameters, ...outputs }).filter(([, declaration]) => !declaration.metadata?.description)
      .map(([name]) => `${module}: ${name} has no description`)),

  // Our own
  'Chatkeep.Redis.NoKeys': p => [
    ...one(p, `${managedRedis}/databases`, 'properties.accessKeysAuthentication', 'Disabled'),
    ...one(p, `${managedRedis}/databases`, 'properties.clientProtocol', 'Encrypted'),
    ...one(p, cacheForRedis, 'properties.disableAccessKeyAuthentication', true),
    ...one(p, cacheForRedis, 'properties.redisConfiguration.aad-enabled', 'True'),
    ...p.deployments.filter(deployment => deployment.resources.filter(r => r.type.endsWith('/accessPolicyAssignments')).length !== 1)
      .map(deployment => `${deployment.name}: the app, and nobody else, must be let in`),
  ],
  'Chatkeep.Redis.NoEviction': p => [
    ...one(p, `${managedRedis}/databases`, 'properties.evictionPolicy', 'NoEviction'),
    ...one(p, cacheForRedis, 'properties.redisConfiguration.maxmemory-policy', 'noeviction'),
  ],
  'Chatkeep.Redis.Lock': p => [
    ...[managedRedis, cacheForRedis].flatMap(type => ofType(p, type)).filter(r => locked(r) !== (r.deployment.parameters.redisLock ?? true))
      .map(r => `${r.deployment.name}: ${r.name} is ${locked(r) ? '' : 'not '}locked`),
    ...(p.template.parameters.redisLock.defaultValue === true ? [] : ['the lock must be on by default']),
  ],
  'Chatkeep.NoSecrets': p => p.bicep.filter(file => /\blist\w*\(|@secure\(|AccountKey|SharedAccessSignature/.test(file.text))
    .map(file => `${file.name} reads or takes a key`),
  'Chatkeep.Flex.SiteConfig': p => siteConfigs(p, (config, flex) => !flex || !refusedByFlex.some(name => name in config)),
  'Chatkeep.Flex.Settings': p => ofType(p, websites).filter(isFlex).flatMap(r => notSetOnFlex.filter(name => name in settings(r.deployment))
    .map(name => `${name} is set on Flex Consumption`)),
  'Chatkeep.Flex.Runtime': p => ofType(p, websites).filter(isFlex).flatMap(r => {
    const { runtime, deployment } = r.properties.functionAppConfig
    return [
      ...(runtime.name === 'custom' && runtime.version === '1.0' ? [] : [`the runtime is ${JSON.stringify(runtime)}`]),
      ...(deployment.storage.authentication.type === 'UserAssignedIdentity' ? [] : ['the package is not read as the identity']),
    ]
  }),
  'Chatkeep.Host.BodyLimit': p => [ // the largest body we take, and 64 KiB
    ...hostSetting(p, 'FUNCTIONS_REQUEST_BODY_SIZE_LIMIT', parameters => (isSmall(parameters) ? '327680' : '1114112')),
    ...p.deployments.filter(d => settings(d).MAX_UI_BODY !== (isSmall(d.parameters) ? '262144' : '1048576'))
      .map(d => `${d.name}: MAX_UI_BODY is not the host's limit less 64 KiB`),
  ],
  'Chatkeep.Host.NoHomepage': p => hostSetting(p, 'AzureWebJobsDisableHomepage', () => 'true'),
  'Chatkeep.Host.Timeout': p => (p.host.functionTimeout === '12:00:00' ? [] : ['host.json must have a functionTimeout that no slow caller reaches, 12 h']),
  'Chatkeep.Host.LogLevel': p => (at(p.host, 'logging.logLevel.default') === 'Information' && at(p.host, 'logging.logLevel.Function') === 'Warning'
    ? [] : ['host.json must log failed calls of a function alone, and everything else from Information']),
  'Chatkeep.Host.NoTables': p => p.deployments.filter(d => settings(d).AzureWebJobsFeatureFlags !== 'DisableDiagnosticEventLogging')
    .map(d => `${d.name}: the host asks for tables, which its identity may not read`),
  'Chatkeep.Host.Sampling': p => { // requests are counted in full; what is written about them adapts
    const { isEnabled, excludedTypes } = at(p.host, 'logging.applicationInsights.samplingSettings') ?? {}
    return isEnabled === true && excludedTypes === 'Request' ? [] : ['host.json must sample everything but requests']
  },
  'Chatkeep.LogsOnce': p => [
    ...ofType(p, websites).filter(r => diagnosedBy(r)?.properties.logs?.length > 0).map(r => `${r.deployment.name}: Application Insights has the app's logs already`),
    ...(p.template.parameters.logDailyQuotaGb.defaultValue > 0 ? [] : ['by default a day\'s logs must have a cap']),
    ...(at(p.host, 'logging.logLevel')['Function.health'] === 'Warning' ? [] : ['host.json must log failed probes of health alone']),
  ],
  'Chatkeep.Probes': p => p.deployments.flatMap(deployment => { // without probeSeconds, or the app never scales to zero
    const wanted = deployment.parameters.probeSeconds !== 0
    const groups = deployment.resources.filter(r => r.type === `${profiles}/originGroups`)
    const tests = deployment.resources.filter(r => r.type === 'Microsoft.Insights/webtests')
    return groups.every(r => (r.properties.healthProbeSettings !== null) === wanted) && tests.length === (wanted ? 1 : 0)
      ? [] : [`${deployment.name}: probes are not as told`]
  }),
  'Chatkeep.FrontDoor.Routes': p => [
    ...one(p, `${profiles}/afdEndpoints/routes`, 'properties.httpsRedirect', 'Enabled'),
    ...one(p, `${profiles}/afdEndpoints/routes`, 'properties.forwardingProtocol', 'HttpsOnly'),
    ...one(p, `${profiles}/afdEndpoints/routes`, 'properties.cacheConfiguration', undefined),
  ],
  'Chatkeep.FrontDoor.Timeout': p => { // the platform ends every answer after 230 s; Front Door must not end it before
    const { defaultValue } = p.template.parameters.originTimeoutSeconds
    return defaultValue >= 230 ? [] : [`the default is ${defaultValue} seconds`]
  },
  'Chatkeep.FrontDoorWAF.RateLimit': p => each(p, firewall, 'properties.customRules.rules', rulesOf => rulesOf.some(rule =>
    rule.ruleType === 'RateLimitRule' && rule.action === 'Block' && rule.groupBy?.[0]?.variableName === 'SocketAddr' &&
    rule.matchConditions.length === 1 && rule.matchConditions[0].matchVariable === 'RequestUri' && rule.matchConditions[0].matchValue.join() === '/' &&
    rule.matchConditions[0].transforms.join() === 'UrlDecode,Lowercase')),
  'Chatkeep.FrontDoorWAF.Block': p => each(p, firewall, 'properties.policySettings', ({ customBlockResponseStatusCode: status, customBlockResponseBody: body }) => {
    const problem = JSON.parse(Buffer.from(body ?? 'e30=', 'base64'))
    return problem.status === status && ['type', 'title', 'code', 'detail'].every(name => typeof problem[name] === 'string')
  }),
  'Chatkeep.FrontDoorWAF.NoText': p => one(p, firewall, 'properties.policySettings.logScrubbing.state', 'Enabled'),
  'Chatkeep.Diagnostics': p => all(p).filter(r => keepsDiagnostics.has(r.type) && !diagnosedBy(r)).map(r => `${r.deployment.name}: ${r.name} has no diagnostic settings`),
  'Chatkeep.Alerts': p => [
    ...p.deployments.flatMap(deployment => {
      const of = type => deployment.resources.filter(r => r.type === type)
      const probed = deployment.parameters.probeSeconds !== 0
      const wanted = ['usedmemorypercentage', 'percentProcessorTime', 'connectedclients', 'evictedkeys',
        ...(behindFrontDoor(deployment) ? ['Percentage5XX', 'RequestCount', 'WebApplicationFirewallRequestCount', ...(probed ? ['OriginHealthPercentage'] : [])] : [])]
      const metrics = JSON.stringify(of('Microsoft.Insights/metricAlerts'))
      const queries = of('Microsoft.Insights/scheduledQueryRules').map(r => r.name.split('-').slice(1, -1).join('-'))
      const health = of('Microsoft.Insights/activityLogAlerts').filter(r => JSON.stringify(r.properties.condition).includes('"ServiceHealth"'))
      return [
        ...wanted.filter(metric => !metrics.includes(`"metricName":"${metric}"`)).map(metric => `nothing watches ${metric}`),
        ...['latency', 'send-latency', 'unauthenticated', 'log-cap', ...(behindFrontDoor(deployment) ? [] : ['errors'])]
          .filter(query => !queries.includes(query)).map(query => `there is no query for ${query}`),
        ...(health.length === 1 ? [] : ['nobody hears of Azure\'s own incidents']),
      ].map(message => `${deployment.name}: ${message}`)
    }),
    ...each(p, 'Microsoft.Insights/metricAlerts', 'properties.actions', list => list?.length === 1),
    ...each(p, 'Microsoft.Insights/scheduledQueryRules', 'properties.actions.actionGroups', list => list?.length === 1),
    ...each(p, 'Microsoft.Insights/activityLogAlerts', 'properties.actions.actionGroups', list => list?.length === 1),
  ],
  'Chatkeep.Alerts.LeastCount': p => [ // a share or a percentile of three requests wakes nobody
    ...each(p, 'Microsoft.Insights/scheduledQueryRules', 'properties.criteria.allOf', ([{ query }]) =>
      /^let least = [1-9]\d*;/.test(query) && query.split(/\bleast\b/).length > 2 && (!/^requests$/m.test(query) || query.includes('itemCount'))),
    ...ofType(p, 'Microsoft.Insights/metricAlerts').filter(r => /"Percentage\dXX"/.test(JSON.stringify(r.properties)) &&
      !r.properties.criteria.allOf.some(({ metricName, threshold }) => metricName === 'RequestCount' && threshold > 0)).map(r => `${r.name} has no least count`),
    ...ofType(p, 'Microsoft.Insights/scheduledQueryRules').filter(r => r.name.startsWith('alert-latency-') &&
      !r.properties.criteria.allOf[0].query.includes("!in ('health', 'send', 'start', 'stream', 'export')")).map(r => `${r.name} counts what waits for an agent or a reader, or health`),
  ],
  'Chatkeep.Alerts.First': p => [ // the first deployment switches the action group off until its package is published
    ...(p.template.parameters.alertsEnabled.defaultValue === true ? [] : ['alerts must tell somebody by default']),
    ...ofType(p, 'Microsoft.Insights/actionGroups').filter(r => r.properties.enabled !== (r.deployment.parameters.alertsEnabled ?? true))
      .map(r => `${r.deployment.name}: the action group does not follow alertsEnabled`),
  ],
  'Chatkeep.Workbook': p => {
    const items = JSON.parse(p.workbookText).items.map(item => item.content)
    const titles = items.map(content => content.title ?? '').join('\n')
    const queries = items.map(content => content.query ?? '')
    const filled = p.bicep.find(file => file.name === 'infra/modules/workbook.bicep').text
    const placeholders = [...p.workbookText.matchAll(/\{\{\w+\}\}/g)].map(([name]) => name)
    return [
      ...['Requests', 'Latency', 'Answers of 4xx and 5xx', 'Why 503', 'Turns in progress', 'Redis: latency', 'Redis: memory', 'Vitals']
        .filter(title => !titles.includes(title)).map(title => `nothing shows ${title}`),
      ...vitals.filter(name => !queries.some(query => query.includes(`line.${name})`))).map(name => `nothing draws ${name}`),
      ...queries.filter(query => /\bcount\(\)/.test(query) || (/^(requests|traces)$/m.test(query) && !/itemCount|max\(/.test(query))).map(query => `does not count by itemCount: ${query}`),
      ...new Set(placeholders.filter(name => !filled.includes(`'${name}'`)).map(name => `nothing fills ${name}`)),
    ]
  },
  'Chatkeep.StableVersions': p => all(p).filter(r => /preview/.test(r.apiVersion) && r.type !== diagnostics) // which has only previews
    .map(r => `${r.deployment.name}: ${r.name} uses ${r.apiVersion}`),
  'Chatkeep.RoleNames': p => ofType(p, 'Microsoft.Authorization/roleAssignments').filter(r => {
    const role = r.properties.roleDefinitionId.split('/').at(-1)
    return !(/^\[guid\('\/[^']+', .+, '[0-9a-f-]+'\)\]$/.test(r.name) && r.name.endsWith(`, '${role}')]`))
  }).map(r => `${r.deployment.name}: ${r.name} must be guid(scope, principal, role), so that a second deployment finds it`),
  'Chatkeep.Deployments': p => { // or a rule would never see it
    const made = new Set(all(p).map(r => r.type))
    const declared = templates(p.template).flatMap(([, { resources }]) => Object.values(resources)).filter(r => !r.existing && r.type !== 'Microsoft.Resources/deployments')
    return declared.filter(r => !made.has(r.type)).map(r => `no deployment that rules look at makes a ${r.type}`)
  },
}

// The fields of the handler's line "vitals", one a minute.
const vitals = ['requests', 'errors5xx', 'requestP95Ms', 'sendOwnP95Ms', 'storeP95Ms', 'turnsRunning', 'firstDeltaP95Ms', 'replays', 'rateLimited',
  'quotaRefusals', 'breakerOpen', 'poolWaitMs', 'droppedEvents']

// What writes logs or metrics worth keeping. Not the plan: its app tells the same.
const keepsDiagnostics = new Set([websites, profiles, managedRedis, `${managedRedis}/databases`, cacheForRedis, storage, `${storage}/blobServices`,
  'Microsoft.OperationalInsights/workspaces', 'Microsoft.Network/virtualNetworks', 'Microsoft.Network/networkSecurityGroups'])

/** checkRules applies every rule. */
export function checkRules(project) {
  return Object.entries(rules).flatMap(([name, rule]) => rule(project).map(message => ({ where: name, message })))
}

function all(project) {
  return project.deployments.flatMap(deployment => deployment.resources.map(resource => ({ ...resource, deployment })))
}

// each says which resources of a type have a value at a path that is not good; none of the type is not good either.
function each(project, type, path, good) {
  const found = ofType(project, type)
  return found.length === 0 ? [`there is no ${type}`] : found.filter(r => !good(at(r, path)))
    .map(r => `${r.deployment.name}: ${r.name}: ${path} is ${JSON.stringify(at(r, path)) ?? 'not set'}`)
}

function one(project, type, path, ...good) {
  return each(project, type, path, value => good.includes(value))
}

function count(project, type, wanted) {
  return project.deployments.map(deployment => [deployment.name, deployment.resources.filter(r => r.type === type).length])
    .filter(([, found]) => found !== wanted).map(([name, found]) => `${name}: there are ${found} of ${type}, not ${wanted}`)
}

// privately: closed in a network, and only there, where the app has another way.
function privately(project, type) {
  return ofType(project, type).filter(r => r.properties.publicNetworkAccess !== (r.deployment.private ? 'Disabled' : 'Enabled'))
    .map(r => `${r.deployment.name}: ${r.name}: publicNetworkAccess is ${r.properties.publicNetworkAccess}`)
}

function siteConfigs(project, good) {
  return ofType(project, websites).filter(r => !good(r.properties.siteConfig, isFlex(r))).map(r => `${r.deployment.name}: siteConfig is not as it must be`)
}

function isFlex(site) {
  return site.properties.functionAppConfig !== null
}

function behindFrontDoor(deployment) {
  return deployment.parameters.frontDoor !== 'none'
}

function locked(r) {
  return r.deployment.resources.some(lock => lock.type === 'Microsoft.Authorization/locks' && lock.properties.level === 'CanNotDelete' && lock.id.startsWith(`${r.id}/`))
}

function diagnosedBy(r) {
  return r.deployment.resources.find(setting => setting.type === diagnostics && setting.id.startsWith(`${r.id}/providers/${diagnostics}/`))
}

// isSmall tells whether a deployment's instances have too little memory for many large bodies.
function isSmall({ hosting = 'flex', instanceMemoryMB }) {
  return hosting === 'flex' && instanceMemoryMB === 512
}

// hostSetting compares what tells the host, in a deployment and on a developer's machine, with what is wanted with its parameters.
function hostSetting(project, name, wantedWith) {
  const given = [
    ...project.deployments.map(deployment => [deployment.name, settings(deployment)[name], wantedWith(deployment.parameters)]),
    ['local.settings.json.example', project.localSettings[name], wantedWith({})],
  ]
  return given.filter(([, value, wanted]) => value !== wanted).map(([where, value, wanted]) => `${where}: ${name} is ${value ?? 'not set'}, not ${wanted}`)
}
