metadata description = 'The Function App that runs the handler, and its plan: Flex Consumption, or Elastic Premium. It answers callers only through our Front Door.'

@description('Unique part of the resource names.')
param suffix string

@description('Azure region.')
param location string

@description('Tags of the resources.')
param tags object

@description('Flex Consumption, or Elastic Premium.')
param hosting 'flex' | 'premium'

@description('Size of an Elastic Premium instance.')
param premiumSku string

@description('Memory of a Flex Consumption instance, in MB.')
param instanceMemoryMB int

@description('Most instances at a time; Elastic Premium takes at most 20 here.')
param maximumInstanceCount int

@description('Requests that a Flex Consumption instance takes at a time before another is started.')
param perInstanceConcurrency int

@description('Instances that never stop: a floor on the time to answer, billed around the clock. Elastic Premium has at least 1, over zones 3.')
param alwaysReadyInstances int

@description('Whether instances are spread over three zones.')
param zoneRedundant bool

@description('Resource id of the identity that the app acts as.')
param identityId string

@description('Client id of the same identity.')
param identityClientId string

@description('Name of the storage account of the Functions host.')
param storageAccountName string

@description('Address of the container with the deployed package.')
param packageContainerUrl string

@description('Connection string of Application Insights; no secret, for local authentication is off.')
param connectionString string

@description('The handler\'s settings.')
param settings object

@description('Web origins whose pages may call the API.')
param allowedOrigins string[]

@description('Id that our Front Door writes into every request it forwards; empty without Front Door.')
param frontDoorId string

@description('Whether callers come through Front Door.')
param behindFrontDoor bool

@description('Whether Front Door comes through Private Link, so that nobody may come any other way.')
param frontDoorPrivateLink bool

@description('Addresses that may call an app without Front Door; none for everybody.')
param callerAddresses string[]

@description('Resource id of the subnet that the app sends from; empty for none.')
param subnetId string

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

var flex = hosting == 'flex'
var smallInstances = flex && instanceMemoryMB == 512
var floor = max(alwaysReadyInstances, zoneRedundant ? 3 : 1) // of Elastic Premium

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: 'plan-${suffix}'
  location: location
  tags: tags
  kind: flex ? 'functionapp' : 'elastic'
  sku: flex ? { name: 'FC1', tier: 'FlexConsumption' } : { name: premiumSku, tier: 'ElasticPremium', capacity: floor }
  properties: {
    reserved: true // Linux
    zoneRedundant: zoneRedundant
    maximumElasticWorkerCount: flex ? null : min(maximumInstanceCount, 20)
  }
}

// The service tag alone would let in everybody's Front Door.
var fromFrontDoor = {
  name: 'front-door'
  priority: 100
  action: 'Allow'
  tag: 'ServiceTag'
  ipAddress: 'AzureFrontDoor.Backend'
  headers: { 'x-azure-fdid': [frontDoorId] }
}
var fromCallers = [
  for (address, i) in callerAddresses: { name: 'caller-${i}', priority: 100 + i, action: 'Allow', ipAddress: address }
]

// Flex Consumption refuses properties that other plans take, in some regions only: what it need not have is in premiumConfig.
var siteConfig = {
  minTlsVersion: '1.2'
  cors: { allowedOrigins: allowedOrigins, supportCredentials: false }
  ipSecurityRestrictions: !behindFrontDoor ? fromCallers : frontDoorPrivateLink ? [] : [fromFrontDoor]
  ipSecurityRestrictionsDefaultAction: !behindFrontDoor && empty(callerAddresses) ? 'Allow' : 'Deny' // then the token is the lock
  // Deployments come by this door, with the deployer's Entra token.
  scmIpSecurityRestrictionsUseMain: false
  scmIpSecurityRestrictionsDefaultAction: 'Allow'
}

var premiumConfig = {
  // live=1 leaves the store out: an instance is not ill because Redis is, and starting another would not help. Flex has no health check.
  healthCheckPath: '/health?live=1'
  ftpsState: 'Disabled'
  http20Enabled: true
  remoteDebuggingEnabled: false
  scmMinTlsVersion: '1.2'
  minimumElasticInstanceCount: floor
}

resource site 'Microsoft.Web/sites@2025-03-01' = {
  name: 'func-${suffix}'
  location: location
  tags: union(tags, { 'azd-service-name': 'api' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    publicNetworkAccess: 'Enabled' // for Front Door and for deployments; siteConfig says who comes through
    clientAffinityEnabled: false
    keyVaultReferenceIdentity: identityId
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    outboundVnetRouting: flex || empty(subnetId) ? null : { applicationTraffic: true }
    functionAppConfig: flex
      ? {
          deployment: {
            storage: {
              type: 'blobContainer'
              value: packageContainerUrl
              authentication: { type: 'UserAssignedIdentity', userAssignedIdentityResourceId: identityId }
            }
          }
          runtime: { name: 'custom', version: '1.0' }
          scaleAndConcurrency: {
            instanceMemoryMB: instanceMemoryMB
            maximumInstanceCount: maximumInstanceCount
            alwaysReady: alwaysReadyInstances > 0 ? [{ name: 'http', instanceCount: alwaysReadyInstances }] : []
            triggers: { http: { perInstanceConcurrency: perInstanceConcurrency } }
          }
        }
      : null
    siteConfig: flex ? siteConfig : union(siteConfig, premiumConfig)
  }

  resource appSettings 'config' = {
    name: 'appsettings'
    properties: union(
      {
        AzureWebJobsStorage__accountName: storageAccountName
        AzureWebJobsStorage__credential: 'managedidentity'
        AzureWebJobsStorage__clientId: identityClientId
        APPLICATIONINSIGHTS_CONNECTION_STRING: connectionString
        APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
        // The host reads a body whole before the handler hears of it, without asking who sent it, and by default takes 100 MB. This is
        // the largest body that the handler takes, 1 MiB, and 64 KiB more, so that the handler refuses what is a little too large. 200
        // callers at once then take the host to 700 MB, more than a small instance has: there the handler takes 256 KiB of anything.
        FUNCTIONS_REQUEST_BODY_SIZE_LIMIT: smallInstances ? '327680' : '1114112'
        MAX_UI_BODY: smallInstances ? '262144' : '1048576'
        // The host would answer everybody at / with a page of its own, 150 kB.
        AzureWebJobsDisableHomepage: 'true'
        // The host would write its own events into a table, for which the identity has neither role nor private endpoint.
        AzureWebJobsFeatureFlags: 'DisableDiagnosticEventLogging'
      },
      flex
        ? {}
        : {
            FUNCTIONS_EXTENSION_VERSION: '~4'
            FUNCTIONS_WORKER_RUNTIME: 'custom'
            // From the container, as the identity: an Azure Files share would need a storage key.
            WEBSITE_RUN_FROM_PACKAGE: '${packageContainerUrl}/handler.zip'
            WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID: identityId
          },
      settings
    )
  }

  resource ftpCredentials 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: { allow: false }
  }

  resource scmCredentials 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: { allow: false }
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'all'
  scope: site
  properties: {
    workspaceId: workspaceId
    // No logs: Application Insights has them already.
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

@description('Resource id of the Function App.')
output id string = site.id

@description('Name of the Function App.')
output name string = site.name

@description('The app\'s own host name, where only Front Door is answered.')
output host string = site.properties.defaultHostName
