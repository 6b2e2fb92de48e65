package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// operation is something that callers do. It is measured under load and, also in other forms, one request after another.
type operation struct {
	name   string
	loaded request
	alone  []request
}

// request is what each connection asks again and again.
type request struct {
	name    string
	status  int // of its answer
	prepare preparation
	aims    map[string]string // by the figure's name
}

// preparation stores what a user's requests need, and returns them, to be sent in turn.
type preparation func(c *conn, token string) ([][]byte, error)

// operations returns all of them, with what each may cost.
func operations() []operation {
	full := fullMetadata()
	startCosts := map[string]string{commands: "≤ 14", redisTime: "≤ 45"}
	sendCosts := map[string]string{commands: "≤ 28", redisTime: "≤ 80", aofBytes: "≤ 2560"}
	getCosts := map[string]string{commands: "≤ 5", redisTime: "≤ 30", aofBytes: "0"}
	return []operation{
		{"start",
			request{"start", 201, toStart(smallMetadata), map[string]string{throughput: "≥ 0.75 ×", p99: "≤ 1.4 ×", serverCPU: "≤ 60"}},
			[]request{
				{"start", 201, toStart(smallMetadata), startCosts},
				{"start, full metadata", 201, toStart(full), startCosts},
			}},
		{"send",
			request{"send", 200, toSend(smallMetadata), map[string]string{throughput: "≥ 0.75 ×", p99: "≤ 1.4 ×", serverCPU: "≤ 120"}},
			[]request{
				{"send", 200, toSend(smallMetadata), sendCosts},
				{"send, full metadata", 200, toSend(full), sendCosts},
			}},
		{"send-50",
			request{"send after 50 messages", 200, toSendOn, map[string]string{throughput: "≥ 0.75 ×", p99: "≤ 1.4 ×"}},
			[]request{{"send after 50 messages", 200, toSendOn, map[string]string{commands: "≤ 28", aofBytes: "≤ 2560"}}}},
		{"get-50",
			request{"get-50", 200, toGet(50), map[string]string{throughput: "≥ 0.9 ×", p99: "≤ 1.4 ×", serverCPU: "≤ 130"}},
			[]request{{"get, limit=2", 200, toGet(2), getCosts}}},
		{"get-304",
			request{"get-304", 304, toRevalidate(50), map[string]string{p99: "≤ 1.4 ×"}},
			[]request{{"get-304, limit=2", 304, toRevalidate(2), getCosts}}},
		{"list-20",
			request{"list-20", 200, toList(20), map[string]string{throughput: "≥ 0.9 ×", p99: "≤ 1.4 ×"}},
			[]request{{"list-20", 200, toList(20), map[string]string{redisTime: "≤ 60", aofBytes: "0"}}}},
	}
}

func operationNames() string {
	var names []string
	for _, o := range operations() {
		names = append(names, o.name)
	}
	return strings.Join(names, ",")
}

func selectOperations(names []string) ([]operation, error) {
	var selected []operation
	for _, name := range names {
		all := operations()
		i := slices.IndexFunc(all, func(o operation) bool { return o.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-ops: %q is none of %s", name, operationNames())
		}
		selected = append(selected, all[i])
	}
	return selected, nil
}

// fullMetadata is as much as a conversation may have: 16 pairs, 9 KiB.
func fullMetadata() map[string]string {
	metadata := map[string]string{}
	for i := range 16 {
		metadata[fmt.Sprintf("%02d%s", i, strings.Repeat("k", 62))] = strings.Repeat("v", 512)
	}
	return metadata
}

// question is as short as people begin, so that the figures are of the work and not of the text.
const question = "Hello"

// history is how many earlier messages an agent is given.
const history = 50

var smallMetadata = map[string]string{"source": "web"}

func toStart(metadata map[string]string) preparation {
	return func(_ *conn, token string) ([][]byte, error) {
		return [][]byte{startMessage(token, metadata)}, nil
	}
}

// toSend speaks in many conversations in turn, which therefore stay short.
func toSend(metadata map[string]string) preparation {
	return func(c *conn, token string) ([][]byte, error) {
		var requests [][]byte
		for range 50 {
			id, err := c.start(token, metadata)
			if err != nil {
				return nil, err
			}
			requests = append(requests, sendMessage(token, id))
		}
		return requests, nil
	}
}

// toSendOn goes on with one conversation.
func toSendOn(c *conn, token string) ([][]byte, error) {
	id, err := c.converse(token, history)
	return [][]byte{sendMessage(token, id)}, err
}

// toGet asks for the last so many messages of a conversation of 50.
func toGet(limit int) preparation {
	return func(c *conn, token string) ([][]byte, error) {
		id, err := c.converse(token, 50)
		return [][]byte{getMessage(token, id, limit, "")}, err
	}
}

// toRevalidate asks for the same, by someone who has it.
func toRevalidate(limit int) preparation {
	return func(c *conn, token string) ([][]byte, error) {
		id, err := c.converse(token, 50)
		if err != nil {
			return nil, err
		}
		first := caller{conn: c, requests: [][]byte{getMessage(token, id, limit, "")}, status: 200}
		err = first.call()
		return [][]byte{getMessage(token, id, limit, "If-None-Match: "+string(c.etag)+"\r\n")}, err
	}
}

// toList asks for the first page of half as many conversations again.
func toList(limit int) preparation {
	return func(c *conn, token string) ([][]byte, error) {
		for range limit + limit/2 {
			if _, err := c.start(token, smallMetadata); err != nil {
				return nil, err
			}
		}
		return [][]byte{post("/api/chat/list-conversations", token, map[string]any{"limit": limit})}, nil
	}
}

// converse makes a conversation of so many messages.
func (c *conn) converse(token string, messages int) (id string, err error) {
	id, err = c.start(token, smallMetadata)
	send := caller{conn: c, requests: [][]byte{sendMessage(token, id)}, status: 200}
	for i := 0; i < messages && err == nil; i += 2 {
		err = send.call()
	}
	return id, err
}

// start makes a conversation.
func (c *conn) start(token string, metadata map[string]string) (id string, err error) {
	start := caller{conn: c, requests: [][]byte{startMessage(token, metadata)}, status: 201}
	if err := start.call(); err != nil {
		return "", err
	}
	var started struct{ ConversationID string }
	err = json.Unmarshal(c.body, &started)
	return started.ConversationID, err
}

func startMessage(token string, metadata map[string]string) []byte {
	return post("/api/chat/start", token, map[string]any{"title": "Trip to Rome", "metadata": metadata})
}

func sendMessage(token, id string) []byte {
	return post("/api/chat/send", token, map[string]any{"conversationId": id, "text": question})
}

func getMessage(token, id string, limit int, headers string) []byte {
	return fmt.Appendf(nil, "GET /api/chat/conversations/%s?limit=%d HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n%s\r\n",
		id, limit, token, headers)
}

func post(path, token string, body any) []byte {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, token, len(text), text)
}
