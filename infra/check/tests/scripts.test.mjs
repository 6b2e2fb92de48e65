// The scripts of a deployment, with an Azure CLI that only plays.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const folders = []
after(() => folders.forEach(folder => rmSync(folder, { recursive: true })))

// azure returns a folder with a playing az, and what runs a command with it.
function azure() {
  const folder = mkdtempSync(join(tmpdir(), 'scripts-'))
  folders.push(folder)
  mkdirSync(join(folder, 'bin'))
  symlinkSync(fileURLToPath(new URL('fake-az.mjs', import.meta.url)), join(folder, 'bin/az'))
  const log = join(folder, 'calls')
  const env = {
    PATH: `${join(folder, 'bin')}:${dirname(process.execPath)}:/usr/bin:/bin`, HOME: folder, LD_LIBRARY_PATH: process.env.LD_LIBRARY_PATH ?? '',
    AZ_LOG: log, AZ_STATE: join(folder, 'state'), RETRY_SECONDS: '0',
  }
  return {
    folder,
    run: (command, args = [], more = {}) => spawnSync(command, args, { env: { ...env, ...more }, encoding: 'utf8', input: more.input ?? '' }),
    calls: () => (existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []),
    forget: () => writeFileSync(log, ''),
    state: () => JSON.parse(readFileSync(join(folder, 'state'), 'utf8')),
  }
}

const changes = calls => calls.filter(call => /create|rest --method PATCH/.test(call))

describe('register-api.sh', () => {
  const script = join(root, 'scripts/register-api.sh')

  test('registers the API as the handler needs it', () => {
    const az = azure()
    const { status, stdout, stderr } = az.run(script, ['my-api'])
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^client-1$/m)
    assert.match(stdout, /azd env set CHATKEEP_AUTH_AUDIENCE client-1/)
    const { apps: [app], principals } = az.state()
    assert.equal(app.api.requestedAccessTokenVersion, 2)
    assert.deepEqual(app.identifierUris, ['api://client-1'])
    assert.deepEqual(app.api.oauth2PermissionScopes.map(scope => [scope.value, scope.type, scope.isEnabled]), [['access_as_user', 'User', true]])
    assert.match(app.api.oauth2PermissionScopes[0].id, /^[0-9a-f-]{36}$/)
    assert.deepEqual(app.optionalClaims.accessToken, [{ name: 'idtyp', essential: false }])
    assert.equal(app.api.preAuthorizedApplications, undefined)
    assert.deepEqual(principals, ['client-1'])
  })

  test('changes nothing when it runs again', () => {
    const az = azure()
    assert.equal(az.run(script, [], { ALLOW_CLI: 'yes' }).status, 0)
    const before = az.state()
    assert.equal(before.apps[0].api.preAuthorizedApplications.length, 1)
    az.forget()
    assert.equal(az.run(script, [], { ALLOW_CLI: 'yes' }).status, 0)
    assert.deepEqual(changes(az.calls()), [])
    assert.deepEqual(az.state(), before)
  })

  test('adds what is missing to a registration, and takes nothing away', () => {
    const az = azure()
    const other = { id: 'other-scope', value: 'other' }
    const app = {
      displayName: 'chatkeep-api', appId: 'client-9', id: 'object-9', identifierUris: ['api://other'],
      api: { requestedAccessTokenVersion: 2, oauth2PermissionScopes: [other] }, optionalClaims: { accessToken: [{ name: 'acct' }], idToken: [] },
    }
    const namesake = { displayName: 'chatkeep-api-test', appId: 'client-8', id: 'object-8' }
    writeFileSync(join(az.folder, 'state'), JSON.stringify({ apps: [namesake, app], principals: ['client-9'] }))
    const { status, stderr } = az.run(script)
    assert.equal(status, 0, stderr)
    const { apps } = az.state()
    assert.deepEqual(apps[0], namesake)
    assert.deepEqual(apps[1].identifierUris, ['api://other', 'api://client-9'])
    assert.deepEqual(apps[1].api.oauth2PermissionScopes.map(scope => scope.value), ['other', 'access_as_user'])
    assert.deepEqual(apps[1].optionalClaims.accessToken.map(claim => claim.name), ['acct', 'idtyp'])
  })

  test('goes on after it was cut off half-way', () => {
    const az = azure()
    assert.notEqual(az.run(script, [], { AZ_FAIL: 'oauth2PermissionScopes": ' }).status, 0)
    assert.equal(az.run(script).status, 0)
    assert.equal(az.state().apps.length, 1)
    assert.equal(az.state().apps[0].api.oauth2PermissionScopes.length, 1)
  })

  test('refuses to choose between two registrations of one name', () => {
    const az = azure()
    const apps = [1, 2].map(n => ({ displayName: 'chatkeep-api', appId: `client-${n}`, id: `object-${n}` }))
    writeFileSync(join(az.folder, 'state'), JSON.stringify({ apps, principals: [] }))
    const { status, stderr } = az.run(script)
    assert.equal(status, 1)
    assert.match(stderr, /several registrations/)
    assert.deepEqual(changes(az.calls()), [])
  })
})

// program is scripts/deploy, built once.
const built = mkdtempSync(join(tmpdir(), 'deploy-'))
folders.push(built)
const program = join(built, 'deploy')
assert.equal(spawnSync('go', ['build', '-o', program, './scripts/deploy'], { cwd: root, stdio: 'inherit' }).status, 0)

const least = { AZURE_ENV_NAME: 'test', AZURE_LOCATION: 'westeurope', CHATKEEP_AUTH_AUDIENCE: 'client-1', CHATKEEP_PAUSE_SECONDS: '0' }

// project has deploy.sh, the program and what it reads; go, azd and smoke.sh only tell that they ran.
function project() {
  const az = azure()
  for (const path of ['scripts/deploy.sh', 'infra/main.parameters.json', 'infra/main.bicep']) {
    mkdirSync(dirname(join(az.folder, path)), { recursive: true })
    copyFileSync(join(root, path), join(az.folder, path))
  }
  for (const [path, said] of [
    ['bin/go', `if [ "$2" = ./scripts/deploy ]; then shift 2; exec ${program} "$@"; fi; echo "go $*" >>"$AZ_LOG"`],
    ['bin/azd', 'echo "azd $*" >>"$AZ_LOG"'],
    ['scripts/smoke.sh', 'echo "smoke $* token=$TOKEN origin=$ORIGIN_URL" >>"$AZ_LOG"'],
  ]) {
    writeFileSync(join(az.folder, path), `#!/bin/sh\n${said}\n`)
    chmodSync(join(az.folder, path), 0o755)
  }
  const edit = (path, from, to) => {
    const file = join(az.folder, path)
    assert.ok(readFileSync(file, 'utf8').includes(from), `${path} must have ${from}`)
    writeFileSync(file, readFileSync(file, 'utf8').replace(from, to))
  }
  return {
    ...az, edit,
    deploy: (args, env = {}) => az.run(join(az.folder, 'scripts/deploy.sh'), args, { ...least, ...env }),
    hook: (name, env = {}) => az.run('sh', ['-c', `cd ${az.folder} && exec ${program} ${name}`], { ...least, ...env }),
    withoutAzure: () => rmSync(join(az.folder, 'bin/az')),
  }
}

const steps = calls => calls.map(call => call.match(/^(go run|smoke|deployment sub [\w-]+|functionapp restart|functionapp show|functionapp deployment source config-zip|storage blob \w+|network \S+ approve|rest --method POST|resource update|azd .*)/)?.[0])
  .filter(Boolean)
const times = (calls, pattern) => calls.filter(call => pattern.test(call)).length
const roleIsNew = { AZ_SAYS: 'InaccessibleStorageException: Failed to access storage account for deployment: 403' }

describe('deploy.sh', () => {
  test('shows what would change, deploys, publishes, lets alerts tell, tries', () => {
    const p = project()
    const { status, stderr, stdout } = p.deploy(['--yes'], { CHATKEEP_REDIS_SKU: 'Balanced_B5', CHATKEEP_PROBE_SECONDS: '30' })
    assert.equal(status, 0, stderr)
    assert.match(stdout, /CHATKEEP_ALERT_EMAIL is empty.*NOBODY IS TOLD/)
    assert.deepEqual(steps(p.calls()), ['deployment sub show', 'go run', 'deployment sub what-if', 'deployment sub create', 'deployment sub show',
      'functionapp deployment source config-zip', 'resource update', 'smoke'])
    assert.equal(p.calls().at(-1), 'smoke https://api.example token=token-of-az origin=https://app.example')
    assert.ok(p.calls().includes('resource update --ids /ag --set properties.enabled=true --output none'))
    const [whatIf, create] = p.calls().filter(call => /what-if|sub create/.test(call))
    assert.equal(create.replace('create', 'what-if').replace(' --output none', ''), whatIf)
    for (const parameter of ['environmentName="test"', 'location="westeurope"', 'authAudience="client-1"', 'redisSku="Balanced_B5"', 'redisKind="managed"',
      'authIssuer=""', 'tags={}', 'vnetEnabled=false', 'probeSeconds=30', 'alertsEnabled=false']) {
      assert.ok(`${create} `.includes(` ${parameter} `), `${parameter} in ${create}`)
    }
    const declared = Object.keys(JSON.parse(readFileSync(join(root, 'infra/main.parameters.json'), 'utf8')).parameters)
    assert.deepEqual(declared.filter(name => !create.includes(` ${name}=`)), [])
  })

  test('never mutes the alerts of a deployment that is there', () => {
    const p = project()
    assert.equal(p.deploy(['--yes', '--no-smoke'], { CHATKEEP_ALERT_EMAIL: 'a@b.example' }).status, 0)
    p.forget()
    const { stdout } = p.deploy(['--yes', '--no-smoke'], { CHATKEEP_ALERT_EMAIL: 'a@b.example' })
    assert.doesNotMatch(stdout, /NOBODY/)
    assert.equal(times(p.calls(), /alertsEnabled=true/), 2)
    assert.equal(times(p.calls(), /resource update/), 0)
  })

  test('deploys nothing without a yes', () => {
    for (const input of ['n\n', '']) {
      const p = project()
      const { status, stderr } = p.deploy([], { input })
      assert.equal(status, 1)
      assert.match(stderr, /nothing was deployed/)
      assert.deepEqual(steps(p.calls()), ['deployment sub show', 'go run', 'deployment sub what-if'])
    }
  })

  test('goes no further when a step fails', () => {
    for (const [step, last] of [['what-if', 'deployment sub what-if'], ['sub create', 'deployment sub create'], ['config-zip', 'functionapp deployment source config-zip']]) {
      const p = project()
      assert.notEqual(p.deploy(['--yes'], { AZ_FAIL: step }).status, 0)
      assert.equal(steps(p.calls()).at(-1), last)
      assert.equal(times(p.calls(), /config-zip/), step === 'config-zip' ? 1 : 0)
    }
  })

  test('publishes again while the role on the storage is new, and says so', () => {
    const p = project()
    const { status, stdout, stderr } = p.deploy(['--yes'], { AZ_FAIL: 'config-zip', AZ_FAIL_TIMES: '2', ...roleIsNew })
    assert.equal(status, 0, stderr)
    assert.match(stdout, /does not know the app's role on its storage yet \(1 of 16\): again in 0s/)
    assert.equal(times(p.calls(), /config-zip/), 3)
    const never = project()
    const refused = never.deploy(['--yes'], { AZ_FAIL: 'config-zip', ...roleIsNew })
    assert.equal(refused.status, 1)
    assert.match(refused.stderr, /16 times: Azure does not know/)
    assert.equal(times(never.calls(), /config-zip/), 16)
  })

  test('on Elastic Premium uploads the package, and asks again while the role is new', () => {
    const p = project()
    const premium = { CHATKEEP_HOSTING: 'premium' }
    assert.equal(p.deploy(['--yes', '--no-smoke'], { ...premium, AZ_FAIL: 'blob upload', AZ_FAIL_TIMES: '1', AZ_SAYS: 'You do not have the required permissions' }).status, 0)
    assert.deepEqual(steps(p.calls()).slice(5), ['storage blob upload', 'storage blob upload', 'functionapp restart', 'functionapp show', 'rest --method POST', 'resource update'])
    const failing = project()
    assert.equal(failing.deploy(['--yes'], { ...premium, AZ_FAIL: 'blob upload' }).status, 1)
    assert.equal(times(failing.calls(), /blob upload/), 1)
  })

  test('approves the Private Link of our Front Door, also when the request comes late, and nobody else\'s', () => {
    const p = project()
    const { status, stdout } = p.deploy(['--yes', '--no-smoke'], { CHATKEEP_FRONT_DOOR_PRIVATE_LINK: 'true', AZ_LINK_AT: '3' })
    assert.equal(status, 0)
    assert.match(stdout, /not there yet \(2 of 40\)/)
    assert.deepEqual(p.calls().filter(call => /approve/.test(call)),
      ['network private-endpoint-connection approve --id /connection/1 --description Chatkeep Front Door --output none'])
  })

  test('says so when it cannot be tried, or is not signed in', () => {
    const p = project()
    const { status, stderr } = p.deploy(['--yes'], { AZ_FAIL: 'get-access-token' })
    assert.equal(status, 1)
    assert.match(stderr, /it was not tried.*scripts\/smoke\.sh https:\/\/api\.example TOKEN/)
    const out = project()
    assert.match(out.deploy([], { AZ_FAIL: 'account show' }).stderr, /az login/)
    assert.deepEqual(steps(out.calls()), [])
    const without = project()
    without.withoutAzure()
    assert.match(without.deploy([]).stderr, /Azure CLI \(az\) is missing/)
  })

  test('refuses parameters that are unknown, missing or of another type before anything is asked', () => {
    for (const [wanted, env, from, to] of [
      [/CHATKEEP_AUTH_AUDIENCE must be set/, { CHATKEEP_AUTH_AUDIENCE: '' }],
      [/CHATKEEP_REDIS_SKUU is set, but no parameter is read from it/, { CHATKEEP_REDIS_SKUU: 'Balanced_B5' }],
      [/CHATKEEP_PROBE_SECONDS: 'often' is no whole number/, { CHATKEEP_PROBE_SECONDS: 'often' }],
      [/CHATKEEP_VNET_ENABLED: 'yes' is neither true nor false/, { CHATKEEP_VNET_ENABLED: 'yes' }],
      [/main\.bicep has no parameter agnt/, {}, '"agent":', '"agnt":'],
      [/main\.parameters\.json: invalid/, {}, '"agent":', 'agent:'],
    ]) {
      const p = project()
      if (from) {
        p.edit('infra/main.parameters.json', from, to)
      }
      const { status, stderr } = p.deploy(['--yes'], env)
      assert.notEqual(status, 0)
      assert.match(stderr, wanted)
      assert.deepEqual(p.calls(), [])
    }
  })

  test('reads parameters over several lines', () => {
    const p = project()
    p.edit('infra/main.parameters.json', '"tags": { "value": {} }', '"tags": {\n      "value": {\n        "team": "chat"\n      }\n    }')
    assert.equal(p.deploy(['--yes', '--no-smoke']).status, 0)
    assert.equal(times(p.calls(), /tags=\{"team":"chat"\}/), 2)
  })

  test('refuses a region without Flex Consumption, and names those with it', () => {
    const p = project()
    const { status, stderr } = p.deploy(['--yes'], { AZURE_LOCATION: 'westindia' })
    assert.equal(status, 1)
    assert.match(stderr, /does not run in westindia. Choose one of westeurope, swedencentral/)
    assert.deepEqual(steps(p.calls()), [])
    assert.equal(p.deploy(['--yes', '--no-smoke'], { AZURE_LOCATION: 'westindia', CHATKEEP_HOSTING: 'premium' }).status, 0)
    assert.equal(p.deploy(['--yes', '--no-smoke'], { AZURE_LOCATION: 'West Europe' }).status, 0)
  })
})

describe('azd\'s hooks', () => {
  test('preprovision refuses what could not work, and mutes alerts the first time alone', () => {
    const p = project()
    assert.match(p.hook('check', { AZURE_LOCATION: 'westindia' }).stderr, /does not run in westindia/)
    assert.match(p.hook('check', { CHATKEEP_REDIS_SKUU: 'x' }).stderr, /CHATKEEP_REDIS_SKUU/)
    p.forget()
    assert.equal(p.hook('check').status, 0)
    assert.deepEqual(p.calls().slice(1), ['azd env set CHATKEEP_ALERTS_ENABLED false'])
    p.forget()
    const again = p.hook('check', { ACTION_GROUP_ID: '/ag' })
    assert.match(again.stdout, /NOBODY IS TOLD/)
    assert.deepEqual(steps(p.calls()), [])
    const first = p.hook('check', { AZURE_LOCATION: '' }) // azd asks for it later
    assert.equal(first.status, 0)
    assert.match(first.stdout, /region was not checked, for it is not chosen/)
    p.withoutAzure()
    assert.match(p.hook('check', { ACTION_GROUP_ID: '/ag' }).stdout, /region was not checked, for the Azure CLI/)
  })

  test('postprovision waits for the Private Link and approves it once', () => {
    const p = project()
    const outputs = { AZURE_RESOURCE_GROUP: 'rg-test', FUNCTION_APP_NAME: 'func-test', AZURE_SUBSCRIPTION_ID: 'subscription-of-azd' }
    assert.equal(p.hook('link', outputs).status, 0)
    assert.deepEqual(p.calls(), [])
    const wanted = { ...outputs, CHATKEEP_FRONT_DOOR_PRIVATE_LINK: 'true' }
    assert.equal(p.hook('link', { ...wanted, AZ_LINK_AT: '2' }).status, 0)
    assert.equal(p.hook('link', wanted).status, 0)
    assert.equal(times(p.calls(), /approve/), 1)
    assert.equal(times(p.calls(), /list .*--subscription subscription-of-azd/), 3)
    const never = project()
    const { status, stderr } = never.hook('link', { ...wanted, AZ_LINK_AT: '1000' })
    assert.equal(status, 1)
    assert.match(stderr, /did not appear.*go run \.\/scripts\/deploy link/)
    assert.equal(times(never.calls(), /list/), 40)
    never.withoutAzure()
    assert.match(never.hook('link', wanted).stderr, /approve "Chatkeep Front Door"/)
  })

  test('predeploy waits until the package can be written', () => {
    const container = { PACKAGE_CONTAINER_URL: 'https://st.example/app-package' }
    const p = project()
    const { status, stdout } = p.hook('storage', { ...container, AZ_FAIL: 'blob upload', AZ_FAIL_TIMES: '3', AZ_SAYS: 'You do not have the required permissions' })
    assert.equal(status, 0)
    assert.match(stdout, /\(3 of 16\): again/)
    assert.deepEqual(steps(p.calls()), [...Array(4).fill('storage blob upload'), 'storage blob delete'])
    const never = project()
    const gaveUp = never.hook('storage', { ...container, AZ_FAIL: 'blob upload', AZ_SAYS: 'AuthorizationPermissionMismatch' }) // who deploys may have no role
    assert.equal(gaveUp.status, 0)
    assert.match(gaveUp.stdout, /cannot be tried.*repeat azd deploy/)
    assert.equal(times(never.calls(), /blob upload/), 16)
    const other = project()
    assert.match(other.hook('storage', { ...container, AZ_FAIL: 'blob upload', AZ_SAYS: 'no such host' }).stdout, /cannot be tried/)
    assert.equal(times(other.calls(), /blob upload/), 1)
    assert.match(other.hook('storage').stderr, /provision first/)
  })

  test('predeploy leaves out what it cannot try', () => {
    const container = { PACKAGE_CONTAINER_URL: 'https://st.example/app-package' }
    const p = project()
    assert.match(p.hook('storage', { ...container, CHATKEEP_VNET_ENABLED: 'true' }).stdout, /it is private.*repeat azd deploy/)
    assert.deepEqual(p.calls(), [])
    p.withoutAzure()
    const { status, stdout } = p.hook('storage', container)
    assert.equal(status, 0)
    assert.match(stdout, /az\) is missing\).*repeat azd deploy/)
  })

  test('postdeploy lets alerts tell', () => {
    const p = project()
    assert.equal(p.hook('alerts', { ACTION_GROUP_ID: '/ag' }).status, 0)
    assert.deepEqual(p.calls(), ['azd env set CHATKEEP_ALERTS_ENABLED true', 'resource update --ids /ag --set properties.enabled=true --output none'])
  })
})
