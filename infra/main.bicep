targetScope = 'subscription'

metadata name = 'Chatkeep'
metadata description = 'A Function App that keeps chat conversations in Redis, behind Front Door, without a secret anywhere.'

// What every deployment says

@minLength(1)
@maxLength(30)
@description('Name of the environment, such as chatkeep-test; it is part of the name of the resource group.')
param environmentName string

@metadata({ azd: { type: 'location' } })
@description('Azure region of everything that has one.')
param location string

@description('Tags of every resource, beside azd-env-name.')
param tags object = {}

// Who may call

@minLength(36)
@description('Client ids of the API\'s app registration (scripts/register-api.sh makes one), separated by commas: the audience of accepted tokens.')
param authAudience string

@description('Entra tenant whose users may call; empty for the tenant of the subscription. Not used with authIssuer.')
param authTenantId string = ''

@description('Issuer of accepted tokens, for several tenants (with {tenantid} in it), a sovereign cloud or External ID; empty for the one tenant.')
param authIssuer string = ''

@description('Address of the issuer\'s keys, with authIssuer; empty otherwise.')
param authJwksUrl string = ''

@description('Tenants whose users may call, separated by commas: required when authIssuer holds {tenantid}.')
param allowedTenantIds string = ''

@description('Client ids of the apps that may call for their users, separated by commas; empty for every app.')
param allowedClientIds string = ''

@description('Scope that a token must have.')
param authRequiredScope string = 'access_as_user'

@description('Web origins whose pages may call the API, separated by commas, such as https://chat.example.com. The platform answers for CORS, never the handler; * is not taken.')
param corsOrigins string = ''

// The handler

@sealed()
type handlerSettings = {
  REDIS_TTL: string?
  REDIS_TIMEOUT: string?
  REDIS_DIAL_TIMEOUT: string?
  REDIS_POOL_TIMEOUT: string?
  REDIS_COMMAND_TIMEOUT: string?
  REDIS_POOL_SIZE: string?
  REDIS_WAIT_REPLICAS: string?
  AGENT_CONNECT_TIMEOUT: string?
  AGENT_FIRST_BYTE_TIMEOUT: string?
  AGENT_SILENCE_TIMEOUT: string?
  AGENT_TIMEOUT: string?
  AGENT_CONTEXT_MESSAGES: string?
  AGENT_CONTEXT_BYTES: string?
  TURN_WAIT: string?
  TURN_LEASE: string?
  MAX_CONVERSATION_AGE: string?
  MAX_MESSAGES_PER_CONVERSATION: string?
  MAX_CONVERSATIONS_PER_USER: string?
  MAX_BYTES_PER_USER: string?
  MAX_TURNS_PER_MINUTE: string?
  MAX_CONCURRENT_REQUESTS_PER_USER: string?
  IDEMPOTENCY_TTL: string?
  MAX_IDEMPOTENCY_RECORDS: string?
  CALL_MAX: string?
  STREAM_MAX: string?
  OPENAI_API: string?
  OPENAI_SCOPE: string?
  AGENT_INSTRUCTIONS: string?
  AGENT_CONTEXT_TOKENS: string?
  COPILOTSTUDIO_ENVIRONMENT_ID: string?
  COPILOTSTUDIO_SCHEMA_NAME: string?
  COPILOTSTUDIO_AGENT_TYPE: string?
  COPILOTSTUDIO_CLOUD: string?
  COPILOTSTUDIO_CLOUD_HOST: string?
  COPILOTSTUDIO_CLIENT_ID: string?
  AZURE_AUTHORITY_HOST: string?
  SHUTDOWN_GRACE: string?
  LOG_LEVEL: string?
  OTEL_EXPORTER_OTLP_ENDPOINT: string?
  OTEL_EXPORTER_OTLP_TIMEOUT: string?
  OTEL_METRIC_EXPORT_INTERVAL: string?
  OTEL_TRACES_SAMPLER: string?
  OTEL_TRACES_SAMPLER_ARG: string?
  OTEL_SERVICE_NAME: string?
  OTEL_RESOURCE_ATTRIBUTES: string?
}

@description('Settings of the handler to change from their defaults, such as { "REDIS_TTL": "86400" }; the README says what each does.')
param settings handlerSettings = {}

@description('Who answers: none is the built-in echo, for tests; docs/agents.md describes the others.')
param agent 'none' | 'openai' | 'copilotstudio' = 'none'

@description('Address of the agent: the base URL of an OpenAI-compatible API, or the connection string of a Copilot Studio agent.')
param agentEndpoint string = ''

@description('Model or deployment that answers, for openai.')
param agentModel string = ''

@description('Resource id of an existing Azure OpenAI account in this tenant, whose models the app\'s identity may then ask; empty for none.')
param openaiAccountId string = ''

// Where it runs

@description('flex (Flex Consumption) scales from zero and is what azd up deploys. premium (Elastic Premium) is for those who need slots or a fixed floor, and is deployed by scripts/deploy.sh.')
param hosting 'flex' | 'premium' = 'flex'

@allowed([512, 2048, 4096])
@description('Memory of a Flex Consumption instance, in MB.')
param instanceMemoryMB int = 2048

@minValue(1)
@maxValue(1000)
@description('Most instances at a time: Flex Consumption takes 40 to 1000, Elastic Premium at most 20. Times the pool of 20 connections each, it must stay below what the Redis SKU allows.')
param maximumInstanceCount int = 100

@minValue(1)
@maxValue(1000)
@description('Requests that a Flex Consumption instance takes at a time before another is started. A request mostly waits for Redis or the agent, so one instance takes many.')
param perInstanceConcurrency int = 200

@minValue(0)
@maxValue(20)
@description('Instances that never stop, so that nobody waits for a start; they are billed around the clock.')
param alwaysReadyInstances int = 0

@allowed(['EP1', 'EP2', 'EP3'])
@description('Size of an Elastic Premium instance.')
param premiumSku string = 'EP1'

@description('Whether instances and the storage account are spread over three zones, where the region has them.')
param zoneRedundant bool = false

// Redis

@description('managed creates an Azure Managed Redis. cache creates an Azure Cache for Redis, which Azure refuses to tenants that had none before 2026-04-01 ("Azure Cache for Redis is retiring, create Azure Managed Redis instance instead") and retires on 2028-09-30. existing takes redisResourceId.')
param redisKind 'managed' | 'cache' | 'existing' = 'managed'

@description('SKU of Azure Managed Redis: Balanced_B0 (0.5 GB) upwards; Balanced, MemoryOptimized, ComputeOptimized, FlashOptimized. Not every region has every SKU.')
param redisSku string = 'Balanced_B0'

@description('Whether Azure Managed Redis keeps a replica; once Enabled it cannot be disabled. Without one, a failing node loses what is not yet on disk.')
param redisHighAvailability 'Enabled' | 'Disabled' = 'Enabled'

@description('How clients see Azure Managed Redis. NoCluster goes up to 25 GB and alone can be changed in place later; OSSCluster is for more; EnterpriseCluster hides its nodes behind one address.')
param redisClusteringPolicy 'NoCluster' | 'OSSCluster' | 'EnterpriseCluster' = 'NoCluster'

@description('What Azure Managed Redis writes to disk: aof every second, rdb every hour, or none.')
param redisPersistence 'aof' | 'rdb' | 'none' = 'aof'

@description('Tier and size of Azure Cache for Redis, such as Standard_C1 or Premium_P1.')
param redisCacheSku string = 'Standard_C1'

@description('Resource id of an existing Azure Managed Redis or Azure Cache for Redis with Entra authentication on and eviction off. The app\'s identity is let in; nothing else of it is changed.')
param redisResourceId string = ''

@description('Whether the Redis of this deployment has a lock against deletion; it holds every conversation. azd down fails until somebody takes the lock away, as docs/deploy.md says.')
param redisLock bool = true

// Front Door

@description('standard; premium adds managed firewall rules, which standard does not take, and Private Link; none leaves Front Door and its firewall out: callers come to the app\'s own name, and the token check is the lock.')
param frontDoor 'standard' | 'premium' | 'none' = 'standard'

@description('Addresses that may call an app without Front Door, as CIDR separated by commas; empty for everybody with a token.')
param callerAddresses string = ''

@description('Whether premium Front Door reaches the app through Private Link. The connection is approved after the deployment, by azd\'s hook or scripts/deploy.sh.')
param frontDoorPrivateLink bool = false

@description('Region in which Front Door opens the Private Link; empty for the region of the app, which must then be one that Front Door offers.')
param privateLinkLocation string = ''

@minValue(16)
@maxValue(240)
@description('Seconds that Front Door waits for the app, for the first byte and between bytes. An answer may take 230 seconds, the platform\'s limit.')
param originTimeoutSeconds int = 240

@minValue(0)
@maxValue(255)
@description('Seconds between health probes of one Front Door location, 5 to 255. There are many locations, each probe is a request that is billed, and keeps an instance awake. 0 leaves out probes and web tests: the app scales to zero, and nobody is told of an outage while nobody calls.')
param probeSeconds int = 240

@minValue(1)
@description('Requests of one client address in a minute above which the firewall refuses it. People behind one company address share it.')
param rateLimitPerMinute int = 600

@description('Whether the managed firewall rules leave the field text unread, if they take what people write for an attack; premium only.')
param firewallIgnoresText bool = false

@description('Name of a custom domain of the Front Door profile, made with az afd custom-domain create; empty for none.')
param customDomainName string = ''

// Network

@description('Whether Redis and storage are reached through private endpoints in a virtual network only.')
param vnetEnabled bool = false

// Watching

@description('Who gets an email when an alert fires; empty for nobody.')
param alertEmail string = ''

@description('Whether alerts tell anybody. A first deployment begins with false, and its publishing makes it true, for nothing answers before.')
param alertsEnabled bool = true

@minValue(10)
@description('Milliseconds that 95 of 100 requests must stay below, other than those that wait for an agent, before an alert fires.')
param latencyAlertMilliseconds int = 500

@minValue(30)
@maxValue(730)
@description('Days that logs are kept.')
param logRetentionDays int = 30

@minValue(-1)
@description('Gigabytes of logs a day after which no more are taken until the next, and an alert fires; -1 is no limit.')
param logDailyQuotaGb int = 2

@description('The region\'s display name, such as West Europe: service health alerts then tell of it and of Global alone; empty for incidents of every region.')
param regionDisplayName string = ''

// Combinations that could not work are refused before anything is deployed.
var origins = contains(corsOrigins, '*')
  ? fail('corsOrigins: name each origin; * is not taken')
  : filter(map(split(corsOrigins, ','), origin => trim(origin)), origin => !empty(origin))
var keysUrl = empty(authIssuer) != empty(authJwksUrl)
  ? fail('authIssuer and authJwksUrl: give both, or neither for the one tenant')
  : authJwksUrl
var manyTenants = contains(authIssuer, '{tenantid}')
var tenants = manyTenants && empty(allowedTenantIds) || empty(authIssuer) && !empty(allowedTenantIds)
  ? fail('allowedTenantIds: required when authIssuer holds {tenantid}, and not taken without authIssuer')
  : allowedTenantIds
var privateLink = frontDoorPrivateLink && frontDoor != 'premium'
  ? fail('frontDoorPrivateLink: needs frontDoor premium')
  : frontDoorPrivateLink
var managedRuleText = firewallIgnoresText && frontDoor != 'premium'
  ? fail('firewallIgnoresText: only frontDoor premium has managed rules')
  : firewallIgnoresText
var callers = !empty(callerAddresses) && frontDoor != 'none'
  ? fail('callerAddresses: needs frontDoor none, for with Front Door it alone is let in')
  : filter(map(split(callerAddresses, ','), address => trim(address)), address => !empty(address))
var probes = probeSeconds > 0 && probeSeconds < 5 ? fail('probeSeconds: 0, or 5 to 255') : probeSeconds
var instances = hosting == 'flex' && maximumInstanceCount < 40
  ? fail('maximumInstanceCount: Flex Consumption takes 40 to 1000')
  : maximumInstanceCount
var existingRedisId = redisKind == 'existing' && !contains(toLower(redisResourceId), '/microsoft.cache/redis')
  ? fail('redisResourceId: must be the id of a Microsoft.Cache/redisEnterprise or Microsoft.Cache/redis, for redisKind is existing')
  : redisResourceId
var agentSettings = agent == 'none'
  ? {}
  : empty(agentEndpoint)
      ? fail('agentEndpoint: must be given with an agent')
      : agent == 'copilotstudio'
          ? { COPILOTSTUDIO_DIRECT_URL: agentEndpoint }
          : { OPENAI_BASE_URL: agentEndpoint, OPENAI_MODEL: agentModel, OPENAI_AUTH: 'entra' }

var suffix = toLower(uniqueString(subscription().id, environmentName, location))
var allTags = union(tags, { 'azd-env-name': environmentName })
var existingRedis = redisKind == 'existing'
var existingManaged = contains(toLower(existingRedisId), '/microsoft.cache/redisenterprise/')
var managed = existingRedis ? existingManaged : redisKind == 'managed'
var behindFrontDoor = frontDoor != 'none'
var frontDoorSku = frontDoor == 'premium' ? 'Premium_AzureFrontDoor' : 'Standard_AzureFrontDoor'
var groupName = 'rg-${environmentName}'

// Of the two ids of resources that are there already: /subscriptions/<2>/resourceGroups/<4>/providers/…/<name>
var redisSubscription = existingRedis ? split(existingRedisId, '/')[2] : subscription().subscriptionId
var redisGroup = existingRedis ? split(existingRedisId, '/')[4] : groupName
var askOpenai = agent == 'openai' && !empty(openaiAccountId)
var openaiSubscription = askOpenai ? split(openaiAccountId, '/')[2] : subscription().subscriptionId
var openaiGroup = askOpenai ? split(openaiAccountId, '/')[4] : groupName

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: groupName
  location: location
  tags: allTags
}

module identity 'modules/identity.bicep' = {
  scope: group
  params: { name: 'id-${suffix}', location: location, tags: allTags }
}

module monitoring 'modules/monitoring.bicep' = {
  scope: group
  params: {
    suffix: suffix
    location: location
    tags: allTags
    retentionInDays: logRetentionDays
    dailyQuotaGb: logDailyQuotaGb
    alertEmail: alertEmail
    alertsEnabled: alertsEnabled
    principalId: identity.outputs.principalId
  }
}

module network 'modules/network.bicep' = if (vnetEnabled) {
  scope: group
  params: {
    suffix: suffix
    location: location
    tags: allTags
    delegation: hosting == 'flex' ? 'Microsoft.App/environments' : 'Microsoft.Web/serverFarms'
    workspaceId: monitoring.outputs.workspaceId
  }
}

module storage 'modules/storage.bicep' = {
  scope: group
  params: {
    name: 'st${suffix}'
    location: location
    tags: allTags
    zoneRedundant: zoneRedundant
    private: vnetEnabled
    principalId: identity.outputs.principalId
    uploaderId: deployer().objectId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module storageEndpoint 'modules/private-endpoint.bicep' = if (vnetEnabled) {
  scope: group
  params: {
    name: 'pep-blob-${suffix}'
    location: location
    tags: allTags
    targetId: storage.outputs.id
    groupId: 'blob'
    zoneName: 'privatelink.blob.${environment().suffixes.storage}'
    networkId: network!.outputs.id
    subnetId: network!.outputs.endpointSubnetId
  }
}

module redisManaged 'modules/redis-managed.bicep' = if (redisKind == 'managed') {
  scope: group
  params: {
    name: 'amr-${suffix}'
    location: location
    tags: allTags
    skuName: redisSku
    highAvailability: redisHighAvailability
    clusteringPolicy: redisClusteringPolicy
    persistence: redisPersistence
    lock: redisLock
    private: vnetEnabled
    principalId: identity.outputs.principalId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module redisCache 'modules/redis-cache.bicep' = if (redisKind == 'cache') {
  scope: group
  params: {
    name: 'redis-${suffix}'
    location: location
    tags: allTags
    skuName: redisCacheSku
    lock: redisLock
    private: vnetEnabled
    principalId: identity.outputs.principalId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module redisExisting 'modules/redis-existing.bicep' = if (existingRedis) {
  scope: resourceGroup(redisSubscription, redisGroup)
  params: {
    name: last(split(existingRedisId, '/'))
    managed: managed
    principalId: identity.outputs.principalId
  }
}

var redisId = existingRedis ? existingRedisId : managed ? redisManaged!.outputs.id : redisCache!.outputs.id
var redisHost = existingRedis
  ? redisExisting!.outputs.host
  : managed ? redisManaged!.outputs.host : redisCache!.outputs.host
var redisPort = existingRedis
  ? redisExisting!.outputs.port
  : managed ? redisManaged!.outputs.port : redisCache!.outputs.port
var redisCluster = existingRedis ? redisExisting!.outputs.cluster : managed ? redisManaged!.outputs.cluster : false

module redisEndpoint 'modules/private-endpoint.bicep' = if (vnetEnabled) {
  scope: group
  params: {
    name: 'pep-redis-${suffix}'
    location: location
    tags: allTags
    targetId: redisId
    groupId: managed ? 'redisEnterprise' : 'redisCache'
    zoneName: managed ? 'privatelink.redis.azure.net' : 'privatelink.redis.cache.windows.net'
    networkId: network!.outputs.id
    subnetId: network!.outputs.endpointSubnetId
  }
}

module frontDoorProfile 'modules/front-door-profile.bicep' = if (behindFrontDoor) {
  scope: group
  params: {
    name: 'cdnp-${suffix}'
    tags: allTags
    skuName: frontDoorSku
    originTimeoutSeconds: originTimeoutSeconds
    workspaceId: monitoring.outputs.workspaceId
  }
}

module agentAccess 'modules/agent-access.bicep' = if (askOpenai) {
  scope: resourceGroup(openaiSubscription, openaiGroup)
  params: { accountName: last(split(openaiAccountId, '/')), principalId: identity.outputs.principalId }
}

var frontDoorId = behindFrontDoor ? frontDoorProfile!.outputs.frontDoorId : ''

// What the deployment tells the handler; agentSettings and the parameter settings come on top, and the rest has its default.
var deploymentSettings = {
  AUTH_TENANT_ID: empty(authIssuer) ? toLower(empty(authTenantId) ? tenant().tenantId : authTenantId) : ''
  AUTH_ISSUER: authIssuer
  AUTH_AUDIENCE: authAudience
  AUTH_JWKS_URL: keysUrl
  ALLOWED_TENANT_IDS: tenants
  ALLOWED_CLIENT_IDS: allowedClientIds
  AUTH_REQUIRED_SCOPE: authRequiredScope
  FRONT_DOOR_ID: frontDoorId
  REDIS_HOSTNAME: redisHost
  REDIS_PORT: string(redisPort)
  REDIS_CLUSTER: redisCluster ? 'true' : 'false'
  REDIS_AUTH: 'entra'
  REDIS_USERNAME: identity.outputs.principalId
  AZURE_CLIENT_ID: identity.outputs.clientId
  AGENT: agent == 'none' ? 'echo' : agent
}

module functionApp 'modules/function-app.bicep' = {
  scope: group
  params: {
    suffix: suffix
    location: location
    tags: allTags
    hosting: hosting
    premiumSku: premiumSku
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: instances
    perInstanceConcurrency: perInstanceConcurrency
    alwaysReadyInstances: alwaysReadyInstances
    zoneRedundant: zoneRedundant
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    storageAccountName: storage.outputs.name
    packageContainerUrl: storage.outputs.containerUrl
    connectionString: monitoring.outputs.connectionString
    settings: union(deploymentSettings, agentSettings, settings)
    allowedOrigins: origins
    frontDoorId: frontDoorId
    behindFrontDoor: behindFrontDoor
    frontDoorPrivateLink: privateLink
    callerAddresses: callers
    subnetId: vnetEnabled ? network!.outputs.appSubnetId : ''
    workspaceId: monitoring.outputs.workspaceId
  }
  dependsOn: [storageEndpoint, redisEndpoint]
}

module frontDoorRoutes 'modules/front-door-routes.bicep' = if (behindFrontDoor) {
  scope: group
  params: {
    profileName: frontDoorProfile!.outputs.name
    skuName: frontDoorSku
    suffix: suffix
    tags: allTags
    originHost: functionApp.outputs.host
    originId: functionApp.outputs.id
    privateLinkLocation: empty(privateLinkLocation) ? location : privateLinkLocation
    privateLink: privateLink
    customDomainName: customDomainName
    probeSeconds: probes
    rateLimitPerMinute: rateLimitPerMinute
    firewallIgnoresText: managedRuleText
  }
}

var url = 'https://${behindFrontDoor ? frontDoorRoutes!.outputs.host : functionApp.outputs.host}'

// Connections that Azure Managed Redis takes, by SKU; the least of Azure Cache for Redis from Standard_C1.
var connectionsBySku = { Balanced_B10: 30000, Balanced_B20: 75000 }
var connectionLimit = !managed ? 1000 : existingRedis ? 15000 : connectionsBySku[?redisSku] ?? 15000

module alerts 'modules/alerts.bicep' = {
  scope: group
  params: {
    suffix: suffix
    location: location
    tags: allTags
    actionGroupId: monitoring.outputs.actionGroupId
    applicationInsightsId: monitoring.outputs.applicationInsightsId
    workspaceId: monitoring.outputs.workspaceId
    workspaceCapped: logDailyQuotaGb > 0
    behindFrontDoor: behindFrontDoor
    frontDoorId: behindFrontDoor ? frontDoorProfile!.outputs.id : ''
    probed: probes > 0
    redisId: redisId
    redisConnectionLimit: connectionLimit
    regionDisplayName: regionDisplayName
    url: url
    latencyMilliseconds: latencyAlertMilliseconds
  }
}

module workbook 'modules/workbook.bicep' = {
  scope: group
  params: {
    location: location
    tags: allTags
    applicationInsightsId: monitoring.outputs.applicationInsightsId
    redisId: redisId
    redisType: managed ? 'microsoft.cache/redisenterprise' : 'microsoft.cache/redis'
  }
}

@description('Public address of the API.')
output API_URL string = url

@description('The Function App\'s own address, which refuses everybody but our Front Door; empty without one.')
output ORIGIN_URL string = behindFrontDoor ? 'https://${functionApp.outputs.host}' : ''

@description('Name of the resource group.')
output AZURE_RESOURCE_GROUP string = group.name

@description('Name of the Function App.')
output FUNCTION_APP_NAME string = functionApp.outputs.name

@description('Name of the Front Door profile; empty without one.')
output FRONT_DOOR_NAME string = behindFrontDoor ? frontDoorProfile!.outputs.name : ''

@description('Address of the container that holds the deployed package.')
output PACKAGE_CONTAINER_URL string = storage.outputs.containerUrl

@description('Host name of Redis.')
output REDIS_HOST string = redisHost

@description('Resource id of the action group, which tells of alerts.')
output ACTION_GROUP_ID string = monitoring.outputs.actionGroupId

@description('Resource id of the workbook.')
output WORKBOOK_ID string = workbook.outputs.id
