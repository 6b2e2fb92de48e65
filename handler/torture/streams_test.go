package torture

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"chatkeep/handler/chat"
)

// told is an event as a client read it.
type told struct {
	id   chat.EventID
	name string
	data string
}

// reading is what a client has read of a conversation's streams, each of which began where the last was cut.
type reading struct {
	conv   string
	events []told
	last   string // id
	cuts   int
	since  time.Time // of the last cut
}

// readStream reads a stream until it ends, ctx does, or enough says so. It returns the answer's status and, when it is a problem, the answer.
func (c *client) readStream(ctx context.Context, r *reading, method, path string, body any, enough func(told) bool, headers ...string) answer {
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.w.url+path, strings.NewReader(string(text)))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+c.u.token)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Accept", "text/event-stream")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	asked := time.Now()
	response, err := c.w.client.Do(request)
	if err != nil {
		return answer{}
	}
	defer func() { _ = response.Body.Close() }()
	a := answer{status: response.StatusCode, header: response.Header}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		for lines.Scan() {
			a.text += lines.Text()
		}
		_ = json.Unmarshal([]byte(a.text), &a)
		a.took = time.Since(asked)
		c.w.books.look(c.u, method+" "+strings.TrimSuffix(path, r.last), a)
		return a
	}
	var e told
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			e.id, _ = chat.ParseEventID(value)
		case "event":
			e.name = value
		case "data":
			e.data = value
		case "":
			if e.name == "" {
				continue
			}
			c.take(r, e)
			if enough(e) {
				return a
			}
			e = told{}
		}
	}
	return a
}

// take enters an event into the books: each once, in order, and nobody else's.
func (c *client) take(r *reading, e told) {
	for _, mark := range marks.FindAllString(e.data, -1) {
		if mark != c.u.mark {
			c.w.books.violation("7: %s saw %s in a stream of %s", c.u.name, mark, r.conv)
		}
	}
	if e.id == (chat.EventID{}) { // which the conversation does not keep
		return
	}
	if n := len(r.events); n > 0 && r.events[n-1].id.Compare(e.id) >= 0 {
		c.w.books.violation("7: %s: event %s %.300s follows %s %.300s", r.conv, e.id, e.data, r.events[n-1].id, r.events[n-1].data)
	}
	r.events, r.last = append(r.events, e), e.id.String()
}

func isEnd(e told) bool { return e.name == "done" || e.name == "error" }

// stream says something and reads the answer as it is made. It is cut now and then, and goes on where it was; and it changes its mind.
func (c *client) stream(conv string) {
	s := &sent{user: c.u, conv: conv, text: c.words(), keyed: true, id: uuid()}
	if n := c.random.IntN(3); n == 0 && !strings.Contains(s.text, " ") {
		s.text += " slowly"
	}
	b := c.w.books
	b.mu.Lock()
	b.sends[s.text] = s
	b.mu.Unlock()
	cancels := strings.HasSuffix(s.text, " slowly") && c.random.IntN(2) == 0
	cut, cancelAt := c.random.IntN(8), 1+c.random.IntN(6)
	r := &reading{conv: conv}
	var last told
	enough := func(e told) bool {
		last = e
		if cancels && len(r.events) == cancelAt && !isEnd(e) {
			ctx, cancel := c.callCtx(false)
			defer cancel()
			b.mu.Lock()
			s.cancels = true
			b.mu.Unlock()
			a := c.w.call(ctx, c.u, http.MethodPost, "/api/chat/conversations/"+conv+"/cancel", map[string]string{"messageId": s.id})
			b.note(conv, "%s cancelled %q: %d %s", c.u.name, s.text, a.status, a.text)
		}
		if len(r.events) == cut && !isEnd(e) {
			cut += 1 + c.random.IntN(8)
			return true
		}
		return isEnd(e)
	}
	end := time.Now().Add(20 * time.Second)
	for time.Now().Before(end) && !isEnd(last) {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		if len(r.events) == 0 {
			a := c.readStream(ctx, r, http.MethodPost, "/api/chat/send", map[string]string{"conversationId": conv, "text": s.text, "messageId": s.id}, enough)
			b.note(conv, "%s streamed %q: %d %s, %d events", c.u.name, s.text, a.status, a.Code, len(r.events))
			if a.status == http.StatusNotFound || a.status == 409 {
				cancel()
				return
			}
		} else {
			a := c.readStream(ctx, r, http.MethodGet, "/api/chat/conversations/"+conv+"/stream?after="+r.last, nil, enough)
			b.note(conv, "%s resumed %q after %s: %d %s, %d events", c.u.name, s.text, r.last, a.status, a.Code, len(r.events))
			if a.status == http.StatusNoContent {
				b.violation("7: %s: nothing follows %s, and %q has not ended", conv, r.last, s.text)
				cancel()
				return
			}
		}
		cancel()
		if !isEnd(last) {
			r.cuts++
			r.since = time.Now()
			time.Sleep(time.Duration(c.random.IntN(100)) * time.Millisecond)
		}
	}
	if isEnd(last) {
		c.checkStream(s, r, last)
	}
}

// checkStream compares a turn that was read to its end with itself, and enters its end into the books.
func (c *client) checkStream(s *sent, r *reading, last told) {
	b := c.w.books
	joined := make(map[string]string)
	quick := r.cuts == 0 || time.Since(r.since) < 500*time.Millisecond // the log cannot have been trimmed by two newer turns
	for _, e := range r.events {
		var m message
		var d struct{ MessageID, Text string }
		switch e.name {
		case "message.accepted":
			var accepted struct {
				ConversationID string
				Message        message
			}
			_ = json.Unmarshal([]byte(e.data), &accepted)
			if accepted.ConversationID != s.conv || accepted.Message.Text != s.text || accepted.Message.State != "pending" {
				b.violation("7: %s: %q was accepted as %s", s.conv, s.text, e.data)
			}
		case "delta":
			_ = json.Unmarshal([]byte(e.data), &d)
			joined[d.MessageID] += d.Text
		case "message":
			_ = json.Unmarshal([]byte(e.data), &m)
			// A stream that is resumed elsewhere may lack the last deltas of an answer: the message has them.
			if said := joined[m.ID]; quick && r.cuts == 0 && said != "" && said != m.Text || !strings.HasPrefix(m.Text, said) {
				b.violation("7: %s: the deltas of %q are %q, and the message %q", s.conv, s.text, said, m.Text)
			}
		}
	}
	a := answer{status: http.StatusOK, header: http.Header{}, text: last.data + "\n"}
	_ = json.Unmarshal([]byte(last.data), &a)
	if last.name == "error" {
		var problem struct {
			Status int
			Code   string
		}
		_ = json.Unmarshal([]byte(last.data), &problem)
		a.status, a.Code = problem.Status, problem.Code
	}
	b.look(c.u, "POST /api/chat/send, streamed", a)
	c.judge(s, a)
}

// follow reads what happens in a conversation for a while, and comes again when it is cut.
func (c *client) follow(conv string) {
	r := &reading{conv: conv}
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(100+c.random.IntN(900))*time.Millisecond)
		path := "/api/chat/conversations/" + conv + "/stream?follow=true"
		if r.last != "" {
			path += "&after=" + r.last
		}
		c.readStream(ctx, r, http.MethodGet, path, nil, func(told) bool { return false })
		cancel()
	}
	open := ""
	for _, e := range r.events { // between two turns stands the end of the first
		if isEnd(e) {
			open = ""
		} else if seq := strings.Split(e.id.String(), "-")[0]; open != "" && open != seq {
			c.w.books.violation("7: %s: the turn of %s was not ended before that of %s", conv, open, seq)
		} else {
			open = seq
		}
	}
}
