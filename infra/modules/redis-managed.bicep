metadata description = 'Azure Managed Redis, reached by Entra identities alone.'

@description('Name of the cache.')
param name string

@description('Azure region.')
param location string

@description('Tags of the resource.')
param tags object

@description('SKU, such as Balanced_B0.')
param skuName string

@description('Enabled keeps a replica of everything; it cannot be disabled later.')
param highAvailability 'Enabled' | 'Disabled'

@description('How clients see the cache; the handler is told through the output cluster.')
param clusteringPolicy 'NoCluster' | 'OSSCluster' | 'EnterpriseCluster'

@description('What is written to disk: aof every second, rdb every hour, or nothing.')
param persistence 'aof' | 'rdb' | 'none'

@description('Whether the cache is reached through private endpoints only.')
param private bool

@description('Whether nobody can delete the cache before they take its lock away.')
param lock bool

@description('Object id of the identity that may use the cache.')
param principalId string

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

resource cluster 'Microsoft.Cache/redisEnterprise@2025-07-01' = {
  name: name
  location: location
  tags: tags
  sku: { name: skuName }
  properties: {
    highAvailability: highAvailability
    minimumTlsVersion: '1.2'
    publicNetworkAccess: private ? 'Disabled' : 'Enabled'
  }

  resource database 'databases' = {
    name: 'default'
    properties: {
      clientProtocol: 'Encrypted'
      port: 10000
      clusteringPolicy: clusteringPolicy
      // Every key of a conversation has an expiry, so any other policy would let the cache drop conversations when it is full.
      evictionPolicy: 'NoEviction'
      accessKeysAuthentication: 'Disabled'
      persistence: persistence == 'aof'
        ? { aofEnabled: true, aofFrequency: '1s', rdbEnabled: false }
        : persistence == 'rdb'
            ? { aofEnabled: false, rdbEnabled: true, rdbFrequency: '1h' }
            : { aofEnabled: false, rdbEnabled: false }
    }

    resource access 'accessPolicyAssignments' = {
      name: replace(principalId, '-', '')
      properties: {
        accessPolicyName: 'default'
        user: { objectId: principalId }
      }
    }
  }
}

resource deletionLock 'Microsoft.Authorization/locks@2020-05-01' = if (lock) {
  name: 'conversations'
  scope: cluster
  properties: {
    level: 'CanNotDelete'
    notes: 'Every conversation is here, and nowhere else.'
  }
}

resource clusterDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'all'
  scope: cluster
  properties: {
    workspaceId: workspaceId
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

resource databaseDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'all'
  scope: cluster::database
  properties: {
    workspaceId: workspaceId
    logs: [{ categoryGroup: 'allLogs', enabled: true }]
  }
}

@description('Resource id of the cache.')
output id string = cluster.id

@description('Host name that clients connect to.')
output host string = cluster.properties.hostName

@description('Port that clients connect to.')
output port int = cluster::database.properties.port

@description('Whether clients must speak the protocol of a Redis cluster.')
output cluster bool = clusteringPolicy == 'OSSCluster'
