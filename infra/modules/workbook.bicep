metadata description = 'One page that shows how the service does: requests, latency, errors, Redis, turns.'

@description('Azure region.')
param location string

@description('Tags of the resource.')
param tags object

@description('Resource id of Application Insights.')
param applicationInsightsId string

@description('Resource id of Redis.')
param redisId string

@description('Resource type of Redis, in lower case.')
param redisType string

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(applicationInsightsId, 'workbook')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'Chatkeep'
    category: 'workbook'
    sourceId: applicationInsightsId
    serializedData: replace(
      replace(
        replace(loadTextContent('workbook.json'), '{{applicationInsights}}', applicationInsightsId),
        '{{redisType}}',
        redisType
      ),
      '{{redis}}',
      redisId
    )
  }
}

@description('Resource id of the workbook.')
output id string = workbook.id
