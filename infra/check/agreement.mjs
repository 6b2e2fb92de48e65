// What the Bicep files must agree with: the parameters file, the handler's settings, the functions' routes, azure.yaml.

import { at, ofType, settings } from './project.mjs'

const placeholder = /^\$\{([A-Z][A-Z0-9_]*)(?:=(.*))?\}$/

/**
 * checkParameters compares main.parameters.json with main.bicep: the same parameters, each as one environment variable with the default
 * of main.bicep.
 */
export function checkParameters(project) {
  const findings = []
  const report = message => findings.push({ where: 'infra/main.parameters.json', message })
  let given
  try {
    given = JSON.parse(project.parametersText).parameters
  } catch (error) {
    report(error.message)
    return findings
  }
  const { parameters } = project.template
  const declared = Object.keys(parameters)
  for (const name of Object.keys(given).filter(name => !declared.includes(name))) {
    report(`main.bicep has no parameter ${name}`)
  }
  for (const name of declared.filter(name => !(name in given))) {
    report(`${name} is missing`)
  }
  for (const [name, { value }] of Object.entries(given)) {
    if (parameters[name]) {
      checkParameter(name, parameters[name], value, message => report(`${name} ${message}`))
    }
  }
  return findings
}

function checkParameter(name, parameter, value, report) {
  if (typeof value !== 'string') {
    const kind = Array.isArray(value) ? 'array' : typeof value
    if (kind !== (parameter.type ?? 'object')) { // without a type it is of one of main.bicep's own
      report(`must be ${parameter.type ?? 'object'}, not ${kind}`)
    }
    return
  }
  const [, variable, fallback = ''] = value.match(placeholder) ?? []
  if (variable !== variableOf(name)) {
    report(`must read the environment variable ${variableOf(name)}`)
  }
  if (fallback !== String(parameter.defaultValue ?? '')) {
    report(`has the default '${fallback}', but main.bicep '${parameter.defaultValue ?? ''}'`)
  }
}

function variableOf(name) {
  const ofAzd = { environmentName: 'AZURE_ENV_NAME', location: 'AZURE_LOCATION' }
  return ofAzd[name] ?? `CHATKEEP_${name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase()}`
}

// Settings of the handler that a deployment does not set.
const notDeployed = {
  FUNCTIONS_CUSTOMHANDLER_PORT: 'the Functions host sets it',
  PORT: 'the Functions host chooses the port',
  HOST: 'the Functions host calls 127.0.0.1',
  REDIS_SENTINEL_MASTER: 'neither of Azure\'s products is a Sentinel',
  STORE: 'a deployment keeps conversations in Redis',
  REDIS_URL: 'it holds a password; a deployment uses REDIS_HOSTNAME and an identity',
  REDIS_PASSWORD: 'a deployment uses an identity',
  AGENT_ECHO_DELAY: 'an echo is for tests and demos',
  AGENT_ECHO_GREETING: 'an echo is for tests and demos',
  AGENT_INSTRUCTIONS_FILE: 'the package holds no such file; AGENT_INSTRUCTIONS has them',
  OPENAI_BASE_URL: 'agentEndpoint is written to it when such an agent answers',
  OPENAI_MODEL: 'agentModel is written to it when such an agent answers',
  OPENAI_AUTH: 'it is entra when such an agent answers',
  OPENAI_API_KEY: 'a deployment uses an identity',
  COPILOTSTUDIO_DIRECT_URL: 'agentEndpoint is written to it when such an agent answers',
  COPILOTSTUDIO_CLIENT_SECRET: 'a deployment uses an identity',
  COPILOTSTUDIO_CLIENT_CERTIFICATE: 'a deployment uses an identity',
  CORS_ORIGINS: 'under the host the platform answers for CORS',
  OTEL_EXPORTER_OTLP_HEADERS: 'they may hold a key; a deployment has a collector that needs none',
  OTEL_EXPORTER_OTLP_PROTOCOL: 'there is one',
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'a deployment sends all to OTEL_EXPORTER_OTLP_ENDPOINT',
  OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: 'a deployment sends all to OTEL_EXPORTER_OTLP_ENDPOINT',
  OTEL_SDK_DISABLED: 'a deployment without OTEL_EXPORTER_OTLP_ENDPOINT sends nothing',
}

// settingsOf reads README's table, which a test of the handler compares with what it reads.
function settingsOf(readme) {
  return new Set([...readme.matchAll(/^\| `([A-Z][A-Z0-9_]+)` \|/gm)].map(match => match[1]))
}

// What the host and the platform read, not the handler.
const ofTheHost = /^(AzureWebJobs|APPLICATIONINSIGHTS_|FUNCTIONS_|WEBSITE_)/

/** checkSettings compares the settings that deployments make and main.bicep takes with README's table, both ways. */
export function checkSettings(project) {
  const findings = []
  const report = message => findings.push({ where: 'infra/main.bicep', message })
  const made = project.deployments.map(deployment => Object.keys(settings(deployment)).filter(name => !ofTheHost.test(name)))
  const tunable = Object.keys(project.template.definitions.handlerSettings.properties)
  const deployed = new Set([...made.flat(), ...tunable])
  const read = settingsOf(project.readme)
  for (const name of read) {
    if (!deployed.has(name) && !(name in notDeployed)) {
      report(`the handler reads ${name}, which no deployment can set: add it to handlerSettings or deploymentSettings`)
    }
  }
  for (const name of deployed) {
    const always = made.every(names => names.includes(name))
    if (!read.has(name)) {
      report(`sets ${name}, which the handler does not read`)
    }
    if (always && tunable.includes(name)) {
      report(`${name} is set by the deployment, and must not be in handlerSettings as well`)
    }
  }
  return findings
}

/** checkRoutes compares Front Door's routes and the health probes with functions/<name>/function.json, both ways. */
export function checkRoutes(project) {
  const findings = []
  const report = message => findings.push({ where: 'infra/modules/front-door-routes.bicep', message })
  const prefix = project.host.extensions?.http?.routePrefix ?? 'api'
  const routes = project.functions.map(({ name, trigger }) => ({
    name, methods: trigger.methods, path: `/${[prefix, trigger.route].filter(Boolean).join('/')}`,
  }))
  const all = (type, path) => new Set(ofType(project, type).flatMap(resource => at(resource, path)))
  const patterns = all('Microsoft.Cdn/profiles/afdEndpoints/routes', 'properties.patternsToMatch')
  const matches = (pattern, path) => (pattern.endsWith('/*') ? path.startsWith(pattern.slice(0, -1)) : path === pattern)
  for (const route of routes) {
    if (![...patterns].some(pattern => matches(pattern, route.path))) {
      report(`no route leads to the function ${route.name} at ${route.path}`)
    }
  }
  for (const pattern of patterns) {
    if (!routes.some(route => matches(pattern, route.path))) {
      report(`${pattern} leads to no function`)
    }
  }
  const answers = (path, method) => routes.some(route => route.path === path.split('?')[0] && route.methods.includes(method))
  for (const probe of [...all('Microsoft.Cdn/profiles/originGroups', 'properties.healthProbeSettings.probePath')].filter(Boolean)) {
    if (!answers(probe, 'head')) {
      report(`no function answers the probe HEAD ${probe}`)
    }
  }
  for (const path of [...all('Microsoft.Web/sites', 'properties.siteConfig.healthCheckPath')].filter(Boolean)) {
    if (!answers(String(path), 'get')) {
      report(`no function answers the platform's health check GET ${path}`)
    }
  }
  return findings
}

// What docs/deploy.md may name beside parameters, outputs and settings: the environment of scripts, and commands of Redis.
const ofScripts = ['ALLOW_CLI', 'TOKEN', 'WAIT', 'DBSIZE', 'HGETALL', 'LLEN', 'PTTL', 'DUMP', 'RESTORE']

/** checkManual compares the names in docs/deploy.md with what there is, and its capacity table with the bytes it was computed from. */
export function checkManual(project) {
  const findings = []
  const report = message => findings.push({ where: 'docs/deploy.md', message })
  const { parameters, outputs, definitions } = project.template
  const variables = Object.keys(parameters).map(variableOf)
  const known = new Set([
    ...variables, ...variables.map(name => name.replace('CHATKEEP_', '')), ...Object.keys(outputs),
    ...settingsOf(project.readme), ...Object.keys(definitions.handlerSettings.properties), ...Object.keys(project.localSettings),
  ])
  const fences = /```[^]*?```/g
  const inline = [...project.manual.replace(fences, '').matchAll(/`[^`]+`/g)].flatMap(([code]) => code.match(/\b[A-Z][A-Z0-9_]{2,}\b/g) ?? [])
  const fenced = (project.manual.match(fences) ?? []).flatMap(code => code.match(/\b[A-Z]+_[A-Z0-9_]+\b/g) ?? [])
  for (const name of new Set([...inline, ...fenced])) {
    if (!known.has(name) && !ofScripts.includes(name)) {
      report(`names ${name}, which is no parameter, output or setting`)
    }
  }
  const number = text => Number(text.replaceAll(',', ''))
  const bytes = what => number(project.manual.match(new RegExp(`^\\| ${what}.* \\| ([\\d,]+) \\|$`, 'm'))?.[1] ?? 'NaN')
  const [conversation, message] = [bytes('conversation of 10 messages'), bytes('each message')]
  const rows = [...project.manual.matchAll(/^\| `Balanced_\w+` \| ([\d.]+) GB \| ([\d,]+) \| ([\d,]+) \|/gm)]
  for (const [, size, conversations, messages] of rows) {
    for (const [stated, each] of [[conversations, conversation], [messages, message]]) {
      const fits = Math.floor(size * 1e9 * 0.8 / each / 1000) * 1000 // 20 % is Azure's
      if (number(stated) !== fits) {
        report(`${size} GB: states ${stated}, but ${fits.toLocaleString('en-US')} fit at ${each} bytes`)
      }
    }
  }
  if (rows.length === 0) {
    report('has no capacity table')
  }
  return findings
}

/** checkAzureYaml looks for what azd needs to deploy a custom handler, and for the tag by which it finds the app. */
export function checkAzureYaml(project) {
  const findings = []
  const wanted = {
    'the infra folder': /^ {2}path: infra$/m,
    'the service api': /^ {2}api:$/m,
    'host: function': /^ {4}host: function$/m,
    'language: custom': /^ {4}language: custom\b/m,
    'dist: ./dist.zip': /^ {4}dist: \.\/dist\.zip\b/m,
  }
  const hooks = {
    preprovision: 'go run ./scripts/deploy check', postprovision: 'go run ./scripts/deploy link', prepackage: 'go run ./scripts/package',
    predeploy: 'go run ./scripts/deploy storage', postdeploy: 'go run ./scripts/deploy alerts',
  }
  for (const [hook, run] of Object.entries(hooks)) {
    const command = run.replaceAll(/[./]/g, '\\$&')
    wanted[`the hook ${hook} for sh`] = new RegExp(`${hook}:\\s+posix: \\{ shell: sh, run: ${command} \\}$`, 'm')
    wanted[`the hook ${hook} for pwsh`] = new RegExp(`${hook}:\\s+posix: .*\\s+windows: \\{ shell: pwsh, run: ${command}; exit \\$LASTEXITCODE \\}$`, 'm')
  }
  for (const [what, pattern] of Object.entries(wanted)) {
    if (!pattern.test(project.azureYaml)) {
      findings.push({ where: 'azure.yaml', message: `${what} is missing` })
    }
  }
  if (!ofType(project, 'Microsoft.Web/sites').every(site => site.tags['azd-service-name'] === 'api')) {
    findings.push({ where: 'azure.yaml', message: 'no Function App has the tag azd-service-name: api' })
  }
  return findings
}

/** checkModules looks for files that nothing deploys; the compiler never sees them. */
export function checkModules(project) {
  const named = project.bicep.map(file => file.text).join('\n')
  return project.bicep.filter(file => file.name !== 'infra/main.bicep' && !named.includes(`'${file.name.replace('infra/', '')}'`))
    .map(file => ({ where: file.name, message: 'no module statement names this file' }))
}
