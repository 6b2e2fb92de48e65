package torture

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatkeep/handler/auth/authtest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

var (
	duration = flag.Duration("torture.for", 60*time.Second, "how long TestTorture breaks things")
	seed     = flag.Uint64("torture.seed", 0, "the seed of a run to repeat; 0 takes a new one")
)

// TestTorture runs clients against two handlers while everything around them breaks, and checks every promise:
//
//  1. every acknowledged message is there exactly once, with its text; no message appears that nobody sent
//  2. seq is contiguous, replies follow their question, nothing stays pending
//  3. reads never go backwards for one client; every listed conversation opens; the list is in order when all is quiet
//  4. nobody sees a byte of another user's text
//  5. counts, ETags and indexes agree with the history; every key has an expiry
//  7. whoever reads a stream, however often it is cut, has each event once, in order; deltas joined are the text that is stored; what is kept of
//     an answer that was cancelled is the beginning of what the agent says; nobody's stream has another user's text
//  6. only documented errors occur, in time; no request ends a process; after the last fault everything works within recovery
func TestTorture(t *testing.T) {
	run := *seed
	if run == 0 {
		run = rand.Uint64()
	}
	w := newWorld(t, plain(t), run)
	w.torture(*duration, faults)
	w.report()
}

// clients live at once.
const clients = 40

// torture has clients live for a time while the faults happen, then heals everything and checks the books. It stops at the
// first violation.
func (w *world) torture(duration time.Duration, faults []fault) {
	w.t.Logf("seed %d", w.seed)
	users := make([]*user, 8)
	for i := range users {
		name := fmt.Sprintf("user%d", i)
		users[i] = &user{name: name, token: w.issuer.Token(authtest.LocalTenant, name, nil), mark: fmt.Sprintf("mark-%d-", i)}
	}
	var calm atomic.Bool
	ctx, stop := context.WithCancel(w.t.Context())
	defer stop()
	var all sync.WaitGroup
	for i := range clients {
		c := &client{
			w: w, u: users[i%len(users)], others: users, random: rand.New(rand.NewPCG(w.seed, uint64(i+1))), calm: &calm,
			seen: make(map[string]seen),
		}
		all.Go(func() { c.live(ctx) })
	}
	downtime := w.watch(ctx, &all)

	began, told := time.Now(), time.Now()
	counts := make(map[string]int)
	down := make(map[string]time.Duration)
	for time.Since(began) < duration && !w.books.broken() {
		w.checkAllExits()
		if len(faults) == 0 {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		f := faults[w.random.IntN(len(faults))]
		before := downtime.Load()
		f.do(w)
		w.pause(100*time.Millisecond, 1500*time.Millisecond)
		counts[f.name]++
		down[f.name] += time.Duration(downtime.Load() - before)
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			w.t.Logf("%v of %v, %d faults", time.Since(began).Round(time.Second), duration, len(counts))
		}
	}
	calm.Store(true)
	if !w.books.broken() {
		w.mustRecover(users[0])
	}
	stop()
	all.Wait()
	for _, u := range users {
		if !w.books.broken() {
			w.check(u)
		}
	}
	if !w.books.broken() {
		w.checkKeys()
	}
	w.checkAllExits()

	var table strings.Builder
	for _, f := range faults {
		if n := counts[f.name]; n > 0 {
			_, _ = fmt.Fprintf(&table, "  %-20s %5d times, unavailable for %v each\n", f.name, n, (down[f.name] / time.Duration(n)).Round(time.Millisecond))
		}
	}
	w.t.Logf("%v, seed %d\n%s%s", duration, w.seed, w.books.summary(), table.String())
}

// watch asks a handler's health again and again, and counts the nanoseconds in which it was not healthy.
func (w *world) watch(ctx context.Context, all *sync.WaitGroup) *atomic.Int64 {
	var down atomic.Int64
	nobody := &user{}
	all.Go(func() {
		for ctx.Err() == nil {
			asked := time.Now()
			limited, cancel := context.WithTimeout(ctx, 2*time.Second)
			a := w.call(limited, nobody, http.MethodGet, "/health", nil)
			cancel()
			time.Sleep(20 * time.Millisecond)
			if a.status != http.StatusOK {
				down.Add(int64(time.Since(asked)))
			}
		}
	})
	return &down
}

// mustRecover waits until everything works, which must be soon after the last fault.
func (w *world) mustRecover(u *user) {
	healed := time.Now()
	for working := 0; working < 8; { // in a row: both handlers must
		if time.Since(healed) > recovery+2*time.Second { // the two are the machine's
			w.books.violation("6: not everything works %v after the last fault", time.Since(healed))
			return
		}
		working++
		ctx, cancel := context.WithTimeout(w.t.Context(), recovery)
		started := w.call(ctx, u, http.MethodPost, "/api/chat/start", map[string]string{"title": u.mark + "recovery"})
		if started.status != http.StatusCreated {
			cancel()
			working = 0
			continue
		}
		w.books.mu.Lock()
		w.books.starts[started.ConversationID] = &begun{user: u, id: started.ConversationID}
		w.books.sends["recovered "+started.ConversationID] = &sent{user: u, conv: started.ConversationID, text: "recovered"}
		w.books.mu.Unlock()
		sent := w.call(ctx, u, http.MethodPost, "/api/chat/send", map[string]string{"conversationId": started.ConversationID, "text": "recovered"})
		got := w.call(ctx, u, http.MethodGet, "/api/chat/conversations/"+started.ConversationID, nil)
		listed := w.call(ctx, u, http.MethodPost, "/api/chat/list-conversations", map[string]int{"limit": 5})
		cancel()
		if sent.status != http.StatusOK || got.status != http.StatusOK || listed.status != http.StatusOK {
			working = 0
		}
	}
}

// check compares all that a user has with the books, when all is quiet.
func (w *world) check(u *user) {
	time.Sleep(turnLease / 8) // the last leases end while the users before are checked
	var listed []conversation
	cursor := ""
	for {
		body := map[string]any{"limit": 7}
		if cursor != "" {
			body["cursor"] = cursor
		}
		a := w.call(w.t.Context(), u, http.MethodPost, "/api/chat/list-conversations", body)
		if a.status != 200 {
			w.books.violation("6: the list is answered by %d when all is quiet", a.status)
			return
		}
		listed = append(listed, a.Conversations...)
		if len(listed) > 1_000 {
			w.books.violation("3: the list of %s has no end", u.name)
			return
		}
		if cursor = a.NextCursor; cursor == "" {
			break
		}
	}
	for i := 1; i < len(listed); i++ {
		if listed[i-1].UpdatedAt < listed[i].UpdatedAt {
			w.books.violation("3: %s stands before %s, and was updated earlier", listed[i-1].ID, listed[i].ID)
		}
	}
	byID := make(map[string]bool)
	titles := make(map[string]int)
	for _, c := range listed {
		if byID[c.ID] {
			w.books.violation("3: %s is listed twice", c.ID)
		}
		byID[c.ID] = true
		titles[c.Title]++
		w.checkConversation(u, c)
	}
	w.books.mu.Lock()
	starts := w.books.starts
	w.books.mu.Unlock()
	for title, b := range starts {
		switch {
		case b.user != u:
		case b.id != "" && !byID[b.id]:
			w.books.violation("1: the conversation %s was acknowledged, and is lost", b.id)
		case titles[title] > 1:
			w.books.violation("1: the start %s made %d conversations", title, titles[title])
		}
	}
	for title := range titles {
		if starts[title] == nil && title != u.mark+"recovery" {
			w.books.violation("1: nobody started %q", title)
		}
	}
}

func (w *world) checkConversation(u *user, listed conversation) {
	deadline := time.Now().Add(2 * turnLease)
	for {
		var messages []message
		var c conversation
		before := int64(0)
		for {
			path := fmt.Sprintf("/api/chat/conversations/%s?limit=100", listed.ID)
			if before > 0 {
				path += fmt.Sprintf("&before=%d", before)
			}
			a := w.call(w.t.Context(), u, http.MethodGet, path, nil)
			if a.status != 200 {
				w.books.violation("3: %s is listed and is answered by %d %s", listed.ID, a.status, a.Code)
				return
			}
			messages = append(slices.Clone(a.Messages), messages...)
			c = a.Conversation
			if !a.HasMore {
				break
			}
			before = a.Messages[0].Seq
		}
		pending := slices.ContainsFunc(messages, func(m message) bool { return m.State == "pending" })
		if pending && time.Now().Before(deadline) {
			time.Sleep(turnLease / 10)
			continue
		}
		if c.MessageCount < listed.MessageCount || c.Version < listed.Version {
			w.books.violation("5: %s is listed with %d messages and has %d", c.ID, listed.MessageCount, c.MessageCount)
		}
		w.books.checkHistory(c, messages)
		return
	}
}

// checkKeys looks at what Redis holds, behind the handlers' backs.
func (w *world) checkKeys() {
	client := redis.NewClient(&redis.Options{Addr: w.master.Addr})
	defer func() { _ = client.Close() }()
	ctx := w.t.Context()
	members := make(map[string]int64) // conversations by owner
	keys, err := client.Keys(ctx, "*").Result()
	require.NoError(w.t, err)
	for _, key := range keys {
		if ttl := client.PTTL(ctx, key).Val(); ttl == -1 {
			w.books.violation("5: %s has no expiry", key)
		}
		owner, rest, _ := strings.Cut(key, "}:")
		if id, isConversation := strings.CutPrefix(rest, "c:"); isConversation {
			members[owner]++
			if count, length := client.HGet(ctx, key, "messageCount").Val(), client.LLen(ctx, owner+"}:m:"+id).Val(); count != fmt.Sprint(length) {
				w.books.violation("5: %s counts %s messages and has %d", id, count, length)
			}
			if at, updated := client.ZScore(ctx, owner+"}:idx:active", id).Val(), client.HGet(ctx, key, "updatedAt").Val(); fmt.Sprintf("%.0f", at) != updated {
				w.books.violation("5: %s was updated at %s and is indexed at %.0f", id, updated, at)
			}
		}
	}
	for owner, n := range members {
		for _, index := range []string{"exp", "idx:active"} {
			if has := client.ZCard(ctx, owner+"}:"+index).Val(); has != n {
				w.books.violation("5: %s has %d entries for %d conversations", index, has, n)
			}
		}
	}
}

// report fails the test with what is wrong, and the history of the conversations that it is about.
func (w *world) report() {
	w.books.mu.Lock()
	defer w.books.mu.Unlock()
	if len(w.books.violations) == 0 {
		return
	}
	for _, h := range w.hosts { // what the handlers say of bugs
		for _, line := range h.Stdout() {
			if strings.Contains(line, `"code":"internal"`) {
				w.t.Logf("%.600s", line)
			}
		}
	}
	for i, v := range w.books.violations[:min(5, len(w.books.violations))] {
		w.t.Errorf("violation %d of %d: %s", i+1, len(w.books.violations), v)
		var about []string
		for conv := range w.books.history {
			if strings.Contains(v, conv) {
				about = append(about, conv)
			}
		}
		sort.Strings(about)
		for _, conv := range about {
			w.t.Logf("%s:\n  %s", conv, strings.Join(w.books.history[conv], "\n  "))
		}
	}
	require.Fail(w.t, "promises were broken", "go test ./handler/torture -run TestTorture -torture.seed=%d", w.seed)
}
