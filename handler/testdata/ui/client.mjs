// A chat of the npm package ai, by its DefaultChatTransport: says something, says it in a card's way, tries an edit, resumes where nothing runs,
// asks again what has its answer, and loads the history. It prints what its user would see.
const [name, url, token, id] = process.argv.slice(2)
const { AbstractChat, DefaultChatTransport } = await import(name)

class State {
  messages = []
  status = 'ready'
  error = undefined
  pushMessage = message => { this.messages = [...this.messages, message] }
  popMessage = () => { this.messages = this.messages.slice(0, -1) }
  replaceMessage = (index, message) => { this.messages = this.messages.with(index, message) }
  snapshot = value => structuredClone(value)
}
class Chat extends AbstractChat {
  constructor(init) { super({ ...init, state: new State() }) }
}

const headers = { Authorization: `Bearer ${token}` }
const chat = new Chat({ id, transport: new DefaultChatTransport({ api: `${url}/api/chat/ui`, headers }) })
const text = message => message.parts.filter(part => part.type === 'text').map(part => part.text).join('')
const refusal = () => JSON.parse(chat.error.responseBody ?? chat.error.message).code

await chat.sendMessage({ text: 'Hello' })
const said = { status: chat.status, texts: chat.messages.map(text), roles: chat.messages.map(message => message.role) }
const answer = chat.messages[1].id
await chat.sendMessage({ role: 'user', parts: [{ type: 'data-value', data: { nights: 3 } }] })
said.card = text(chat.messages[3])
await chat.resumeStream()
said.resumed = chat.status

const history = await (await fetch(`${url}/api/chat/ui/${id}`, { headers })).json()
said.history = history.map(message => message.role)
said.sameId = history[1].id === answer
await chat.regenerate()
said.again = refusal()
chat.messages = history
await chat.sendMessage({ text: 'an edit', messageId: history[2].id })
said.edit = refusal()
console.log(JSON.stringify(said))
