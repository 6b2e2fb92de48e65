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

describe('deploy.sh', () => {
  const least = { AZURE_ENV_NAME: 'test', AZURE_LOCATION: 'westeurope', CHATKEEP_AUTH_AUDIENCE: 'client-1' }

  // project has deploy.sh and the parameters file, and scripts that only tell that they ran.
  function project() {
    const az = azure()
    for (const path of ['scripts/deploy.sh', 'infra/main.parameters.json']) {
      mkdirSync(dirname(join(az.folder, path)), { recursive: true })
      copyFileSync(join(root, path), join(az.folder, path))
    }
    for (const [name, said] of [['package', 'package'], ['smoke', 'smoke $* token=$TOKEN origin=$ORIGIN_URL']]) {
      const path = join(az.folder, `scripts/${name}.sh`)
      writeFileSync(path, `#!/bin/sh\necho "${said}" >>"$AZ_LOG"\n`)
      chmodSync(path, 0o755)
    }
    return { ...az, deploy: (args, env = {}) => az.run(join(az.folder, 'scripts/deploy.sh'), args, { ...least, ...env }) }
  }
  const steps = calls => calls.map(call => call.match(/^(package|smoke|deployment sub [\w-]+|functionapp \w+( source config-zip)?|storage blob upload|network \S+ approve|rest --method POST)/)?.[0])
    .filter(Boolean)

  test('shows what would change, deploys, publishes, tries', () => {
    const p = project()
    const { status, stderr } = p.deploy(['--yes'], { CHATKEEP_REDIS_SKU: 'Balanced_B5' })
    assert.equal(status, 0, stderr)
    assert.deepEqual(steps(p.calls()), ['package', 'deployment sub what-if', 'deployment sub create', 'deployment sub show',
      'functionapp deployment source config-zip', 'smoke'])
    assert.equal(p.calls().at(-1), 'smoke https://api.example token=token-of-az origin=https://app.example')
    const [whatIf, create] = p.calls().filter(call => /what-if|sub create/.test(call))
    assert.equal(create.replace('create', 'what-if').replace(' --output none', ''), whatIf)
    for (const parameter of ['environmentName=test', 'location=westeurope', 'authAudience=client-1', 'redisSku=Balanced_B5', 'redisKind=managed',
      'authIssuer=', 'tags={}', 'vnetEnabled=false', 'logDailyQuotaGb=-1']) {
      assert.ok(`${create} `.includes(` ${parameter} `), `${parameter} in ${create}`)
    }
    const declared = Object.keys(JSON.parse(readFileSync(join(root, 'infra/main.parameters.json'), 'utf8')).parameters)
    assert.deepEqual(declared.filter(name => !create.includes(` ${name}=`)), [])
  })

  test('deploys nothing without a yes', () => {
    for (const input of ['n\n', '']) {
      const p = project()
      const { status, stdout } = p.deploy([], { input })
      assert.equal(status, 1)
      assert.match(stdout, /Nothing was deployed/)
      assert.deepEqual(steps(p.calls()), ['package', 'deployment sub what-if'])
    }
  })

  test('goes no further when a step fails', () => {
    for (const [step, last] of [['what-if', 'deployment sub what-if'], ['sub create', 'deployment sub create'], ['config-zip', 'functionapp deployment source config-zip']]) {
      const p = project()
      assert.notEqual(p.deploy(['--yes'], { AZ_FAIL: step }).status, 0)
      assert.equal(steps(p.calls()).at(-1), last)
    }
  })

  test('on Elastic Premium uploads the package, and asks again while the role is new', () => {
    const p = project()
    assert.equal(p.deploy(['--yes', '--no-smoke'], { CHATKEEP_HOSTING: 'premium' }).status, 0)
    assert.deepEqual(steps(p.calls()).slice(4), ['storage blob upload', 'functionapp restart', 'functionapp show', 'rest --method POST'])
    const failing = project()
    assert.equal(failing.deploy(['--yes'], { CHATKEEP_HOSTING: 'premium', AZ_FAIL: 'blob upload' }).status, 1)
    assert.equal(failing.calls().filter(call => /blob upload/.test(call)).length, 10)
  })

  test('approves the Private Link of our Front Door', () => {
    const p = project()
    assert.equal(p.deploy(['--yes', '--no-smoke'], { CHATKEEP_FRONT_DOOR_PRIVATE_LINK: 'true' }).status, 0)
    assert.ok(p.calls().some(call => /private-endpoint-connection approve --id \/connection\/1/.test(call)))
  })

  test('says so when it cannot be tried, or a setting is missing', () => {
    const p = project()
    const { status, stderr } = p.deploy(['--yes'], { AZ_FAIL: 'get-access-token' })
    assert.equal(status, 1)
    assert.match(stderr, /It was not tried.*scripts\/smoke\.sh https:\/\/api\.example TOKEN/)
    const without = project()
    assert.match(without.deploy([], { CHATKEEP_AUTH_AUDIENCE: '' }).stderr, /CHATKEEP_AUTH_AUDIENCE must be set/)
    assert.deepEqual(without.calls(), [])
  })
})
