// The scripts of a deployment, with an Azure CLI that only plays.

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
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

describe('smoke.sh', () => {
  // serve answers as the API behind Front Door does, but for one fault, and returns its address.
  async function serve(t, fault) {
    const id = '0198c0de-0000-7000-8000-000000000001'
    const messages = []
    const server = createServer((request, response) => {
      let text = ''
      request.on('data', part => { text += part })
      request.on('end', () => {
        const reply = (status, body, headers = {}) => {
          response.writeHead(status, {
            'Content-Type': 'application/json', 'X-Request-Id': 'r', 'Cache-Control': 'no-store',
            'X-Azure-Ref': 'a', 'Strict-Transport-Security': 'max-age=31536000', ...headers, ...fault.headers,
          })
          response.end(JSON.stringify(body))
        }
        const problem = (status, code, headers) => reply(status, { status, code }, headers)
        const token = request.headers.authorization?.replace('Bearer ', '')
        const body = text ? JSON.parse(text) : {}
        if (request.url.startsWith('/origin') && !fault.open) {
          return reply(403, {})
        }
        if (request.url === '/health') {
          return fault.ill ? reply(503, { status: 'unhealthy' }) : reply(fault.noHead && request.method === 'HEAD' ? 405 : 200, { status: 'healthy' })
        }
        if (!(token === 'alice' || token === 'bob' || fault.anybody)) {
          return problem(401, 'unauthenticated', fault.bare ? {} : { 'WWW-Authenticate': 'Bearer realm="api"' })
        }
        const mine = token === 'alice' || fault.shared
        switch (request.url.replace('/origin', '')) {
          case '/api/chat/start':
            return fault.noStart ? problem(503, 'store_unavailable') : reply(201, { conversationId: id, conversation: { id }, messages: [] })
          case '/api/chat/send':
            if (body.conversationId !== id && !fault.foreign) {
              return problem(404, 'not_found')
            }
            messages.push({ role: 'user', text: fault.garbles ? 'x' : body.text }, { role: 'assistant', text: 'echo' })
            return reply(200, { conversationId: id, message: messages[0], messages: fault.mute ? [] : [messages[1]] })
          case `/api/chat/conversations/${id}`:
            return mine ? reply(200, { conversation: { id, messageCount: fault.forgets ? 1 : messages.length }, messages }) : problem(404, 'not_found')
          case '/api/chat/list-conversations':
            return reply(200, { conversations: mine && !fault.unlisted ? [{ id }] : [] })
          default:
            return fault.foreign ? reply(200, {}) : problem(404, 'not_found')
        }
      })
    })
    await new Promise(ready => server.listen(0, '127.0.0.1', ready))
    t.after(() => server.close())
    return `http://127.0.0.1:${server.address().port}`
  }

  function smoke(url, env = {}) {
    const child = spawn(join(root, 'scripts/smoke.sh'), [url, 'alice'], {
      env: { PATH: '/usr/bin:/bin', OTHER_TOKEN: 'bob', ORIGIN_URL: `${url}/origin`, ...env },
    })
    let output = ''
    child.stdout.on('data', data => { output += data })
    child.stderr.on('data', data => { output += data })
    return new Promise(ended => child.on('close', status => ended({ status, output })))
  }

  test('passes when all is well, and tries everything', async t => {
    const { status, output } = await smoke(await serve(t, {}))
    assert.equal(status, 0, output)
    assert.match(output, /^20 passed, 0 failed$/m)
    assert.doesNotMatch(output, /^–|alice|bob/m)
  })

  for (const [name, fault, line] of [
    ['the store cannot be reached', { ill: true }, 'health: the API reaches its store'],
    ['HEAD is refused', { noHead: true }, 'health: answers HEAD'],
    ['there is no challenge', { bare: true }, 'no token: refused'],
    ['a broken token is taken', { anybody: true }, 'a token with a broken signature'],
    ['no conversation can be made', { noStart: true }, 'start: makes a conversation'],
    ['nobody answers', { mute: true }, 'send: keeps a message'],
    ['the text is another', { garbles: true }, 'get: the message is there'],
    ['a message is lost', { forgets: true }, 'get: the turn is complete'],
    ['an answer may be kept', { headers: { 'Cache-Control': 'public' } }, 'get: nobody on the way'],
    ['the list forgets', { unlisted: true }, 'list: has the conversation'],
    ['foreign ids are answered', { foreign: true }, 'a foreign id: get'],
    ['another user sees it', { shared: true }, 'another user: cannot get'],
    ['the app answers everybody', { open: true }, "past Front Door: the app's own address refuses"],
    ['HTTPS is not insisted on', { headers: { 'Strict-Transport-Security': '' } }, 'Front Door: insists on HTTPS'],
    ['a cache answers', { headers: { 'X-Cache': 'TCP_HIT' } }, 'Front Door: did not answer from a cache'],
  ]) {
    test(`fails when ${name}`, async t => {
      const { status, output } = await smoke(await serve(t, fault))
      assert.equal(status, 1, output)
      assert.match(output, new RegExp(`^FAIL  ${line}`, 'm'))
    })
  }

  test('fails when nobody is there', async () => {
    const { status, output } = await smoke('http://127.0.0.1:1')
    assert.equal(status, 1)
    assert.match(output, /no answer/)
  })

  test('says how it is used', async () => {
    assert.equal(spawnSync(join(root, 'scripts/smoke.sh'), ['http://127.0.0.1:1'], { env: { PATH: '/usr/bin:/bin' } }).status, 2)
  })
})

test('shellcheck finds nothing', { skip: spawnSync('shellcheck', ['--version']).status !== 0 && 'there is no shellcheck' }, () => {
  const scripts = ['scripts/smoke.sh', 'scripts/deploy.sh', 'scripts/register-api.sh', 'infra/check/run.sh']
  const { status, stdout } = spawnSync('shellcheck', scripts, { cwd: root, encoding: 'utf8' })
  assert.equal(status, 0, stdout)
})
