metadata description = 'What wakes somebody: callers get errors or wait, Redis fills up or works too hard or forgets, the app cannot be reached.'

@description('Unique part of the resource names.')
param token string

@description('Azure region of Application Insights.')
param location string

@description('Tags of the resources.')
param tags object

@description('Resource id of the action group that is told.')
param actionGroupId string

@description('Resource id of Application Insights.')
param applicationInsightsId string

@description('Resource id of the Front Door profile.')
param frontDoorId string

@description('Resource id of Redis.')
param redisId string

@description('Public address of the API.')
param url string

@description('Milliseconds that 95 of 100 requests must stay below, other than those that wait for an agent.')
param latencyMilliseconds int

var metricAlertList = [
  {
    name: 'errors'
    description: 'More than 5 % of the answers are server errors.'
    severity: 1
    scope: frontDoorId
    metricName: 'Percentage5XX'
    aggregation: 'Average'
    operator: 'GreaterThan'
    threshold: 5
    window: 'PT5M'
  }
  {
    name: 'origin-health'
    description: 'Front Door\'s probes of the app fail: the app is down, or cannot reach Redis.'
    severity: 1
    scope: frontDoorId
    metricName: 'OriginHealthPercentage'
    aggregation: 'Average'
    operator: 'LessThan'
    threshold: 90
    window: 'PT15M'
  }
  {
    name: 'redis-memory'
    description: 'Redis is nearly full. When it is full it takes no message (nothing is dropped): choose a larger SKU now.'
    severity: 1
    scope: redisId
    metricName: 'usedmemorypercentage'
    aggregation: 'Maximum'
    operator: 'GreaterThan'
    threshold: 80
    window: 'PT15M'
  }
  {
    name: 'redis-cpu'
    description: 'Redis works near its limit; answers get slower.'
    severity: 2
    scope: redisId
    metricName: 'percentProcessorTime'
    aggregation: 'Average'
    operator: 'GreaterThan'
    threshold: 80
    window: 'PT15M'
  }
  {
    name: 'redis-evictions'
    description: 'Redis drops conversations. Its eviction policy must be NoEviction; somebody has changed it.'
    severity: 0
    scope: redisId
    metricName: 'evictedkeys'
    aggregation: 'Total'
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT5M'
  }
]

resource metricAlerts 'Microsoft.Insights/metricAlerts@2018-03-01' = [
  for alert in metricAlertList: {
    name: 'alert-${alert.name}-${token}'
    location: 'global'
    tags: tags
    properties: {
      description: alert.description
      severity: alert.severity
      enabled: true
      scopes: [alert.scope]
      evaluationFrequency: 'PT5M'
      windowSize: alert.window
      autoMitigate: true
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            name: alert.metricName
            criterionType: 'StaticThresholdCriterion'
            metricName: alert.metricName
            timeAggregation: alert.aggregation
            operator: alert.operator
            threshold: alert.threshold
          }
        ]
      }
      actions: [{ actionGroupId: actionGroupId }]
    }
  }
]

resource latency 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = {
  name: 'alert-latency-${token}'
  location: location
  tags: tags
  properties: {
    displayName: 'Chatkeep: slow answers'
    description: 'One in twenty requests takes long, not counting those that wait for an agent.'
    severity: 2
    enabled: true
    scopes: [applicationInsightsId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    autoMitigate: true
    criteria: {
      allOf: [
        {
          query: '''
requests
| where operation_Name !in ('send', 'start')
| summarize p95 = percentile(duration, 95) by bin(timestamp, 5m)
'''
          timeAggregation: 'Average'
          metricMeasureColumn: 'p95'
          operator: 'GreaterThan'
          threshold: latencyMilliseconds
          failingPeriods: { numberOfEvaluationPeriods: 2, minFailingPeriodsToAlert: 2 }
        }
      ]
    }
    actions: { actionGroups: [actionGroupId] }
  }
}

var testLocations = ['emea-nl-ams-azr', 'emea-gb-db3-azr', 'us-va-ash-azr', 'us-ca-sjc-azr', 'apac-sg-sin-azr']

resource healthTest 'Microsoft.Insights/webtests@2022-06-15' = {
  name: 'test-health-${token}'
  location: location
  tags: union(tags, { 'hidden-link:${applicationInsightsId}': 'Resource' })
  kind: 'standard'
  properties: {
    SyntheticMonitorId: 'test-health-${token}'
    Name: 'Chatkeep health'
    Description: 'Asks for /health through Front Door, as callers come.'
    Enabled: true
    Kind: 'standard'
    Frequency: 300
    Timeout: 30
    RetryEnabled: true
    Locations: map(testLocations, place => { Id: place })
    Request: { RequestUrl: '${url}/health', HttpVerb: 'GET' }
    ValidationRules: { ExpectedHttpStatusCode: 200, SSLCheck: true, SSLCertRemainingLifetimeCheck: 7 }
  }
}

resource healthAlert 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: 'alert-health-${token}'
  location: 'global'
  tags: tags
  properties: {
    description: 'From several places in the world /health does not answer 200: callers cannot use the API.'
    severity: 0
    enabled: true
    scopes: [applicationInsightsId, healthTest.id]
    evaluationFrequency: 'PT1M'
    windowSize: 'PT5M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.WebtestLocationAvailabilityCriteria'
      webTestId: healthTest.id
      componentId: applicationInsightsId
      failedLocationCount: 2
    }
    actions: [{ actionGroupId: actionGroupId }]
  }
}
