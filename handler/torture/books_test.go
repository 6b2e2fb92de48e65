package torture

import (
	"fmt"
	"io"
	"log"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

var quiet = log.New(io.Discard, "", 0)

// user is one of the callers, with a mark in every text of theirs.
type user struct {
	name, token, mark string

	mu    sync.Mutex
	convs []string // of which the user knows
}

// books are what the clients know: what was sent, what was answered, what went wrong. Safe for concurrent use.
type books struct {
	mu         sync.Mutex
	starts     map[string]*begun // by title
	sends      map[string]*sent  // by text
	counts     map[string]int    // operations by kind and outcome
	violations []string
	history    map[string][]string // by conversation: what happened, for the reader of a violation
	slowest    time.Duration
	began      time.Time
}

// begun is a start that was asked for.
type begun struct {
	user  *user
	id    string // once it is acknowledged
	keyed bool
}

// sent is a message that a client has sent.
type sent struct {
	user    *user
	conv    string
	text    string
	id      string // chosen by the client, or as acknowledged
	keyed   bool
	answer  *answer // acknowledged: 200
	failed  bool    // acknowledged as failed
	cancels bool    // the client wants it no more
	absent  bool    // refused: it must not be there
}

func newBooks() *books {
	return &books{
		starts: make(map[string]*begun), sends: make(map[string]*sent), counts: make(map[string]int),
		history: make(map[string][]string), began: time.Now(),
	}
}

func (b *books) violation(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.violations = append(b.violations, fmt.Sprintf("%7.3fs ", time.Since(b.began).Seconds())+fmt.Sprintf(format, args...))
}

func (b *books) broken() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.violations) > 0
}

var marks = regexp.MustCompile(`mark-\d+-`)

// documented are the problems that a client may meet with, when everything around the handlers breaks.
var documented = map[string]int{
	"turn_in_progress": 409, "agent_failed": 502, "store_unavailable": 503, "agent_timeout": 504, "not_found": 404,
}

// look examines every answer: nobody else's mark, only documented errors, in time.
func (b *books) look(u *user, what string, a answer) {
	outcome := fmt.Sprint(a.status)
	switch {
	case a.Code != "":
		outcome += " " + a.Code
	case a.status == 0 || a.status >= 500:
		outcome = "no answer"
	}
	kind := strings.TrimPrefix(what, "POST /api/chat/")
	switch {
	case what == "GET /health":
		kind = "health"
	case strings.HasPrefix(what, "GET"):
		kind = "get"
	}
	b.mu.Lock()
	b.counts[kind+": "+outcome]++
	b.slowest = max(b.slowest, a.took)
	b.mu.Unlock()
	for _, mark := range marks.FindAllString(a.text, -1) {
		if mark != u.mark {
			b.violation("4: %s saw %s in an answer to %s", u.name, mark, what)
		}
	}
	switch {
	case a.status == 0 || a.status < 300 || a.status == 304 || a.status >= 500 && a.Code == "":
	case documented[a.Code] != a.status:
		b.violation("6: %s: undocumented answer %d %s: %.300s", what, a.status, a.Code, a.text)
	}
	if a.took > longestAnswer {
		b.violation("6: %s took %v", what, a.took)
	}
}

func (b *books) note(conv, format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.history[conv] = append(b.history[conv], fmt.Sprintf("%7.3fs ", time.Since(b.began).Seconds())+fmt.Sprintf(format, args...))
}

// checkHistory compares a conversation, as it is when all is quiet, with the books. The messages are all there are.
func (b *books) checkHistory(c conversation, messages []message) {
	bad := func(format string, args ...any) {
		b.violation("%s: %s", c.ID, fmt.Sprintf(format, args...))
	}
	if c.MessageCount != int64(len(messages)) {
		bad("5: the count is %d, the history has %d", c.MessageCount, len(messages))
	}
	found := make(map[string][]int)
	var question *message
	for i, m := range messages {
		if m.Seq != int64(i+1) {
			bad("2: seq %d stands at position %d", m.Seq, i+1)
		}
		if m.State == "pending" {
			bad("2: %s is pending, longer than a lease", m.Text)
		}
		if m.Role == "user" {
			question = &messages[i]
			found[m.Text] = append(found[m.Text], i)
			continue
		}
		whole := question != nil && m.Text == "re "+question.Text && question.State == "complete" && m.State == "complete"
		partial := question != nil && strings.HasPrefix("re "+question.Text, m.Text) && m.State == "partial" &&
			(question.State == "failed" || question.State == "cancelled")
		if question == nil || m.InReplyTo != question.ID || !whole && !partial {
			bad("2: the reply %q (%s) does not follow its question", m.Text, m.State)
		}
	}
	b.mu.Lock()
	var mine []*sent
	for _, s := range b.sends {
		if s.conv == c.ID {
			mine = append(mine, s)
		}
	}
	b.mu.Unlock()
	known := make(map[string]bool)
	for _, s := range mine {
		known[s.text] = true
		places := found[s.text]
		switch {
		case len(places) > 1:
			bad("1: %q is there %d times", s.text, len(places))
		case s.absent && len(places) > 0:
			bad("1: %q was refused, and is there", s.text)
		case s.answer != nil && len(places) == 0:
			bad("1: %q was acknowledged, and is lost", s.text)
		case s.answer != nil:
			b.checkTurn(bad, s, messages[places[0]:])
		case s.failed && (len(places) == 0 || messages[places[0]].State != "failed"):
			bad("1: %q was answered as failed, and is not stored so", s.text)
		}
	}
	for text := range found {
		if !known[text] {
			bad("1: nobody sent %q", text)
		}
	}
}

// checkTurn compares a turn with what was acknowledged.
func (b *books) checkTurn(bad func(string, ...any), s *sent, messages []message) {
	m := messages[0]
	if m.State != s.answer.Message.State || m.ID != s.answer.Message.ID || m.Seq != s.answer.Message.Seq {
		bad("1: %q was acknowledged as %+v, and is %+v", s.text, s.answer.Message, m)
	}
	replies := 1
	if m.State == "cancelled" {
		replies = len(s.answer.Messages)
	}
	if strings.HasSuffix(s.text, " two") {
		replies = 2
	}
	if len(s.answer.Messages) != replies || len(messages) < 1+replies || !slices.Equal(s.answer.Messages, messages[1:1+replies]) {
		bad("1: %q was acknowledged with %d replies, which are not those of the history", s.text, len(s.answer.Messages))
	}
}

// summary is a table of what happened.
func (b *books) summary() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var text strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(b.counts)) {
		_, _ = fmt.Fprintf(&text, "  %-36s %8d\n", kind, b.counts[kind])
	}
	_, _ = fmt.Fprintf(&text, "  %-36s %8v\n", "slowest answer", b.slowest.Round(time.Millisecond))
	return text.String()
}
