// A client whose types come from openapi.yaml: start → send → list → get → patch → delete → export.
import createClient from 'openapi-fetch'
import type { paths } from './openapi.js'

declare const process: { argv: string[] }

const [url, token] = process.argv.slice(2)
const client = createClient<paths>({ baseUrl: url!, headers: { Authorization: `Bearer ${token}` } })

function must<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (answer.data === undefined) {
    throw new Error(`${answer.response.status} ${JSON.stringify(answer.error)}`)
  }
  return answer.data
}

const started = must(await client.POST('/api/chat/start', { body: { title: 'Trip to Rome', metadata: { source: 'web' } } }))
const conversationId = started.conversationId
const sent = must(await client.POST('/api/chat/send', { body: { conversationId, text: 'Hello' }, headers: { 'Idempotency-Key': 'once' } }))
if (typeof sent === 'string') { // it is, of a streamed send
  throw new Error('events, though none were asked for')
}
const listed = must(await client.POST('/api/chat/list-conversations', { body: { limit: 10, status: 'active' } }))
const path = { conversationId }
const page = must(await client.GET('/api/chat/conversations/{conversationId}', { params: { path, query: { limit: 50 } } }))
const updated = must(await client.PATCH('/api/chat/conversations/{conversationId}', { params: { path }, body: { status: 'completed', metadata: { source: null } } }))
const refused = await client.POST('/api/chat/send', { body: { conversationId, text: 'more' } })
const exported = must(await client.GET('/api/chat/export', { parseAs: 'text' }))
const deleted = await client.DELETE('/api/chat/conversations/{conversationId}', { params: { path } })
const gone = await client.GET('/api/chat/conversations/{conversationId}', { params: { path } })

console.log(JSON.stringify({
  answer: sent.messages[0]?.text,
  listed: listed.conversations[0]?.lastMessage?.text,
  messages: page.messages.length,
  status: updated.conversation.status,
  metadata: Object.keys(updated.conversation.metadata).length,
  refused: refused.error?.code,
  exported: exported.trimEnd().split('\n').length,
  deleted: deleted.response.status,
  gone: gone.error?.code,
}))
