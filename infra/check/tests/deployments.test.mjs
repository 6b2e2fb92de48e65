// What a deployment would make, for several sets of parameters, as the compiler expands them.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Compiler, find } from '../compiler.mjs'
import { least } from '../project.mjs'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const elsewhere = '/subscriptions/00000000-0000-0000-0000-00000000000c/resourceGroups/other/providers'

const compiler = new Compiler(find(root))
after(() => compiler.stop())

// deploy expands the least parameters and these, and finds resources by type.
async function deploy(parameters) {
  const resources = await compiler.expand(root, { ...least, ...parameters })
  const all = type => resources.filter(resource => resource.type === type)
  return {
    resources, all, one: type => (assert.equal(all(type).length, 1, type), all(type)[0]),
    site() { return this.one('Microsoft.Web/sites').properties },
    settings() { return this.one('Microsoft.Web/sites/config').properties },
  }
}

describe('a deployment', () => {
  test('by default runs on Flex Consumption with a managed Redis and Standard Front Door, without a network', async () => {
    const d = await deploy({})
    assert.deepEqual(d.one('Microsoft.Web/serverfarms').sku, { name: 'FC1', tier: 'FlexConsumption' })
    const { functionAppConfig, siteConfig } = d.site()
    assert.deepEqual(functionAppConfig.runtime, { name: 'custom', version: '1.0' })
    assert.equal(siteConfig.ipSecurityRestrictions.length, 1)
    assert.ok(!('ftpsState' in siteConfig))
    assert.equal(d.one('Microsoft.Cache/redisEnterprise').sku.name, 'Balanced_B0')
    assert.deepEqual(d.one('Microsoft.Cache/redisEnterprise/databases').properties, {
      clientProtocol: 'Encrypted', port: 10000, clusteringPolicy: 'NoCluster', evictionPolicy: 'NoEviction',
      accessKeysAuthentication: 'Disabled', persistence: { aofEnabled: true, aofFrequency: '1s', rdbEnabled: false },
    })
    assert.equal(d.one('Microsoft.Cdn/profiles').sku.name, 'Standard_AzureFrontDoor')
    const firewall = d.one('Microsoft.Network/FrontDoorWebApplicationFirewallPolicies').properties
    assert.deepEqual(firewall.managedRules.managedRuleSets, [])
    assert.equal(firewall.customRules.rules.length, 1)
    assert.deepEqual(d.all('Microsoft.Network/virtualNetworks').concat(d.all('Microsoft.Network/privateEndpoints')), [])
    const settings = d.settings()
    assert.equal(settings.AUTH_TENANT_ID, '00000000-0000-0000-0000-00000000000b')
    assert.equal(settings.AGENT, 'echo')
    assert.equal(settings.REDIS_AUTH, 'entra')
    assert.ok(!('FUNCTIONS_WORKER_RUNTIME' in settings) && !('OPENAI_BASE_URL' in settings) && !('REDIS_TTL' in settings))
  })

  test('on Elastic Premium runs the package from storage as its identity', async () => {
    const d = await deploy({ hosting: 'premium', maximumInstanceCount: 30, zoneRedundant: true })
    const plan = d.one('Microsoft.Web/serverfarms')
    assert.deepEqual(plan.sku, { name: 'EP1', tier: 'ElasticPremium', capacity: 3 })
    assert.equal(plan.properties.maximumElasticWorkerCount, 20)
    const { functionAppConfig, siteConfig } = d.site()
    assert.equal(functionAppConfig, null)
    assert.equal(siteConfig.ftpsState, 'Disabled')
    assert.equal(siteConfig.minimumElasticInstanceCount, 3)
    assert.equal(siteConfig.ipSecurityRestrictionsDefaultAction, 'Deny')
    const settings = d.settings()
    assert.equal(settings.FUNCTIONS_WORKER_RUNTIME, 'custom')
    assert.match(settings.WEBSITE_RUN_FROM_PACKAGE, /handler\.zip/)
    assert.equal(siteConfig.healthCheckPath, '/health?live=1')
    assert.equal(d.all('Microsoft.Authorization/roleAssignments').length, 3) // storage for app and deployer, telemetry
  })

  test('in a network closes Redis and storage to everybody else', async () => {
    const d = await deploy({ vnetEnabled: true, redisClusteringPolicy: 'OSSCluster' })
    assert.equal(d.one('Microsoft.Cache/redisEnterprise').properties.publicNetworkAccess, 'Disabled')
    const account = d.one('Microsoft.Storage/storageAccounts').properties
    assert.deepEqual([account.publicNetworkAccess, account.networkAcls.defaultAction], ['Disabled', 'Deny'])
    assert.deepEqual(d.all('Microsoft.Network/privateDnsZones').map(zone => zone.name).sort(),
      ["[format('privatelink.blob.{0}', environment().suffixes.storage)]", 'privatelink.redis.azure.net'])
    assert.deepEqual(d.all('Microsoft.Network/privateEndpoints').map(e => e.properties.privateLinkServiceConnections[0].properties.groupIds[0]).sort(),
      ['blob', 'redisEnterprise'])
    const subnets = d.one('Microsoft.Network/virtualNetworks').properties.subnets
    assert.deepEqual(subnets.flatMap(subnet => subnet.properties.delegations ?? []).map(d => d.properties.serviceName), ['Microsoft.App/environments'])
    assert.notEqual(d.site().virtualNetworkSubnetId, null)
  })

  test('with Azure Cache for Redis turns keys and eviction off', async () => {
    const d = await deploy({ redisKind: 'cache', redisCacheSku: 'Premium_P2', vnetEnabled: true, hosting: 'premium' })
    const { sku, ...properties } = d.one('Microsoft.Cache/redis').properties
    assert.deepEqual(sku, { name: 'Premium', family: 'P', capacity: 2 })
    assert.equal(properties.disableAccessKeyAuthentication, true)
    assert.equal(properties.redisConfiguration['maxmemory-policy'], 'noeviction')
    assert.equal(d.one('Microsoft.Cache/redis/accessPolicyAssignments').properties.accessPolicyName, 'Data Contributor')
    assert.ok(d.all('Microsoft.Network/privateDnsZones').some(zone => zone.name === 'privatelink.redis.cache.windows.net'))
    assert.deepEqual(d.all('Microsoft.Cache/redisEnterprise'), [])
    assert.equal(d.settings().REDIS_CLUSTER, 'false')
  })

  for (const [kind, type] of [['redisEnterprise', 'redisEnterprise/databases/accessPolicyAssignments'], ['redis', 'redis/accessPolicyAssignments']]) {
    test(`with an existing ${kind} only lets the app in`, async () => {
      const d = await deploy({ redisKind: 'existing', redisResourceId: `${elsewhere}/Microsoft.Cache/${kind}/mine` })
      const ofRedis = d.resources.filter(resource => resource.type.startsWith('Microsoft.Cache/'))
      assert.deepEqual(ofRedis.map(resource => resource.type), [`Microsoft.Cache/${type}`])
      assert.deepEqual(d.all('Microsoft.Authorization/locks'), [])
      assert.match(d.settings().REDIS_HOSTNAME, /redisExisting/)
      const watched = d.all('Microsoft.Insights/metricAlerts').flatMap(alert => alert.properties.scopes)
      assert.equal(watched.filter(scope => scope === `${elsewhere}/Microsoft.Cache/${kind}/mine`).length, 4)
    })
  }

  test('with Premium Front Door has managed rules, and Private Link as the only way in', async () => {
    const d = await deploy({ frontDoor: 'premium', frontDoorPrivateLink: true, firewallIgnoresText: true })
    const [rules, bots] = d.one('Microsoft.Network/FrontDoorWebApplicationFirewallPolicies').properties.managedRules.managedRuleSets
    assert.deepEqual([rules.ruleSetType, bots.ruleSetType], ['Microsoft_DefaultRuleSet', 'Microsoft_BotManagerRuleSet'])
    assert.equal(rules.exclusions[0].selector, 'text')
    assert.equal(d.one('Microsoft.Cdn/profiles/originGroups/origins').properties.sharedPrivateLinkResource.groupId, 'sites')
    assert.deepEqual(d.site().siteConfig.ipSecurityRestrictions, [])
    assert.equal(d.site().siteConfig.ipSecurityRestrictionsDefaultAction, 'Deny')
  })

  test('opens the Private Link in the region that it is told', async () => {
    const wanted = { frontDoor: 'premium', frontDoorPrivateLink: true }
    const place = async more => (await deploy({ ...wanted, ...more })).one('Microsoft.Cdn/profiles/originGroups/origins').properties.sharedPrivateLinkResource.privateLinkLocation
    assert.equal(await place({}), 'westeurope')
    assert.equal(await place({ privateLinkLocation: 'northeurope' }), 'northeurope')
  })

  test('without Front Door is reached by its own name, by everybody with a token or by the addresses named', async () => {
    const d = await deploy({ frontDoor: 'none' })
    assert.deepEqual(d.resources.filter(resource => /^Microsoft\.(Cdn|Network)\//.test(resource.type)), [])
    assert.deepEqual([d.site().siteConfig.ipSecurityRestrictions, d.site().siteConfig.ipSecurityRestrictionsDefaultAction], [[], 'Allow'])
    assert.equal(d.settings().FRONT_DOOR_ID, '')
    assert.match(d.one('Microsoft.Insights/webtests').properties.Request.RequestUrl, /functionApp/)
    const { ipSecurityRestrictions: list, ipSecurityRestrictionsDefaultAction: otherwise } =
      (await deploy({ frontDoor: 'none', callerAddresses: '192.0.2.0/24, 198.51.100.7/32' })).site().siteConfig
    assert.deepEqual([list.map(rule => rule.ipAddress), otherwise], [['192.0.2.0/24', '198.51.100.7/32'], 'Deny'])
  })

  test('without probes lets the app scale to zero', async () => {
    const d = await deploy({ probeSeconds: 0 })
    assert.equal(d.one('Microsoft.Cdn/profiles/originGroups').properties.healthProbeSettings, null)
    assert.deepEqual(d.all('Microsoft.Insights/webtests'), [])
    const metrics = JSON.stringify(d.all('Microsoft.Insights/metricAlerts'))
    assert.ok(!metrics.includes('OriginHealthPercentage') && !metrics.includes('WebtestLocationAvailabilityCriteria'))
  })

  test('locks its Redis, unless told not to, and knows how many connections it takes', async () => {
    const clients = d => d.all('Microsoft.Insights/metricAlerts').flatMap(alert => alert.properties.criteria.allOf ?? [])
      .find(criterion => criterion.metricName === 'connectedclients').threshold
    const d = await deploy({ redisSku: 'Balanced_B20' })
    assert.match(d.one('Microsoft.Authorization/locks').id, /redisEnterprise/)
    assert.equal(clients(d), 60000)
    const open = await deploy({ redisLock: false })
    assert.deepEqual(open.all('Microsoft.Authorization/locks'), [])
    assert.equal(clients(open), 12000)
  })

  test('has as many alerts as docs/deploy.md says are billed', async () => {
    const d = await deploy({})
    const series = d.all('Microsoft.Insights/metricAlerts').reduce((sum, alert) => sum + (alert.properties.criteria.allOf?.length ?? 1), 0)
    const [, metrics, queries] = readFileSync(join(root, 'docs/deploy.md'), 'utf8').match(/^\| alerts \| .* × (\d+) \+ .* × (\d+) \|/m)
    assert.deepEqual([series, d.all('Microsoft.Insights/scheduledQueryRules').length], [Number(metrics), Number(queries)])
  })

  test('tells of Azure\'s incidents in one region, or in all', async () => {
    const regions = async parameters => (await deploy(parameters)).one('Microsoft.Insights/activityLogAlerts').properties.condition.allOf
      .find(part => /RegionName/.test(part.field))?.containsAny
    assert.equal(await regions({}), undefined)
    assert.deepEqual(await regions({ regionDisplayName: 'West Europe' }), ['West Europe', 'Global'])
  })

  test('takes settings, origins, tags, a custom domain and an agent', async () => {
    const d = await deploy({
      settings: { REDIS_TTL: '86400' }, corsOrigins: 'https://a.example, https://b.example', tags: { team: 'chat' }, customDomainName: 'chat-example',
      alwaysReadyInstances: 2, agent: 'openai', agentEndpoint: 'https://o.example/openai/v1/', agentModel: 'm',
      openaiAccountId: `${elsewhere}/Microsoft.CognitiveServices/accounts/mine`,
      authIssuer: 'https://login.example/{tenantid}/v2.0', authJwksUrl: 'https://login.example/keys', allowedTenantIds: least.authAudience,
    })
    const settings = d.settings()
    assert.equal(settings.REDIS_TTL, '86400')
    assert.deepEqual([settings.AGENT, settings.OPENAI_BASE_URL, settings.OPENAI_MODEL], ['openai', 'https://o.example/openai/v1/', 'm'])
    assert.deepEqual([settings.AUTH_TENANT_ID, settings.AUTH_ISSUER], ['', 'https://login.example/{tenantid}/v2.0'])
    assert.deepEqual(d.site().siteConfig.cors.allowedOrigins, ['https://a.example', 'https://b.example'])
    assert.deepEqual(d.site().functionAppConfig.scaleAndConcurrency.alwaysReady, [{ name: 'http', instanceCount: 2 }])
    assert.equal(d.one('Microsoft.Resources/resourceGroups').tags.team, 'chat')
    for (const route of d.all('Microsoft.Cdn/profiles/afdEndpoints/routes')) {
      assert.match(JSON.stringify(route.properties.customDomains), /chat-example/)
    }
    const role = d.all('Microsoft.Authorization/roleAssignments').find(role => /5e0bd9bd/.test(role.properties.roleDefinitionId))
    assert.ok(role.id.startsWith(`[extensionResourceId('${elsewhere}/Microsoft.CognitiveServices/accounts/mine',`), role.id)
  })

  test('keeps no key: no value of any resource looks like a secret', async () => {
    for (const parameters of [{}, { hosting: 'premium', redisKind: 'cache' }]) {
      const names = JSON.stringify((await deploy(parameters)).resources).match(/"[^"]*(password|secret|sharedkey|accesskey)[^"]*":/gi) ?? []
      assert.deepEqual([...new Set(names)].sort(), ['"allowSharedKeyAccess":',
        ...(parameters.redisKind ? ['"disableAccessKeyAuthentication":'] : ['"accessKeysAuthentication":'])].sort())
    }
  })
})

describe('a deployment is refused', () => {
  for (const [why, parameters] of [
    ['corsOrigins', { corsOrigins: '*' }],
    ['authIssuer', { authJwksUrl: 'https://login.example/keys' }],
    ['allowedTenantIds', { authIssuer: 'https://login.example/{tenantid}/v2.0', authJwksUrl: 'https://login.example/keys' }],
    ['allowedTenantIds', { allowedTenantIds: least.authAudience }],
    ['frontDoorPrivateLink', { frontDoorPrivateLink: true }],
    ['firewallIgnoresText', { firewallIgnoresText: true }],
    ['callerAddresses', { callerAddresses: '192.0.2.0/24' }],
    ['probeSeconds', { probeSeconds: 4 }],
    ['maximumInstanceCount', { maximumInstanceCount: 39 }],
    ['redisResourceId', { redisKind: 'existing' }],
    ['agentEndpoint', { agent: 'copilotstudio' }],
    ['REDIS_TLL', { settings: { REDIS_TLL: '1' } }],
  ]) {
    test(`${why} in ${JSON.stringify(parameters)}`, async () => {
      await assert.rejects(deploy(parameters), new RegExp(why))
    })
  }
})
