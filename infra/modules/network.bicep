metadata description = 'The virtual network: one subnet that the app sends from, one for private endpoints, a security group on each.'

@description('Unique part of the resource names.')
param suffix string

@description('Azure region.')
param location string

@description('Tags of the resources.')
param tags object

@description('What the app subnet is delegated to: Microsoft.App/environments for Flex Consumption, Microsoft.Web/serverFarms for Premium.')
param delegation string

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

var appPrefix = '10.0.2.0/24'
var endpointPrefix = '10.0.1.0/24'

resource appSecurity 'Microsoft.Network/networkSecurityGroups@2025-05-01' = {
  name: 'nsg-app-${suffix}'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'deny-inbound'
        properties: {
          description: 'The app is reached through its public host name or Private Link, never through this subnet.'
          priority: 4000
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: 'Internet'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
      {
        name: 'deny-remote-access'
        properties: {
          description: 'Nobody goes from here to another machine by SSH or RDP.'
          priority: 4000
          direction: 'Outbound'
          access: 'Deny'
          protocol: 'Tcp'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: 'VirtualNetwork'
          destinationPortRanges: ['22', '3389']
        }
      }
    ]
  }
}

resource endpointSecurity 'Microsoft.Network/networkSecurityGroups@2025-05-01' = {
  name: 'nsg-endpoints-${suffix}'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'allow-app'
        properties: {
          description: 'Blobs (443), Azure Managed Redis (10000, and 8500 to 8599 for the nodes of a cluster), Azure Cache for Redis (6380).'
          priority: 100
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefix: appPrefix
          sourcePortRange: '*'
          destinationAddressPrefix: endpointPrefix
          destinationPortRanges: ['443', '6380', '8500-8599', '10000']
        }
      }
      {
        name: 'deny-inbound'
        properties: {
          description: 'Nothing else reaches Redis or storage.'
          priority: 4000
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
      {
        name: 'deny-remote-access'
        properties: {
          description: 'Nobody goes from here to another machine by SSH or RDP.'
          priority: 4000
          direction: 'Outbound'
          access: 'Deny'
          protocol: 'Tcp'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: 'VirtualNetwork'
          destinationPortRanges: ['22', '3389']
        }
      }
    ]
  }
}

resource network 'Microsoft.Network/virtualNetworks@2025-05-01' = {
  name: 'vnet-${suffix}'
  location: location
  tags: tags
  properties: {
    addressSpace: { addressPrefixes: ['10.0.0.0/16'] }
    subnets: [
      {
        name: 'snet-endpoints'
        properties: {
          addressPrefix: endpointPrefix
          defaultOutboundAccess: false
          networkSecurityGroup: { id: endpointSecurity.id }
          privateEndpointNetworkPolicies: 'NetworkSecurityGroupEnabled'
        }
      }
      {
        name: 'snet-app'
        properties: {
          addressPrefix: appPrefix
          defaultOutboundAccess: false // of machines; the way of a delegated subnet out is its service's
          networkSecurityGroup: { id: appSecurity.id }
          delegations: [{ name: 'app', properties: { serviceName: delegation } }]
        }
      }
    ]
  }

  resource endpointSubnet 'subnets' existing = { name: 'snet-endpoints' }
  resource appSubnet 'subnets' existing = { name: 'snet-app' }
}

resource networkDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'all'
  scope: network
  properties: {
    workspaceId: workspaceId
    logs: [{ categoryGroup: 'allLogs', enabled: true }]
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

resource appSecurityDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'all'
  scope: appSecurity
  properties: {
    workspaceId: workspaceId
    logs: [{ categoryGroup: 'allLogs', enabled: true }]
  }
}

resource endpointSecurityDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'all'
  scope: endpointSecurity
  properties: {
    workspaceId: workspaceId
    logs: [{ categoryGroup: 'allLogs', enabled: true }]
  }
}

@description('Resource id of the virtual network.')
output id string = network.id

@description('Resource id of the subnet for private endpoints.')
output endpointSubnetId string = network::endpointSubnet.id

@description('Resource id of the subnet that the app sends from.')
output appSubnetId string = network::appSubnet.id
