// Gathers what the checks look at: what the compiler makes of the Bicep files, and what they must agree with.

import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { publishedTypes } from './values.mjs'

const elsewhere = '/subscriptions/00000000-0000-0000-0000-00000000000c/resourceGroups/other/providers'

/** The parameters that every deployment needs. */
export const least = { environmentName: 'test', location: 'westeurope', authAudience: '11111111-2222-3333-4444-555555555555' }

/** Deployments in which together each resource is made, each in another shape: what rules look at. */
export const deployments = {
  small: {},
  private: {
    vnetEnabled: true, frontDoor: 'premium', firewallIgnoresText: true, customDomainName: 'chat-example',
    corsOrigins: 'https://chat.example', agent: 'openai', agentEndpoint: 'https://o.example/', agentModel: 'm',
    openaiAccountId: `${elsewhere}/Microsoft.CognitiveServices/accounts/mine`,
  },
  premium: { hosting: 'premium', redisKind: 'cache', agent: 'copilotstudio', agentEndpoint: 'https://a.78.environment.api.powerplatform.com/b' },
  privatePremium: { hosting: 'premium', redisKind: 'cache', vnetEnabled: true },
  development: { instanceMemoryMB: 512, frontDoor: 'none', callerAddresses: '192.0.2.0/24', redisHighAvailability: 'Disabled', redisLock: false, probeSeconds: 0, logDailyQuotaGb: 1 },
  existing: { redisKind: 'existing', redisResourceId: `${elsewhere}/Microsoft.Cache/redis/mine` },
  existingManaged: { redisKind: 'existing', redisResourceId: `${elsewhere}/Microsoft.Cache/redisEnterprise/mine` },
}

/** compile returns diagnostics, template and deployments of the Bicep files below root; after errors there is nothing but diagnostics. */
export async function compile(compiler, root, names) {
  const { diagnostics, template } = await compiler.compile(root)
  return { diagnostics, template, deployments: template ? await expand(compiler, root, names) : [] }
}

/** expand returns deployments of the Bicep files below root. */
export async function expand(compiler, root, names = Object.keys(deployments)) {
  const expanded = []
  for (const name of names) {
    const resources = await compiler.expand(root, { ...least, ...deployments[name] })
    expanded.push({ name, parameters: deployments[name], private: deployments[name].vnetEnabled === true, resources })
  }
  return expanded
}

/** load reads what else the checks look at, and adds what compile returned. */
export function load(root, compiled, types = publishedTypes(root)) {
  const read = path => readFileSync(join(root, path), 'utf8')
  const modules = readdirSync(join(root, 'infra/modules')).filter(name => name.endsWith('.bicep')).map(name => `infra/modules/${name}`)
  return {
    root, types, ...compiled,
    bicep: ['infra/main.bicep', ...modules].map(name => ({ name, text: read(name) })),
    workbookText: read('infra/modules/workbook.json'),
    parametersText: read('infra/main.parameters.json'),
    readme: read('README.md'),
    azureYaml: read('azure.yaml'),
    manual: read('docs/deploy.md'),
    host: JSON.parse(read('host.json')),
    localSettings: JSON.parse(read('local.settings.json.example')).Values,
    functions: readdirSync(join(root, 'functions')).map(name => ({
      name, trigger: JSON.parse(read(`functions/${name}/function.json`)).bindings.find(binding => binding.type === 'httpTrigger'),
    })),
  }
}

/** ofType returns the resources of a type, of every deployment. */
export function ofType(project, type) {
  return project.deployments.flatMap(deployment => deployment.resources.filter(resource => resource.type === type)
    .map(resource => ({ ...resource, deployment })))
}

/** at returns what stands at a path, such as 'properties.siteConfig.cors'; undefined where a step is missing. */
export function at(value, path) {
  return path.split('.').reduce((found, step) => found?.[step], value)
}

/** settings returns what a deployment tells the handler, the host and the platform by name. */
export function settings(deployment) {
  return deployment.resources.find(resource => resource.type === 'Microsoft.Web/sites/config')?.properties ?? {}
}

/** templates returns the template and those of its modules, by name. */
export function templates(template, name = 'main') {
  const modules = Object.entries(template.resources).filter(([, resource]) => resource.properties?.template)
  return [[name, template], ...modules.flatMap(([module, resource]) => templates(resource.properties.template, module))]
}
