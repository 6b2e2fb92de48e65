metadata description = 'Azure Cache for Redis: TLS only, reached by Entra identities alone. It retires on 2028-09-30.'

@description('Name of the cache.')
param name string

@description('Azure region.')
param location string

@description('Tags of the resource.')
param tags object

@description('Tier and size, such as Standard_C1 or Premium_P1.')
param skuName string

@description('Whether the cache is reached through private endpoints only.')
param private bool

@description('Whether nobody can delete the cache before they take its lock away.')
param lock bool

@description('Object id of the identity that may use the cache.')
param principalId string

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

var tier = split(skuName, '_')[0]
var size = split(skuName, '_')[1]

resource cache 'Microsoft.Cache/redis@2024-11-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    sku: { name: tier, family: substring(size, 0, 1), capacity: int(substring(size, 1)) }
    enableNonSslPort: false
    minimumTlsVersion: '1.2'
    publicNetworkAccess: private ? 'Disabled' : 'Enabled'
    disableAccessKeyAuthentication: true
    zonalAllocationPolicy: 'Automatic'
    redisVersion: '6'
    redisConfiguration: {
      'aad-enabled': 'True'
      // Every key of a conversation has an expiry, so any other policy would let the cache drop conversations when it is full.
      'maxmemory-policy': 'noeviction'
    }
  }

  resource access 'accessPolicyAssignments' = {
    name: principalId
    properties: {
      accessPolicyName: 'Data Contributor'
      objectId: principalId
      objectIdAlias: 'chatkeep'
    }
  }
}

resource deletionLock 'Microsoft.Authorization/locks@2020-05-01' = if (lock) {
  name: 'conversations'
  scope: cache
  properties: {
    level: 'CanNotDelete'
    notes: 'Every conversation is here, and nowhere else.'
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'all'
  scope: cache
  properties: {
    workspaceId: workspaceId
    logs: [{ categoryGroup: 'allLogs', enabled: true }]
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

@description('Resource id of the cache.')
output id string = cache.id

@description('Host name that clients connect to.')
output host string = cache.properties.hostName

@description('Port that clients connect to.')
output port int = cache.properties.sslPort
