metadata description = 'The identity that the Function App acts as: towards Redis, storage and Application Insights. It has no secret.'

@description('Name of the identity.')
param name string

@description('Azure region.')
param location string

@description('Tags of the resource.')
param tags object

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: name
  location: location
  tags: tags
}

@description('Resource id of the identity.')
output id string = identity.id

@description('Object id: who the identity is to Redis and in role assignments.')
output principalId string = identity.properties.principalId

@description('Client id: how code names the identity when it asks for a token.')
output clientId string = identity.properties.clientId
