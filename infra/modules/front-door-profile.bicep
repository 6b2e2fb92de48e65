metadata description = 'The Front Door profile. It comes before the Function App, which must know its id to refuse everybody else\'s Front Door.'

@description('Name of the profile.')
param name string

@description('Tags of the resource.')
param tags object

@description('Standard, or Premium with managed firewall rules and Private Link.')
param skuName 'Standard_AzureFrontDoor' | 'Premium_AzureFrontDoor'

@description('Seconds that Front Door waits for the origin: for the first byte, and between bytes.')
param originTimeoutSeconds int

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

resource profile 'Microsoft.Cdn/profiles@2025-06-01' = {
  name: name
  location: 'global'
  tags: tags
  sku: { name: skuName }
  identity: { type: 'SystemAssigned' } // of its own, for certificates in a Key Vault; it has no rights here
  properties: {
    originResponseTimeoutSeconds: originTimeoutSeconds
    logScrubbing: {
      state: 'Enabled'
      scrubbingRules: [{ matchVariable: 'RequestIPAddress', selectorMatchOperator: 'EqualsAny', state: 'Enabled' }]
    }
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'all'
  scope: profile
  properties: {
    workspaceId: workspaceId
    logs: [{ categoryGroup: 'allLogs', enabled: true }]
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

@description('Resource id of the profile.')
output id string = profile.id

@description('Name of the profile.')
output name string = profile.name

@description('Id that the profile writes into the header X-Azure-FDID, in lower case.')
output frontDoorId string = toLower(profile.properties.frontDoorId)
