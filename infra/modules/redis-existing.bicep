metadata description = 'Lets the app\'s identity into a Redis that is there already, and finds out how to reach it. Nothing else of it is changed.'

@description('Name of the cache.')
param name string

@description('Whether it is an Azure Managed Redis (Microsoft.Cache/redisEnterprise); otherwise it is an Azure Cache for Redis (Microsoft.Cache/redis).')
param managed bool

@description('Object id of the identity that may use the cache.')
param principalId string

resource cluster 'Microsoft.Cache/redisEnterprise@2025-07-01' existing = if (managed) {
  name: name

  resource database 'databases' existing = {
    name: 'default'
  }
}

resource clusterAccess 'Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments@2025-07-01' = if (managed) {
  name: replace(principalId, '-', '')
  parent: cluster::database
  properties: {
    accessPolicyName: 'default'
    user: { objectId: principalId }
  }
}

resource cache 'Microsoft.Cache/redis@2024-11-01' existing = if (!managed) {
  name: name
}

resource cacheAccess 'Microsoft.Cache/redis/accessPolicyAssignments@2024-11-01' = if (!managed) {
  name: principalId
  parent: cache
  properties: {
    accessPolicyName: 'Data Contributor'
    objectId: principalId
    objectIdAlias: 'chatkeep'
  }
}

@description('Host name that clients connect to.')
output host string = managed ? cluster!.properties.hostName : cache!.properties.hostName

@description('Port that clients connect to.')
output port int = managed ? cluster::database!.properties.port : cache!.properties.sslPort

@description('Whether clients must speak the protocol of a Redis cluster.')
output cluster bool = managed
  ? cluster::database!.properties.clusteringPolicy == 'OSSCluster'
  : (cache!.properties.?shardCount ?? 0) > 0
