// Talks to a "direct to engine" agent as Microsoft's client does: node client.mjs <connection string> <token>
import { Activity } from '@microsoft/agents-activity'
import { ConnectionSettings, CopilotStudioClient } from '@microsoft/agents-copilotstudio-client'

const [directConnectUrl, token] = process.argv.slice(2)
const client = new CopilotStudioClient(new ConnectionSettings({ directConnectUrl }), token)

async function all (activities) {
  const seen = []
  for await (const { type, text, conversation } of activities) seen.push({ type, text, conversation })
  return seen
}

const greeting = await all(client.startConversationStreaming())
const id = greeting[0].conversation.id
const turn = await all(client.sendActivityStreaming(Activity.fromObject({ type: 'message', text: 'hi' }), id))
const card = await all(client.sendActivityStreaming(Activity.fromObject({ type: 'message', value: { a: { b: 1 } } }), id))
console.log(JSON.stringify({ greeting, turn, card }))
process.exit(0)
