#!/usr/bin/env node
// Plays the Azure CLI: writes down every call in $AZ_LOG, keeps registrations and deployments in $AZ_STATE. Where $AZ_FAIL matches the call
// it fails, $AZ_FAIL_TIMES times or always, with the words $AZ_SAYS. Front Door's Private Link request is there at the list $AZ_LINK_AT.

import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'

const args = process.argv.slice(2)
const call = args.join(' ')
const option = name => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined)
const file = option('--parameters') // written down as what it says
const given = file ? Object.entries(JSON.parse(readFileSync(file, 'utf8')).parameters).map(([name, { value }]) => `${name}=${JSON.stringify(value)}`) : []
appendFileSync(process.env.AZ_LOG, `${file ? call.replace(file, given.join(' ')) : call}\n`)

const state = existsSync(process.env.AZ_STATE) ? JSON.parse(readFileSync(process.env.AZ_STATE, 'utf8')) : { apps: [], principals: [] }
const keep = () => writeFileSync(process.env.AZ_STATE, JSON.stringify(state))
if (process.env.AZ_FAIL && new RegExp(process.env.AZ_FAIL).test(call)) {
  state.failed = (state.failed ?? 0) + 1
  if (state.failed <= Number(process.env.AZ_FAIL_TIMES ?? Infinity)) {
    console.error(process.env.AZ_SAYS ?? '')
    keep()
    process.exit(1)
  }
}
const app = () => state.apps.find(a => [a.appId, a.id].includes(option('--id'))) ?? process.exit(3)

// print answers a query: a path, then perhaps a filter with a field, then perhaps the first alone.
function print(value) {
  const query = args.includes('--query') ? option('--query') : ''
  const [, path, key, wanted, field, first] = query.match(/^([\w.]*)(?:\[\?(@|\w+)=='([^']*)'\](?:\.(\w+))?)?( \| \[0\])?$/)
  let found = path.split('.').filter(Boolean).reduce((v, step) => v?.[step], value)
  if (key) {
    found = (found ?? []).filter(item => (key === '@' ? item : item[key]) === wanted).map(item => (field ? item[field] : item))
    if (first) {
      found = found[0]
    }
  }
  const format = option('-o') ?? option('--output')
  if (format === 'json') {
    console.log(JSON.stringify(found ?? null, null, 2))
  } else if (format === 'tsv' && found !== undefined && found !== null) {
    console.log([].concat(found).join('\n'))
  }
}

// merge changes an object as Microsoft Graph does: members of objects one by one, lists as a whole.
function merge(object, change) {
  for (const [name, value] of Object.entries(change)) {
    const deep = value && typeof value === 'object' && !Array.isArray(value)
    object[name] = deep ? merge(object[name] ?? {}, value) : value
  }
  return object
}

const outputs = {
  apI_URL: 'https://api.example', origiN_URL: 'https://app.example', azurE_RESOURCE_GROUP: 'rg-test', functioN_APP_NAME: 'func-test',
  packagE_CONTAINER_URL: 'https://st.example/app-package', fronT_DOOR_NAME: 'cdnp-test', redisHost: 'redis.example', workbooK_ID: '/w', actioN_GROUP_ID: '/ag',
}
const answers = {
  'ad app list': () => print(state.apps.filter(a => a.displayName.startsWith(option('--display-name')))),
  'ad app create': () => {
    const n = state.apps.length + 1
    state.apps.push({ displayName: option('--display-name'), appId: `client-${n}`, id: `object-${n}`, identifierUris: [], api: { oauth2PermissionScopes: [] } })
    print(state.apps.at(-1))
  },
  'ad app show': () => print(app()),
  'ad sp show': () => (state.principals.includes(option('--id')) ? print({ id: 'sp' }) : process.exit(3)),
  'ad sp create': () => state.principals.push(option('--id')),
  'rest --method PATCH': () => merge(state.apps.find(a => option('--url').endsWith(`/${a.id}`)), JSON.parse(option('--body'))),
  'account show': () => print({ id: 'subscription', tenantId: 'tenant' }),
  'account get-access-token': () => print({ accessToken: 'token-of-az' }),
  'functionapp show': () => print({ id: '/subscriptions/s/app' }),
  'deployment sub create': () => { state.deployed = true },
  'deployment sub show': () => state.deployed ? print({ properties: { outputs: Object.fromEntries(Object.entries(outputs).map(([k, value]) => [k, { type: 'String', value }])) } }) : process.exit(3),
  'network private-endpoint-connection list': () => {
    state.lists = (state.lists ?? 0) + 1
    const link = (id, description, status = 'Pending') => ({ id, properties: { privateLinkServiceConnectionState: { status, description } } })
    const stranger = link('/connection/stranger', 'Somebody')
    const there = state.lists >= Number(process.env.AZ_LINK_AT ?? 1)
    print(there ? [stranger, link('/connection/1', 'Chatkeep Front Door', state.approved ? 'Approved' : 'Pending')] : [stranger])
  },
  'network private-endpoint-connection approve': () => { state.approved = true },
  'functionapp list-flexconsumption-locations': () => print([{ name: 'westeurope' }, { name: 'swedencentral' }]),
}
const answer = Object.keys(answers).find(name => call.startsWith(name))
answers[answer]?.()
keep()
