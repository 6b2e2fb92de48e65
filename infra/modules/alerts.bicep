metadata description = 'What wakes somebody: callers get errors or wait or are refused, Redis fills up or works too hard or forgets, the app cannot be reached, nobody watches.'

@description('Unique part of the resource names.')
param suffix string

@description('Azure region of Application Insights.')
param location string

@description('Tags of the resources.')
param tags object

@description('Resource id of the action group that is told.')
param actionGroupId string

@description('Resource id of Application Insights.')
param applicationInsightsId string

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

@description('Whether the workspace takes no more than a number of gigabytes a day.')
param workspaceCapped bool

@description('Whether callers come through Front Door.')
param behindFrontDoor bool

@description('Resource id of the Front Door profile; empty without one.')
param frontDoorId string

@description('Whether Front Door and web tests ask for /health.')
param probed bool

@description('Resource id of Redis.')
param redisId string

@description('Connections that Redis takes.')
param redisConnectionLimit int

@description('Display name of the region, such as West Europe; empty to be told of incidents in every region.')
param regionDisplayName string

@description('Public address of the API.')
param url string

@description('Milliseconds that 95 of 100 requests must stay below, other than those that wait for an agent, and a send without its agent.')
param latencyMilliseconds int

// A criterion is a metric, how it is summed up, and the bound beyond which it is bad; with several, all must be bad at once.
var frontDoorAlerts = [
  {
    name: 'errors'
    description: 'More than 5 % of the answers, and more than a few, are server errors.'
    severity: 1
    scope: frontDoorId
    window: 'PT5M'
    criteria: [
      { metric: 'Percentage5XX', aggregation: 'Average', operator: 'GreaterThan', threshold: 5, dimensions: [] }
      { metric: 'RequestCount', aggregation: 'Total', operator: 'GreaterThanOrEqual', threshold: leastRequests, dimensions: [] }
    ]
  }
  {
    name: 'firewall'
    description: 'The firewall blocks many requests: an attack, or chat text that it takes for one.'
    severity: 2
    scope: frontDoorId
    window: 'PT15M'
    criteria: [
      {
        metric: 'WebApplicationFirewallRequestCount'
        aggregation: 'Total'
        operator: 'GreaterThan'
        threshold: 500
        dimensions: [{ name: 'Action', operator: 'Include', values: ['Block'] }]
      }
    ]
  }
]

var probeAlerts = [
  {
    name: 'origin-health'
    description: 'Front Door\'s probes of the app fail: the app is down, or cannot reach Redis.'
    severity: 1
    scope: frontDoorId
    window: 'PT15M'
    criteria: [
      { metric: 'OriginHealthPercentage', aggregation: 'Average', operator: 'LessThan', threshold: 90, dimensions: [] }
    ]
  }
]

var redisAlerts = [
  {
    name: 'redis-memory'
    description: 'Redis is nearly full. When it is full it takes no message (nothing is dropped): choose a larger SKU now.'
    severity: 1
    scope: redisId
    window: 'PT15M'
    criteria: [
      { metric: 'usedmemorypercentage', aggregation: 'Maximum', operator: 'GreaterThan', threshold: 80, dimensions: [] }
    ]
  }
  {
    name: 'redis-cpu'
    description: 'Redis works near its limit; answers get slower.'
    severity: 2
    scope: redisId
    window: 'PT15M'
    criteria: [
      { metric: 'percentProcessorTime', aggregation: 'Average', operator: 'GreaterThan', threshold: 80, dimensions: [] }
    ]
  }
  {
    name: 'redis-clients'
    description: 'Redis has four fifths of the connections that it takes: lower REDIS_POOL_SIZE or the instances, or choose a larger SKU.'
    severity: 2
    scope: redisId
    window: 'PT15M'
    criteria: [
      {
        metric: 'connectedclients'
        aggregation: 'Maximum'
        operator: 'GreaterThan'
        threshold: redisConnectionLimit * 4 / 5
        dimensions: []
      }
    ]
  }
  {
    name: 'redis-evictions'
    description: 'Redis drops conversations. Its eviction policy must be NoEviction; somebody has changed it.'
    severity: 0
    scope: redisId
    window: 'PT5M'
    criteria: [
      { metric: 'evictedkeys', aggregation: 'Total', operator: 'GreaterThan', threshold: 0, dimensions: [] }
    ]
  }
]

resource metricAlerts 'Microsoft.Insights/metricAlerts@2018-03-01' = [
  for alert in concat(redisAlerts, behindFrontDoor ? frontDoorAlerts : [], behindFrontDoor && probed ? probeAlerts : []): {
    name: 'alert-${alert.name}-${suffix}'
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
        allOf: map(alert.criteria, criterion => {
          name: criterion.metric
          criterionType: 'StaticThresholdCriterion'
          metricName: criterion.metric
          timeAggregation: criterion.aggregation
          operator: criterion.operator
          threshold: criterion.threshold
          dimensions: criterion.dimensions
        })
      }
      actions: [{ actionGroupId: actionGroupId }]
    }
  }
]

// Below so many requests a share or a percentile says nothing.
var leastRequests = 20

// A query returns rows in which value is beyond the bound; a telemetry item stands for itemCount of them, for the host samples.
var requestAlerts = [
  {
    name: 'latency'
    displayName: 'Chatkeep: slow answers'
    description: 'One in twenty requests takes long, not counting those that wait for an agent, nor health, nor exports, which are as long as their reader takes.'
    severity: 2
    scope: applicationInsightsId
    query: '''
requests
| where operation_Name !in ('health', 'send', 'start', 'stream', 'export')
| summarize value = percentilew(duration, itemCount, 95), requests = sum(itemCount) by bin(timestamp, 5m)
| where requests >= least
'''
    threshold: latencyMilliseconds
    periods: 2
  }
  {
    name: 'send-latency'
    displayName: 'Chatkeep: slow sends'
    description: 'One in twenty sends takes long without the time of its agent: what we add ourselves. It comes from the handler\'s vitals.'
    severity: 2
    scope: applicationInsightsId
    query: '''
traces
| extend line = parse_json(message)
| where tostring(line.msg) == 'vitals'
| summarize value = max(todouble(line.sendOwnP95Ms)), requests = sum(tolong(line.requests)) by bin(timestamp, 5m)
| where requests >= least
'''
    threshold: latencyMilliseconds
    periods: 2
  }
  {
    name: 'unauthenticated'
    displayName: 'Chatkeep: many callers without a valid token'
    description: 'Hundreds of requests had no valid token: a client with a wrong audience, signing keys that cannot be read, or somebody who tries.'
    severity: 2
    scope: applicationInsightsId
    query: '''
requests
| where resultCode == '401'
| summarize value = sum(itemCount) by bin(timestamp, 5m)
| where value >= least
'''
    threshold: 300
    periods: 1
  }
]

// Front Door has a metric for it.
var errorAlerts = [
  {
    name: 'errors'
    displayName: 'Chatkeep: server errors'
    description: 'More than 5 % of the answers, and more than a few, are server errors.'
    severity: 1
    scope: applicationInsightsId
    query: '''
requests
| summarize failed = sumif(itemCount, toint(resultCode) >= 500), requests = sum(itemCount) by bin(timestamp, 5m)
| where requests >= least
| project timestamp, value = 100.0 * failed / requests
'''
    threshold: 5
    periods: 1
  }
]

var capAlerts = [
  {
    name: 'log-cap'
    displayName: 'Chatkeep: no more logs today'
    description: 'The workspace has taken its gigabytes of the day. Until tomorrow the alerts that read logs are blind: raise logDailyQuotaGb, or find what writes so much.'
    severity: 2
    scope: workspaceId
    query: '''
_LogOperation
| where Category =~ 'Ingestion' and Detail contains 'OverQuota'
| summarize value = count() by bin(TimeGenerated, 5m)
| where value * least > 0
'''
    threshold: 0
    periods: 1
  }
]

resource queryAlerts 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for alert in concat(requestAlerts, behindFrontDoor ? [] : errorAlerts, workspaceCapped ? capAlerts : []): {
    name: 'alert-${alert.name}-${suffix}'
    location: location
    tags: tags
    properties: {
      displayName: alert.displayName
      description: alert.description
      severity: alert.severity
      enabled: true
      scopes: [alert.scope]
      evaluationFrequency: 'PT5M'
      windowSize: 'PT15M'
      autoMitigate: true
      criteria: {
        allOf: [
          {
            query: 'let least = ${leastRequests};\n${alert.query}'
            timeAggregation: 'Maximum'
            metricMeasureColumn: 'value'
            operator: 'GreaterThan'
            threshold: alert.threshold
            failingPeriods: { numberOfEvaluationPeriods: alert.periods, minFailingPeriodsToAlert: alert.periods }
          }
        ]
      }
      actions: { actionGroups: [actionGroupId] }
    }
  }
]

// Azure's own incidents of what we run on, so that nobody searches at home.
resource serviceHealth 'Microsoft.Insights/activityLogAlerts@2020-10-01' = {
  name: 'alert-azure-${suffix}'
  location: 'global'
  tags: tags
  properties: {
    description: 'Azure tells of an incident in a service that Chatkeep needs.'
    enabled: true
    scopes: [subscription().id]
    condition: {
      allOf: concat(
        [
          { field: 'category', equals: 'ServiceHealth' }
          { field: 'properties.incidentType', equals: 'Incident' }
          {
            field: 'properties.impactedServices[*].ServiceName'
            containsAny: [
              'Azure Functions'
              'Functions'
              'App Service'
              'Azure Managed Redis'
              'Redis Cache'
              'Azure Cache for Redis'
              'Azure Front Door'
              'Storage'
              'Microsoft Entra ID'
            ]
          }
        ],
        empty(regionDisplayName)
          ? []
          : [
              {
                field: 'properties.impactedServices[*].ImpactedRegions[*].RegionName'
                containsAny: [regionDisplayName, 'Global']
              }
            ]
      )
    }
    actions: { actionGroups: [{ actionGroupId: actionGroupId }] }
  }
}

var testLocations = ['emea-nl-ams-azr', 'emea-gb-db3-azr', 'us-va-ash-azr', 'us-ca-sjc-azr', 'apac-sg-sin-azr']

resource healthTest 'Microsoft.Insights/webtests@2022-06-15' = if (probed) {
  name: 'test-health-${suffix}'
  location: location
  tags: union(tags, { 'hidden-link:${applicationInsightsId}': 'Resource' })
  kind: 'standard'
  properties: {
    SyntheticMonitorId: 'test-health-${suffix}'
    Name: 'Chatkeep health'
    Description: 'Asks for /health as callers come.'
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

resource healthAlert 'Microsoft.Insights/metricAlerts@2018-03-01' = if (probed) {
  name: 'alert-health-${suffix}'
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
