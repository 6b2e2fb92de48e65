// Reads an event stream with the npm package eventsource, and prints each event as a line of JSON, until so many have ended a turn, or until
// the server says that nothing follows.
import { EventSource } from 'eventsource'

const [url, token, turns] = process.argv.slice(2)
let left = Number(turns)
const source = new EventSource(url, {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } }),
})
source.onopen = () => console.log(JSON.stringify({ name: 'open' }))
for (const name of ['message.accepted', 'status', 'delta', 'message', 'card', 'suggested', 'done', 'error']) {
  source.addEventListener(name, event => {
    if (event.data === undefined) { // its own: the connection has ended
      if (source.readyState === EventSource.CLOSED) {
        console.log(JSON.stringify({ closed: event.code ?? 0 }))
      } else {
        console.log(JSON.stringify({ name: 'away' }))
      }
      return
    }
    console.log(JSON.stringify({ id: event.lastEventId, name, data: event.data }))
    if ((name === 'done' || name === 'error') && --left === 0) {
      source.close()
    }
  })
}
