metadata description = 'What Front Door does: the public host name, the firewall, the routes of the API and where they lead.'

@description('Name of the profile.')
param profileName string

@description('The profile\'s SKU.')
param skuName 'Standard_AzureFrontDoor' | 'Premium_AzureFrontDoor'

@description('Unique part of the resource names.')
param suffix string

@description('Tags of the resources.')
param tags object

@description('Host name of the Function App.')
param originHost string

@description('Resource id of the Function App.')
param originId string

@description('Region in which Front Door opens the Private Link.')
param privateLinkLocation string

@description('Whether the Function App is reached through Private Link; Premium only.')
param privateLink bool

@description('Name of a custom domain of the profile, made with az afd custom-domain create; empty for none.')
param customDomainName string

@description('Seconds between health probes of one Front Door location; 0 for none.')
param probeSeconds int

@description('Requests of one client address in a minute above which it is refused.')
param rateLimitPerMinute int

@description('Whether the managed firewall rules leave the field text, which people write, unread; Premium only.')
param firewallIgnoresText bool

// What a blocked caller reads, as the API's own errors are.
var blocked = {
  type: 'about:blank'
  title: 'Forbidden'
  status: 403
  code: 'blocked'
  detail: 'The firewall took this request for an attack, or too many came from one address within a minute.'
}

var premium = skuName == 'Premium_AzureFrontDoor'

resource profile 'Microsoft.Cdn/profiles@2025-06-01' existing = {
  name: profileName

  resource customDomain 'customDomains' existing = if (!empty(customDomainName)) {
    name: customDomainName
  }
}

resource endpoint 'Microsoft.Cdn/profiles/afdEndpoints@2025-06-01' = {
  name: 'cdne-${suffix}'
  parent: profile
  location: 'global'
  tags: tags
  properties: { enabledState: 'Enabled' }
}

resource originGroup 'Microsoft.Cdn/profiles/originGroups@2025-06-01' = {
  name: 'api'
  parent: profile
  properties: {
    sessionAffinityState: 'Disabled'
    loadBalancingSettings: { sampleSize: 4, successfulSamplesRequired: 3, additionalLatencyInMilliseconds: 50 }
    // There is one origin, so probes choose nothing: they tell of an outage, and keep an instance awake.
    healthProbeSettings: probeSeconds == 0
      ? null
      : {
          probePath: '/health'
          probeRequestType: 'HEAD'
          probeProtocol: 'Https'
          probeIntervalInSeconds: probeSeconds
        }
  }
}

resource origin 'Microsoft.Cdn/profiles/originGroups/origins@2025-06-01' = {
  name: 'function-app'
  parent: originGroup
  properties: {
    hostName: originHost
    originHostHeader: originHost
    httpsPort: 443
    priority: 1
    weight: 1000
    enabledState: 'Enabled'
    enforceCertificateNameCheck: true
    sharedPrivateLinkResource: premium && privateLink
      ? {
          privateLink: { id: originId }
          privateLinkLocation: privateLinkLocation
          groupId: 'sites'
          requestMessage: 'Chatkeep Front Door'
        }
      : null
  }
}

resource responseHeaders 'Microsoft.Cdn/profiles/ruleSets@2025-06-01' = {
  name: 'headers'
  parent: profile
}

resource strictTransport 'Microsoft.Cdn/profiles/ruleSets/rules@2025-06-01' = {
  name: 'strictTransport'
  parent: responseHeaders
  properties: {
    order: 1
    conditions: []
    actions: [
      {
        name: 'ModifyResponseHeader'
        parameters: {
          typeName: 'DeliveryRuleHeaderActionParameters'
          headerAction: 'Overwrite'
          headerName: 'Strict-Transport-Security'
          value: 'max-age=31536000'
        }
      }
    ]
    matchProcessingBehavior: 'Continue'
  }
}

resource apiRoute 'Microsoft.Cdn/profiles/afdEndpoints/routes@2025-06-01' = {
  name: 'api'
  parent: endpoint
  properties: {
    patternsToMatch: ['/api/chat/*', '/api/openapi.json']
    originGroup: { id: originGroup.id }
    ruleSets: [{ id: responseHeaders.id }]
    supportedProtocols: ['Http', 'Https']
    httpsRedirect: 'Enabled'
    forwardingProtocol: 'HttpsOnly'
    linkToDefaultDomain: 'Enabled'
    customDomains: empty(customDomainName) ? [] : [{ id: profile::customDomain.id }]
    enabledState: 'Enabled'
    // No cacheConfiguration: Front Door then neither keeps nor compresses what it forwards.
  }
  dependsOn: [origin, strictTransport]
}

resource healthRoute 'Microsoft.Cdn/profiles/afdEndpoints/routes@2025-06-01' = {
  name: 'health'
  parent: endpoint
  properties: {
    patternsToMatch: ['/health']
    originGroup: { id: originGroup.id }
    ruleSets: [{ id: responseHeaders.id }]
    supportedProtocols: ['Http', 'Https']
    httpsRedirect: 'Enabled'
    forwardingProtocol: 'HttpsOnly'
    linkToDefaultDomain: 'Enabled'
    customDomains: empty(customDomainName) ? [] : [{ id: profile::customDomain.id }]
    enabledState: 'Enabled'
  }
  dependsOn: [origin, strictTransport]
}

resource firewall 'Microsoft.Network/FrontDoorWebApplicationFirewallPolicies@2025-11-01' = {
  name: 'fdfp${suffix}'
  location: 'global'
  tags: tags
  sku: { name: skuName }
  properties: {
    policySettings: {
      enabledState: 'Enabled'
      mode: 'Prevention'
      requestBodyCheck: 'Enabled'
      customBlockResponseStatusCode: 403
      customBlockResponseBody: base64(string(blocked))
      // A matched rule would otherwise copy what people write into the log.
      logScrubbing: {
        state: 'Enabled'
        scrubbingRules: [
          { matchVariable: 'RequestBodyJsonArgNames', selectorMatchOperator: 'EqualsAny', state: 'Enabled' }
        ]
      }
    }
    customRules: {
      rules: [
        {
          name: 'RateLimit'
          priority: 100
          ruleType: 'RateLimitRule'
          rateLimitDurationInMinutes: 1
          rateLimitThreshold: rateLimitPerMinute
          groupBy: [{ variableName: 'SocketAddr' }]
          matchConditions: [
            // Every path, however it is written: whoever floods /health costs as much.
            { matchVariable: 'RequestUri', operator: 'Contains', matchValue: ['/'], transforms: ['UrlDecode', 'Lowercase'] }
          ]
          action: 'Block'
        }
      ]
    }
    managedRules: {
      managedRuleSets: premium
        ? [
            {
              ruleSetType: 'Microsoft_DefaultRuleSet'
              ruleSetVersion: '2.1'
              ruleSetAction: 'Block'
              exclusions: firewallIgnoresText
                ? [{ matchVariable: 'RequestBodyJsonArgNames', selectorMatchOperator: 'Equals', selector: 'text' }]
                : []
            }
            { ruleSetType: 'Microsoft_BotManagerRuleSet', ruleSetVersion: '1.0' }
          ]
        : []
    }
  }
}

resource securityPolicy 'Microsoft.Cdn/profiles/securityPolicies@2025-06-01' = {
  name: 'firewall'
  parent: profile
  properties: {
    parameters: {
      type: 'WebApplicationFirewall'
      wafPolicy: { id: firewall.id }
      associations: [
        {
          domains: concat([{ id: endpoint.id }], empty(customDomainName) ? [] : [{ id: profile::customDomain.id }])
          patternsToMatch: ['/*']
        }
      ]
    }
  }
}

@description('Public host name of the API.')
output host string = endpoint.properties.hostName
