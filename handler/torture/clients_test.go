package torture

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// client is one tab of a user: it does one thing after the other, and remembers what it has seen.
type client struct {
	w      *world
	u      *user
	others []*user
	random *mathrand.Rand
	calm   *atomic.Bool // the agent is to be left alone

	seen map[string]seen // by conversation
}

// seen is a conversation as a client last saw it; it never goes back behind that.
type seen struct {
	version  int64
	messages map[int64]sight
	etag     string
}

// sight is a message at some version of its conversation.
type sight struct {
	message
	version int64
}

var serial atomic.Int64

// words makes a text that nobody else says, with a command to the agent now and then.
func (c *client) words() string {
	text := fmt.Sprintf("%s%d", c.u.mark, serial.Add(1))
	if c.calm.Load() {
		return text
	}
	switch n := c.random.IntN(100); {
	case n < 5:
		return text + " fail"
	case n < 6:
		return text + " panic"
	case n < 7:
		return text + " stall"
	case n < 9:
		return text + " late"
	case n < 20:
		return text + " two"
	}
	return text
}

// live does things until the end of ctx; what it has begun then, it finishes.
func (c *client) live(ctx context.Context) {
	for ctx.Err() == nil {
		c.u.mu.Lock()
		known := len(c.u.convs)
		c.u.mu.Unlock()
		switch n := c.random.IntN(100); {
		case known == 0 || n < 3 && known < 40:
			c.start()
		case n < 40:
			c.send(c.conversation())
		case n < 50:
			c.stream(c.conversation())
		case n < 52:
			c.follow(c.conversation())
		case n < 75:
			c.get(c.conversation())
		case n < 85:
			c.pageThrough(c.conversation())
		case n < 97:
			c.list()
		default:
			c.trespass()
		}
		time.Sleep(time.Duration(c.random.IntN(30)) * time.Millisecond)
	}
}

// conversation is one that the user has; the newest more often, so that clients meet.
func (c *client) conversation() string {
	c.u.mu.Lock()
	defer c.u.mu.Unlock()
	n := len(c.u.convs)
	if c.random.IntN(2) == 0 {
		return c.u.convs[n-1-c.random.IntN(min(n, 3))]
	}
	return c.u.convs[c.random.IntN(n)]
}

func uuid() string {
	var u [16]byte
	_, _ = rand.Read(u[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func (c *client) start() {
	title := fmt.Sprintf("%s%d", c.u.mark, serial.Add(1))
	b := &begun{user: c.u, keyed: c.random.IntN(2) == 0}
	c.w.books.mu.Lock()
	c.w.books.starts[title] = b
	c.w.books.mu.Unlock()
	var headers []string
	if b.keyed {
		headers = []string{"Idempotency-Key", title}
	}
	var id string
	for try := range 4 {
		ctx, cancel := c.callCtx(c.random.IntN(4) == 0 && b.keyed)
		a := c.w.call(ctx, c.u, http.MethodPost, "/api/chat/start", map[string]string{"title": title}, headers...)
		cancel()
		if a.status == http.StatusCreated {
			if id != "" && id != a.ConversationID {
				c.w.books.violation("1: the start %s made %s, and repeated %s", title, id, a.ConversationID)
			}
			again := id != ""
			id = a.ConversationID
			if again || !b.keyed || c.random.IntN(2) == 0 {
				break
			}
		}
		if !b.keyed || try == 3 {
			break
		}
		time.Sleep(time.Duration(c.random.IntN(300)) * time.Millisecond)
	}
	if id == "" {
		return
	}
	c.w.books.mu.Lock()
	b.id = id
	c.w.books.mu.Unlock()
	c.u.mu.Lock()
	c.u.convs = append(c.u.convs, id)
	c.u.mu.Unlock()
	c.w.books.note(id, "%s started it", c.u.name)
}

// callCtx is a context that ends in the midst of things, when the client hangs up.
func (c *client) callCtx(hangsUp bool) (context.Context, context.CancelFunc) {
	if hangsUp {
		return context.WithTimeout(context.Background(), time.Duration(1+c.random.IntN(150))*time.Millisecond)
	}
	return context.WithTimeout(context.Background(), time.Minute)
}

// send says something, often with a key; then it repeats itself until it is answered, and sometimes once more.
func (c *client) send(conv string) {
	s := &sent{user: c.u, conv: conv, text: c.words()}
	body := map[string]string{"conversationId": conv, "text": s.text}
	var headers []string
	key := strings.ReplaceAll(s.text, " ", "/")
	switch c.random.IntN(4) {
	case 0:
		s.keyed, headers = true, []string{"Idempotency-Key", key}
	case 1:
		s.keyed, s.id = true, uuid()
		body["messageId"] = s.id
	case 2:
		s.keyed, s.id, headers = true, uuid(), []string{"Idempotency-Key", key}
		body["messageId"] = s.id
	}
	b := c.w.books
	b.mu.Lock()
	b.sends[s.text] = s
	b.mu.Unlock()

	once := func() answer {
		ctx, cancel := c.callCtx(c.random.IntN(8) == 0)
		defer cancel()
		a := c.w.call(ctx, c.u, http.MethodPost, "/api/chat/send", body, headers...)
		b.note(conv, "%s sent %q keyed=%t: %d %s %s replayed=%s", c.u.name, s.text, s.keyed, a.status, a.Code,
			a.header.Get("X-Request-Id"), a.header.Get("Idempotency-Replayed"))
		c.judge(s, a)
		return a
	}
	if s.keyed && c.random.IntN(5) == 0 { // a double click
		done := make(chan answer, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			done <- c.w.call(ctx, c.u, http.MethodPost, "/api/chat/send", body, headers...)
		}()
		defer func() {
			a := <-done
			b.note(conv, "%s sent %q at the same time: %d %s", c.u.name, s.text, a.status, a.Code)
			c.judge(s, a)
		}()
	}
	for try := range 5 {
		a := once()
		settled := a.status == 200 || a.Code == "agent_failed" || a.Code == "agent_timeout"
		if !s.keyed || settled && c.random.IntN(4) > 0 || try == 4 {
			return
		}
		time.Sleep(time.Duration(c.random.IntN(400)) * time.Millisecond)
	}
}

// judge enters an answer to a message into the books.
func (c *client) judge(s *sent, a answer) {
	b := c.w.books
	b.mu.Lock()
	earlier, failed := s.answer, s.failed
	switch {
	case a.status == 200 && s.answer == nil:
		s.answer = &a
	case a.Code == "agent_failed" || a.Code == "agent_timeout":
		s.failed = true
	case a.Code == "turn_in_progress" && !s.keyed:
		s.absent = true
	}
	answered, failedNow := s.answer, s.failed
	b.mu.Unlock()
	switch {
	case a.Code == "not_found":
		b.violation("1: %s: the conversation of %q is gone", s.conv, s.text)
	case a.status == 200 && earlier != nil && earlier.text != a.text:
		b.violation("1: %s: repeated, %q was answered by\n%s\nthen by\n%s", s.conv, s.text, earlier.text, a.text)
	case answered != nil && failedNow && (earlier == nil || !failed):
		b.violation("1: %s: %q was acknowledged both as answered and as failed", s.conv, s.text)
	case a.status == 200 && (a.Message.Text != s.text || s.id != "" && a.Message.ID != s.id ||
		a.Message.State != "complete" && (a.Message.State != "cancelled" || !s.cancels)):
		b.violation("1: %s: %q was acknowledged as %+v", s.conv, s.text, a.Message)
	}
}

// observe compares what a client sees with what it saw before.
func (c *client) observe(conv string, a answer) {
	last := c.seen[conv]
	if a.Conversation.Version < last.version {
		c.w.books.violation("3: %s: %s saw version %d after %d", conv, c.u.name, a.Conversation.Version, last.version)
	}
	etag := a.header.Get("ETag")
	if etag != fmt.Sprintf(`W/"%d"`, a.Conversation.Version) {
		c.w.books.violation("5: %s: the ETag %s is not version %d", conv, etag, a.Conversation.Version)
	}
	if last.messages == nil {
		last.messages = make(map[int64]sight)
	}
	for _, m := range a.Messages {
		before, ok := last.messages[m.Seq]
		if ok && (before.ID != m.ID || before.Text != m.Text || before.State == "complete" && m.State != "complete" ||
			before.version == a.Conversation.Version && before.State != m.State) {
			c.w.books.violation("3: %s: %s saw %+v, then %+v at version %d", conv, c.u.name, before, m, a.Conversation.Version)
		}
		last.messages[m.Seq] = sight{m, a.Conversation.Version}
	}
	last.version, last.etag = a.Conversation.Version, etag
	c.seen[conv] = last
}

func (c *client) get(conv string) {
	ctx, cancel := c.callCtx(c.random.IntN(20) == 0)
	defer cancel()
	var headers []string
	last, ok := c.seen[conv]
	if ok && c.random.IntN(2) == 0 {
		headers = []string{"If-None-Match", last.etag}
	}
	a := c.w.call(ctx, c.u, http.MethodGet, "/api/chat/conversations/"+conv+"?limit=20", nil, headers...)
	switch {
	case a.status == 200:
		c.observe(conv, a)
	case a.Code == "not_found":
		c.w.books.violation("3: %s: %s cannot open it", conv, c.u.name)
	}
}

// pageThrough reads a conversation backwards, a page at a time, while others write; pages of a history that only grows have no gaps.
func (c *client) pageThrough(conv string) {
	before := int64(0)
	for range 5 {
		path := fmt.Sprintf("/api/chat/conversations/%s?limit=7", conv)
		if before > 0 {
			path += fmt.Sprintf("&before=%d", before)
		}
		a := c.w.call(context.Background(), c.u, http.MethodGet, path, nil)
		if a.status != 200 {
			return
		}
		c.observe(conv, a)
		if n := len(a.Messages); before > 0 && (n == 0 || a.Messages[n-1].Seq != before-1) {
			c.w.books.violation("2: %s: the page before %d ends elsewhere", conv, before)
		}
		if !a.HasMore || len(a.Messages) == 0 {
			return
		}
		before = a.Messages[0].Seq
	}
}

// list reads the user's list, and opens one of what it finds.
func (c *client) list() {
	cursor := ""
	for range 3 {
		body := map[string]any{"limit": 10}
		if cursor != "" {
			body["cursor"] = cursor
		}
		a := c.w.call(context.Background(), c.u, http.MethodPost, "/api/chat/list-conversations", body)
		if a.status != 200 || len(a.Conversations) == 0 {
			return
		}
		listed := a.Conversations[c.random.IntN(len(a.Conversations))]
		opened := c.w.call(context.Background(), c.u, http.MethodGet, "/api/chat/conversations/"+listed.ID, nil)
		switch {
		case opened.Code == "not_found":
			c.w.books.violation("3: %s: it is listed and cannot be opened", listed.ID)
		case opened.status == 200 && opened.Conversation.Version < listed.Version:
			c.w.books.violation("3: %s: it is listed at version %d and opens at %d", listed.ID, listed.Version, opened.Conversation.Version)
		case opened.status == 200:
			c.observe(listed.ID, opened)
		}
		if cursor = a.NextCursor; cursor == "" {
			return
		}
	}
}

// trespass tries another user's conversation, which must not exist.
func (c *client) trespass() {
	other := c.others[c.random.IntN(len(c.others))]
	other.mu.Lock()
	convs := append([]string(nil), other.convs...)
	other.mu.Unlock()
	if other == c.u || len(convs) == 0 {
		return
	}
	conv := convs[c.random.IntN(len(convs))]
	a := c.w.call(context.Background(), c.u, http.MethodGet, "/api/chat/conversations/"+url.PathEscape(conv), nil)
	if a.status == 200 {
		c.w.books.violation("4: %s opened %s of %s", c.u.name, conv, other.name)
	}
	a = c.w.call(context.Background(), c.u, http.MethodPost, "/api/chat/send", map[string]string{"conversationId": conv, "text": c.u.mark + "trespass"})
	if a.status == 200 {
		c.w.books.violation("4: %s sent to %s of %s", c.u.name, conv, other.name)
	}
}
