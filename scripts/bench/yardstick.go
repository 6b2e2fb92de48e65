package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// yardstick is the least server that answers like the API: net/http, encoding/json and go-redis, with as few round trips and commands
// as the answers need. It keeps none of the promises: it believes every caller, checks nothing, recognises no repetition, and a crash
// may leave half of what it writes.
//
// A conversation is a HASH: fixed, the part of its JSON object that never changes; count, how many messages it has; updated, when. Its messages are a
// LIST of JSON objects without their seq, and the conversations of a user a ZSET by the time of their update.
type yardstick struct{ redis *redis.Client }

func newYardstick(client *redis.Client) http.Handler {
	y := &yardstick{client}
	mux := http.NewServeMux()
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request) error{
		"POST /api/chat/start":              y.start,
		"POST /api/chat/send":               y.send,
		"GET /api/chat/conversations/{id}":  y.get,
		"POST /api/chat/list-conversations": y.list,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := handle(w, r); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	return mux
}

// serveYardstick serves until ctx ends.
func serveYardstick(ctx context.Context, addr, redisAddr string) error {
	client := redis.NewClient(&redis.Options{Addr: redisAddr, Protocol: 2, DisableIdentity: true, PoolSize: 20}) // as the handler's
	defer func() { _ = client.Close() }()
	server := &http.Server{Addr: addr, Handler: newYardstick(client), ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

const (
	timeToLive = 30 * 24 * time.Hour
	stampForm  = "2006-01-02T15:04:05.000Z"
)

// fixed is the part of a conversation that never changes.
type fixed struct {
	ID        string            `json:"id"`
	Title     string            `json:"title"`
	Status    string            `json:"status"`
	Metadata  map[string]string `json:"metadata"`
	UserID    string            `json:"userId"`
	CreatedAt string            `json:"createdAt"`
}

type message struct {
	ID        string `json:"id"`
	Role      string `json:"role"`
	Kind      string `json:"kind"`
	Text      string `json:"text"`
	InReplyTo string `json:"inReplyTo,omitempty"`
	State     string `json:"state"`
	CreatedAt string `json:"createdAt"`
}

type startResponse struct {
	ConversationID string            `json:"conversationId"`
	Conversation   json.RawMessage   `json:"conversation"`
	Messages       []json.RawMessage `json:"messages"`
}

type sendResponse struct {
	ConversationID string            `json:"conversationId"`
	Message        json.RawMessage   `json:"message"`
	Messages       []json.RawMessage `json:"messages"`
}

type getResponse struct {
	Conversation json.RawMessage   `json:"conversation"`
	Messages     []json.RawMessage `json:"messages"`
	HasMore      bool              `json:"hasMore"`
}

type listResponse struct {
	Conversations []json.RawMessage `json:"conversations"`
	NextCursor    *string           `json:"nextCursor"`
	HasMore       bool              `json:"hasMore"`
}

func (y *yardstick) start(w http.ResponseWriter, r *http.Request) error {
	var c fixed
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		return err
	}
	now := time.Now().UTC()
	c.ID, c.Status, c.UserID, c.CreatedAt = rand.Text(), "active", user(r), now.Format(stampForm)
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	conversation, index := conversationKey(c.UserID, c.ID), indexKey(c.UserID)
	if _, err := y.redis.Pipelined(r.Context(), func(p redis.Pipeliner) error {
		p.HSet(r.Context(), conversation, "fixed", text, "count", 0, "updated", c.CreatedAt)
		p.ZAdd(r.Context(), index, redis.Z{Score: float64(now.UnixMilli()), Member: c.ID})
		p.PExpire(r.Context(), conversation, timeToLive)
		p.PExpire(r.Context(), index, timeToLive)
		return nil
	}); err != nil {
		return err
	}
	return answer(w, http.StatusCreated, startResponse{c.ID, conversationJSON(string(text), "0", c.CreatedAt), []json.RawMessage{}})
}

func (y *yardstick) send(w http.ResponseWriter, r *http.Request) error {
	var said struct {
		ConversationID string `json:"conversationId"`
		Text           string `json:"text"`
	}
	if err := json.NewDecoder(r.Body).Decode(&said); err != nil {
		return err
	}
	userID := user(r)
	conversation, messages, index := conversationKey(userID, said.ConversationID), messagesKey(userID, said.ConversationID), indexKey(userID)
	now := time.Now().UTC()
	question := message{ID: rand.Text(), Role: "user", Kind: "text", Text: said.Text, State: "complete", CreatedAt: now.Format(stampForm)}
	asked, err := json.Marshal(question)
	if err != nil {
		return err
	}
	if _, err := y.redis.Pipelined(r.Context(), func(p redis.Pipeliner) error {
		p.RPush(r.Context(), messages, asked)
		p.LRange(r.Context(), messages, -history-1, -2) // for the agent, as in the handler
		return nil
	}); err != nil {
		return err
	}

	now = time.Now().UTC() // an echo takes no time
	reply := message{
		ID: rand.Text(), Role: "assistant", Kind: "text", Text: said.Text, InReplyTo: question.ID, State: "complete", CreatedAt: now.Format(stampForm),
	}
	answered, err := json.Marshal(reply)
	if err != nil {
		return err
	}
	var count *redis.IntCmd
	if _, err := y.redis.Pipelined(r.Context(), func(p redis.Pipeliner) error {
		count = p.RPush(r.Context(), messages, answered)
		p.HSet(r.Context(), conversation, "updated", reply.CreatedAt)
		p.HIncrBy(r.Context(), conversation, "count", 2)
		p.ZAdd(r.Context(), index, redis.Z{Score: float64(now.UnixMilli()), Member: said.ConversationID})
		p.PExpire(r.Context(), conversation, timeToLive)
		p.PExpire(r.Context(), messages, timeToLive)
		p.PExpire(r.Context(), index, timeToLive)
		return nil
	}); err != nil {
		return err
	}
	return answer(w, http.StatusOK, sendResponse{
		said.ConversationID, messageJSON(string(asked), count.Val()-1), []json.RawMessage{messageJSON(string(answered), count.Val())},
	})
}

func (y *yardstick) get(w http.ResponseWriter, r *http.Request) error {
	userID, id := user(r), r.PathValue("id")
	limit, err := strconv.ParseInt(r.URL.Query().Get("limit"), 10, 64)
	if err != nil {
		return err
	}
	if known := r.Header.Get("If-None-Match"); known != "" {
		count, err := y.redis.HGet(r.Context(), conversationKey(userID, id), "count").Result()
		if err != nil {
			return err
		}
		if known == etag(count) {
			w.Header().Set("ETag", known)
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	var fields *redis.SliceCmd
	var page *redis.StringSliceCmd
	var length *redis.IntCmd
	if _, err := y.redis.Pipelined(r.Context(), func(p redis.Pipeliner) error {
		fields = p.HMGet(r.Context(), conversationKey(userID, id), "fixed", "count", "updated")
		page = p.LRange(r.Context(), messagesKey(userID, id), -limit, -1)
		length = p.LLen(r.Context(), messagesKey(userID, id))
		return nil
	}); err != nil {
		return err
	}
	var text, count, updated string
	if err := scanStrings(fields.Val(), &text, &count, &updated); err != nil {
		return err
	}
	earlier := length.Val() - int64(len(page.Val()))
	got := getResponse{conversationJSON(text, count, updated), make([]json.RawMessage, len(page.Val())), earlier > 0}
	for i, stored := range page.Val() {
		got.Messages[i] = messageJSON(stored, earlier+int64(i)+1)
	}
	w.Header().Set("ETag", etag(count))
	return answer(w, http.StatusOK, got)
}

// listScript is one round trip instead of two.
var listScript = redis.NewScript(`
local page = {}
for i, id in ipairs(redis.call('ZREVRANGE', KEYS[1], ARGV[1], ARGV[2])) do
  page[i] = redis.call('HMGET', ARGV[3] .. id, 'fixed', 'count', 'updated')
end
return page`)

// list pages by offset: its cursor is how many have been shown.
func (y *yardstick) list(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Limit  int    `json:"limit"`
		Cursor string `json:"cursor"`
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return err
	}
	first := 0
	if req.Cursor != "" {
		var err error
		if first, err = strconv.Atoi(req.Cursor); err != nil {
			return err
		}
	}
	userID := user(r)
	page, err := listScript.Run(r.Context(), y.redis, []string{indexKey(userID)},
		first, first+req.Limit, conversationKey(userID, "")).Slice()
	if err != nil {
		return err
	}
	list := listResponse{Conversations: make([]json.RawMessage, min(len(page), req.Limit)), HasMore: len(page) > req.Limit}
	for i := range list.Conversations {
		var text, count, updated string
		fields, _ := page[i].([]any)
		if err := scanStrings(fields, &text, &count, &updated); err != nil {
			return err
		}
		list.Conversations[i] = conversationJSON(text, count, updated)
	}
	if list.HasMore {
		next := strconv.Itoa(first + req.Limit)
		list.NextCursor = &next
	}
	return answer(w, http.StatusOK, list)
}

// user is the end of the token's signature: different users have different ones.
func user(r *http.Request) string {
	token := r.Header.Get("Authorization")
	return token[max(0, len(token)-16):]
}

func conversationKey(userID, id string) string { return "chat:{" + userID + "}:c:" + id }
func messagesKey(userID, id string) string     { return "chat:{" + userID + "}:m:" + id }
func indexKey(userID string) string            { return "chat:{" + userID + "}:idx" }

func etag(count string) string { return `"` + count + `"` }

// conversationJSON adds what changes to what does not.
func conversationJSON(fixed, count, updated string) json.RawMessage {
	return json.RawMessage(strings.TrimSuffix(fixed, "}") + `,"messageCount":` + count + `,"updatedAt":"` + updated + `"}`)
}

// messageJSON adds its seq to a stored message.
func messageJSON(stored string, seq int64) json.RawMessage {
	return json.RawMessage(`{"seq":` + strconv.FormatInt(seq, 10) + "," + stored[1:])
}

func answer(w http.ResponseWriter, status int, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text)
	return nil
}

// scanStrings copies strings that Redis has returned.
func scanStrings(values []any, targets ...*string) error {
	if len(values) != len(targets) {
		return errors.New("no such conversation")
	}
	for i, value := range values {
		text, isString := value.(string)
		if !isString {
			return errors.New("no such conversation")
		}
		*targets[i] = text
	}
	return nil
}
