// A chat of the npm package ai against two deployments: of echo, which sends cards and suggests, and of a model, whose words this program has it
// say one by one. The network between them and the chat can be cut. It ends with "all is well".
import assert from 'node:assert/strict'
import { createConnection, createServer } from 'node:net'

const [name, token, echo, model, words] = process.argv.slice(2)
const { AbstractChat, DefaultChatTransport, readUIMessageStream } = await import(name)
const headers = { Authorization: `Bearer ${token}` }

class State {
  messages = []
  status = 'ready'
  error = undefined
  pushMessage = message => { this.messages = [...this.messages, message] }
  popMessage = () => { this.messages = this.messages.slice(0, -1) }
  replaceMessage = (index, message) => { this.messages = this.messages.with(index, structuredClone(message)) }
  snapshot = value => structuredClone(value)
}

// A chat as an application has it, with what it is told beside its messages.
class Chat extends AbstractChat {
  data = []
  ends = []

  constructor(url, id, fetch) {
    const transport = new DefaultChatTransport({
      api: `${url}/api/chat/ui`, headers, fetch,
      prepareSendMessagesRequest: ({ id, messages, trigger }) => ({ body: { id, trigger, messages: messages.slice(-1) } }),
    })
    super({
      id, transport, state: new State(), generateId: () => crypto.randomUUID(),
      onData: part => this.data.push(part), onFinish: end => this.ends.push(end),
    })
    this.url = url
    this.transport = transport
  }

  get texts() { return this.messages.map(text) }
  history() { return load(`${this.url}/api/chat/ui/${this.id}`) }
  refusal() { return JSON.parse(this.error.responseBody ?? this.error.message).code }

  // What it shows is what is kept, which it returns.
  async agrees() {
    const kept = await this.history()
    assert.deepEqual(this.messages.map(content), kept.map(content))
    return kept
  }
}

const text = message => message.parts.filter(part => part.type === 'text').map(part => part.text).join('|')
const content = ({ id, role, parts }) => ({ id, role, parts: parts.map(({ type, id, text, data }) => ({ type, id, text, data })) })
const parts = (message, type) => message.parts.filter(part => part.type === type)

async function call(url, method, body) {
  const answer = await fetch(url, { method, headers: { ...headers, 'Content-Type': 'application/json' }, body: JSON.stringify(body) })
  assert.ok(answer.ok, `${url}: ${answer.status}`)
  return answer.text()
}
const load = async url => JSON.parse(await call(url, 'GET'))
const start = async url => JSON.parse(await call(`${url}/api/chat/start`, 'POST', {})).conversationId
const say = word => call(`${words}/say`, 'POST', word)
const end = () => call(`${words}/end`, 'POST')
const fail = () => call(`${words}/fail`, 'POST')

async function until(what, isTrue) {
  for (const began = Date.now(); !await isTrue(); await new Promise(resolve => setTimeout(resolve, 5))) {
    assert.ok(Date.now() - began < 30_000, what())
  }
}
const shows = (chat, text) => until(() => `${JSON.stringify(chat.texts)} instead of ${text}`, () => chat.texts.at(-1) === text)

// network is a way to a server that can be cut.
async function network(url) {
  const { hostname, port } = new URL(url)
  const open = new Set()
  const server = createServer(socket => {
    const other = createConnection({ host: hostname, port })
    for (const [from, to] of [[socket, other], [other, socket]]) {
      open.add(from)
      from.on('error', () => {}).on('close', () => { open.delete(from); to.destroy() }).pipe(to)
    }
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut: () => {
      assert.notEqual(open.size, 0)
      open.forEach(socket => socket.resetAndDestroy())
    },
    close: () => { server.close(); open.forEach(socket => socket.destroy()) },
  }
}

// As fetch, but a body that breaks has the error of a browser, by which the package tells a disconnect.
async function browsersFetch(...request) {
  const answer = await fetch(...request)
  const reader = answer.body?.getReader()
  return reader === undefined ? answer : new Response(new ReadableStream({
    pull: controller => reader.read().then(
      ({ done, value }) => (done ? controller.close() : controller.enqueue(value)), () => controller.error(new TypeError('network error'))),
    cancel: reason => reader.cancel(reason),
  }), answer)
}

async function talks() {
  const chat = new Chat(echo, await start(echo))
  await chat.sendMessage({ text: 'Hello' })
  assert.equal(chat.status, 'ready')
  assert.deepEqual(chat.texts, ['Hello', 'Hello'])
  await chat.agrees()
  await chat.resumeStream()
  assert.equal(chat.status, 'ready', 'nothing runs')

  await chat.regenerate()
  assert.equal(chat.refusal(), 'turn_complete')
  chat.messages = await chat.history()
  await chat.sendMessage({ text: 'an edit', messageId: chat.messages[0].id })
  assert.equal(chat.refusal(), 'idempotency_key_reused')
  assert.deepEqual((await chat.history()).map(text), ['Hello', 'Hello'])
}

async function sendsCards() {
  const chat = new Chat(echo, await start(echo))
  await chat.sendMessage({ text: '/card' })
  const [card] = parts(chat.messages[1], 'data-adaptivecard')
  assert.equal(card.id, 'echo')
  assert.equal(card.data.type, 'AdaptiveCard')
  await chat.sendMessage({ role: 'user', parts: [{ type: 'data-value', data: { nights: 3 } }] })
  assert.equal(chat.texts[3], '{"nights":3}')
  await chat.sendMessage({ text: '/suggest' })
  assert.deepEqual(parts(chat.messages[5], 'data-suggested').map(part => part.data), [[{ title: 'Yes', value: 'yes' }, { title: 'No', value: 'no' }]])
  await chat.agrees()
  assert.deepEqual(chat.data.map(part => part.type), ['data-adaptivecard', 'data-suggested'])

  await chat.sendMessage({ text: '/status Done' })
  assert.deepEqual(chat.data.at(-1).data, { text: 'Thinking…' })
  assert.deepEqual(chat.messages[7].parts.map(part => part.type), ['text'], 'a status is kept')
  await chat.agrees()
}

async function readsWordByWord() {
  const chat = new Chat(model, await start(model))
  const message = { id: crypto.randomUUID(), role: 'user', parts: [{ type: 'text', text: 'hi' }] }
  const stream = await chat.transport.sendMessages({ chatId: chat.id, messages: [message], trigger: 'submit-message' })
  const answers = readUIMessageStream({ stream })[Symbol.asyncIterator]()
  const reads = async wanted => {
    for (let got = ''; got !== wanted;) {
      const { done, value } = await answers.next()
      assert.ok(!done, `it ends with ${got}`)
      got = text(value)
      assert.ok(wanted.startsWith(got), got)
    }
  }
  await say('one ')
  await reads('one ')
  const resumed = await chat.transport.reconnectToStream({ chatId: chat.id })
  await say('two')
  await reads('one two')
  await end()
  let whole
  for await (whole of readUIMessageStream({ stream: resumed })) { /* the last counts */ }
  assert.equal(text(whole), 'one two')
  assert.equal(await chat.transport.reconnectToStream({ chatId: chat.id }), null)
}

async function resumesAfterACut(fetch) {
  const way = await network(model)
  const chat = new Chat(way.url, await start(model), fetch)
  const sent = chat.sendMessage({ text: 'hi' })
  await say('one ')
  await shows(chat, 'one ')
  way.cut()
  await sent
  assert.equal(chat.status, 'error')
  assert.ok(chat.error instanceof TypeError)
  assert.equal(chat.ends.at(-1).isDisconnect, fetch === browsersFetch)

  const resumed = chat.resumeStream()
  await say('two ')
  await shows(chat, 'one two ')
  way.cut()
  await resumed
  assert.equal(chat.status, 'error')
  await say('three ')
  const again = chat.resumeStream()
  await shows(chat, 'one two three ')
  await end()
  await again
  assert.equal(chat.status, 'ready')
  assert.equal(chat.error, undefined)
  await chat.agrees()
  way.close()
}

async function loadsWhatEndedDuringACut(fetch) {
  const way = await network(model)
  const chat = new Chat(way.url, await start(model), fetch)
  const sent = chat.sendMessage({ text: 'hi' })
  await say('one ')
  await shows(chat, 'one ')
  way.cut()
  await sent
  await say('two')
  await end()
  await until(() => 'the turn does not end', async () => (await chat.history()).length === 2)
  await chat.resumeStream()
  assert.equal(chat.status, 'ready')
  assert.equal(chat.texts[1], 'one ', 'the 204 says nothing')
  chat.messages = await chat.history()
  assert.deepEqual(chat.texts, ['hi', 'one two'])
  way.close()
}

async function isLoadedWhileItAnswers() {
  const id = await start(model)
  const first = new Chat(model, id)
  const sent = first.sendMessage({ text: 'hi' })
  await say('one ')
  await shows(first, 'one ')
  const chat = new Chat(model, id) // of another tab
  chat.messages = await chat.history()
  assert.deepEqual(chat.texts, ['hi'])
  const resumed = chat.resumeStream()
  await shows(chat, 'one ')
  await first.stop() // only hangs up
  await say('two')
  await end()
  await Promise.all([sent, resumed])
  assert.deepEqual(chat.texts, ['hi', 'one two'])
  await chat.agrees()
}

async function isCancelled() {
  const chat = new Chat(model, await start(model))
  const sent = chat.sendMessage({ text: 'hi' })
  await say('one ')
  await shows(chat, 'one ')
  await call(`${model}/api/chat/conversations/${chat.id}/cancel`, 'POST', {})
  await sent
  assert.equal(chat.status, 'ready')
  assert.equal(chat.ends.at(-1).finishReason, 'other')
  assert.deepEqual((await chat.agrees()).map(message => message.metadata.state), ['cancelled', 'partial'])

  const again = chat.regenerate()
  await say('better')
  await end()
  await again
  assert.equal(chat.status, 'ready')
  assert.deepEqual(chat.texts, ['hi', 'better'])
  assert.deepEqual((await chat.history()).map(text), ['hi', 'one ', 'hi', 'better'])
}

async function fails() {
  const chat = new Chat(model, await start(model))
  const sent = chat.sendMessage({ text: 'hi' })
  await say('one ')
  await shows(chat, 'one ')
  await fail()
  await sent
  assert.equal(chat.status, 'error')
  assert.match(chat.error.message, /^The agent gave no answer/)
  assert.deepEqual(chat.data.map(({ type, data }) => [type, data.code, data.requestId.length]), [['data-error', 'agent_failed', 36]])
  assert.deepEqual(chat.messages[1].parts.map(part => part.type), ['text'], 'an error is kept')
  assert.deepEqual((await chat.agrees()).map(message => message.metadata.state), ['failed', 'partial'])

  const again = chat.regenerate()
  await say('better')
  await end()
  await again
  assert.equal(chat.status, 'ready')
  assert.equal(chat.error, undefined)
  assert.deepEqual(chat.texts, ['hi', 'better'])
}

await talks()
await sendsCards()
await readsWordByWord()
for (const fetch of name === 'ai5' ? [undefined] : [undefined, browsersFetch]) { // 5 doubles what it had of an answer when it knows a disconnect
  await resumesAfterACut(fetch)
  await loadsWhatEndedDuringACut(fetch)
}
await isLoadedWhileItAnswers()
await isCancelled()
await fails()
console.log('all is well')
