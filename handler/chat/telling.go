package chat

import (
	"context"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"chatkeep/handler/panics"
)

// Bounds of what a turn tells while it runs. Past them its deltas and status are dropped, for everybody alike; its replies and its end never.
const (
	maxTold        = 8192    // entries of a turn
	maxToldBytes   = 1 << 20 // of them
	maxStatusBytes = 1024    // of a status; the rest is cut
	maxToldReplies = 1000    // replies of which deltas are told

	flushPause = 30 * time.Millisecond  // between two writes to the log: what is said meanwhile is joined
	retryPause = 100 * time.Millisecond // after one that failed
	maxSilence = time.Second            // after which the log is asked whether the turn is cancelled
)

// telling is what a turn tells while it runs: what the agent emits waits, is written to the log in batches, and only then told to
// readers, so that nobody ever gets what the log does not have. It is safe for concurrent use.
type telling struct {
	wake chan struct{} // holds a value when something waits

	mu        sync.Mutex
	index     int       // of the reply that was last said something of
	rest      string    // the beginning of a character of it
	said      [][]byte  // the deltas of each reply, joined
	saidBytes int       // of all
	waiting   []waiting // said, but not yet in a batch
	batch     []Entry   // under way to the log; never changed, for it may be there already
	entries   int64     // of the turn, so far
	bytes     int       // of them
	isFull    bool      // nothing more is told
	next      int64     // N of the next entry
	isWatched bool      // somebody reads here, and should not wait

	firstDelta time.Time // when it was said
	dropped    int       // events that were said and are not told

	events []StreamEvent // told
	more   chan struct{} // closed, and replaced, when there are more, or isOver
	isOver bool          // no more follow
}

// waiting is an entry that may still grow.
type waiting struct {
	kind      EventKind
	messageID string
	text      []byte
}

func newTelling() telling {
	return telling{wake: make(chan struct{}, 1), more: make(chan struct{})}
}

// emit takes what the agent says. It never blocks.
func (t *turn) emit(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case e.Kind == StatusEvent:
		t.say(StatusEvent, "", wellFormed(cutText(e.Text, maxStatusBytes)))
	case e.Kind == DeltaEvent && t.index <= e.Index && e.Index < maxReplies:
		if t.firstDelta.IsZero() {
			t.firstDelta = time.Now()
		}
		if e.Index > t.index {
			t.sayRest()
			t.index = e.Index
		}
		var text string
		text, t.rest = wholeCharacters(t.rest + e.Text)
		t.sayDelta(wellFormed(text))
	}
	t.nudge()
}

// nudge has the log written, and asked whether the turn is cancelled, soon.
func (t *turn) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// sayRest says what an agent began as a character and did not end. The caller holds t.mu.
func (t *turn) sayRest() {
	rest := t.rest
	t.rest = ""
	t.sayDelta(wellFormed(rest))
}

// sayDelta says text of the reply t.index. The caller holds t.mu.
func (t *turn) sayDelta(text string) {
	if text == "" {
		return
	}
	for len(t.said) <= t.index {
		t.said = append(t.said, nil)
	}
	if t.saidBytes+len(text) <= maxReplyBytes {
		t.said[t.index] = append(t.said[t.index], text...)
		t.saidBytes += len(text)
	} else {
		t.saidBytes = maxReplyBytes // a prefix of what was said, and not a sample
	}
	t.say(DeltaEvent, t.replyID(t.index), text)
}

// say has an entry wait, or makes the last one longer. The caller holds t.mu.
func (t *turn) say(kind EventKind, messageID, text string) {
	last := len(t.waiting) - 1
	isJoined := last >= 0 && kind == DeltaEvent && t.waiting[last].kind == kind && t.waiting[last].messageID == messageID
	if !isJoined {
		t.entries++
		t.bytes += EntryBytes
	}
	t.bytes += len(text)
	t.isFull = t.isFull || t.entries > maxTold || t.bytes > maxToldBytes
	switch {
	case t.isFull:
		t.dropped++
	case isJoined:
		t.waiting[last].text = append(t.waiting[last].text, text...)
	default:
		t.waiting = append(t.waiting, waiting{kind, messageID, []byte(text)})
	}
}

// replyID is the id of the turn's reply with the index: the same for its deltas and when it is stored.
func (t *turn) replyID(index int) string {
	return replyID(t.request.Token, t.begun.Message.Seq, index)
}

// seal makes a batch of what waits, unless there is one whose fate is not known. The caller holds t.mu.
func (t *turn) seal() []Entry {
	if len(t.batch) > 0 {
		return t.batch
	}
	for _, w := range t.waiting {
		t.batch = append(t.batch, Entry{
			ID: EventID{t.begun.Message.Seq, t.next}, Kind: w.kind, Text: string(w.text), MessageID: w.messageID,
		})
		t.next++
	}
	t.waiting = nil
	return t.batch
}

// sealAll makes a last batch of all that was said. Of a turn that has told nothing yet, to nobody who reads here, the log need not have what its
// replies repeat: then the batch is empty.
func (t *turn) sealAll() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sayRest()
	if !t.isWatched && len(t.batch) == 0 && len(t.events) <= 1 {
		t.waiting = nil
	}
	batch := t.seal()
	if len(t.waiting) > 0 {
		t.batch = nil
		batch = append(batch[:len(batch):len(batch)], t.seal()...)
		t.batch = batch
	}
	return batch
}

// tell tells readers of the batch, which is in the log, unless it was dropped there: then nothing is told any more until the replies.
func (t *turn) tell(dropped bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if dropped {
		t.dropped += len(t.batch) + len(t.waiting)
		t.isFull, t.waiting = true, nil
	} else {
		for _, e := range t.batch {
			t.events = append(t.events, e.event())
		}
	}
	t.batch = nil
	t.wakeReaders()
}

// over tells the last events.
func (t *turn) over(events []StreamEvent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isOver {
		return
	}
	t.events, t.isOver = append(t.events, events...), true
	t.wakeReaders()
}

// wakeReaders wakes all readers. The caller holds t.mu.
func (t *turn) wakeReaders() {
	close(t.more)
	t.more = make(chan struct{})
}

// read returns the events from the one with the index; when there are none yet, it waits for them, or for the end of ctx. It returns none
// when the turn is over.
func (t *turn) read(ctx context.Context, index int) ([]StreamEvent, error) {
	for {
		t.mu.Lock()
		events, more, isOver := t.events[min(index, len(t.events)):], t.more, t.isOver
		t.mu.Unlock()
		if len(events) > 0 || isOver {
			return events, nil
		}
		if err := await(ctx, more); err != nil {
			return nil, err
		}
	}
}

// watch says that somebody reads here, and returns the index of the first event behind an id.
func (t *turn) watch(after EventID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isWatched = true
	for i, e := range t.events {
		if e.ID.Compare(after) > 0 || e.ID == (EventID{}) {
			return i
		}
	}
	return len(t.events)
}

// partial are the JSON forms of as much of the answer as there is: of what the agent returned with its failure, or of what it said.
func (t *turn) partial(reply Reply, inReplyTo string) (replies [][]byte, preview string) {
	if 0 < len(reply.Messages) && len(reply.Messages) <= maxReplies {
		if replies, err := reply.encode(t.replyID, inReplyTo); err == nil {
			return replies, reply.preview()
		}
	}
	t.mu.Lock()
	t.sayRest()
	var said Reply
	for _, text := range t.said {
		if len(text) > 0 {
			said.Messages = append(said.Messages, Message{Kind: Text, Text: string(text)})
		}
	}
	t.mu.Unlock()
	replies, err := said.encode(t.replyID, inReplyTo)
	if err != nil {
		return nil, "" // of a character too many
	}
	return replies, said.preview()
}

// keepTelling writes what the agent says to the log until ctx ends, and keeps the turn's lease by it. It ends ctx when the lease is lost, or
// cannot be kept in time, and when the owner cancels the turn.
func (s *Service) keepTelling(ctx context.Context, stop context.CancelCauseFunc, t *turn) {
	silence := min(maxSilence, s.settings.TurnLease/3)
	held, written := time.Now(), time.Time{}
	for pause := silence; ; {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
			if sleep(ctx, t.flushIn(written)) != nil {
				return
			}
		case <-time.After(pause):
		}
		pause = silence
		asked := time.Now()
		written = asked
		var appended Appended
		err := panics.Recover(ctx, s.log, func() (err error) {
			appended, err = s.appendBatch(ctx, t)
			return err
		})
		switch {
		case err == nil && appended.Cancelled:
			stop(ErrCancelled)
			return
		case err == nil:
			held = asked
			continue
		}
		if why := s.leaseLost(err, held); why != nil {
			stop(why)
			return
		}
		pause = min(retryPause, silence)
	}
}

// appendBatch writes what waits to the log, and tells it. It is not cancelled when ctx ends, because its outcome would be unknown.
func (s *Service) appendBatch(ctx context.Context, t *turn) (Appended, error) {
	t.mu.Lock()
	batch := t.seal()
	t.mu.Unlock()
	appended, err := s.store.Append(context.WithoutCancel(ctx), t.caller.Owner, t.conversationID,
		Append{Token: t.request.Token, Lease: s.settings.TurnLease, Entries: batch})
	if err == nil && len(batch) > 0 {
		t.tell(appended.Dropped)
	}
	return appended, err
}

// flushIn is how long what waits may wait for more: not at all when somebody reads here and the last write was long ago.
func (t *turn) flushIn(written time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isWatched {
		return flushPause - time.Since(written)
	}
	return flushPause
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// wholeCharacters cuts off the beginning of a character at the end of text.
func wholeCharacters(text string) (whole, rest string) {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if tail := text[len(text)-n:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRuneInString(tail) {
				return text[:len(text)-n], tail
			}
			break
		}
	}
	return text, ""
}

// wellFormed is text as it can be stored.
func wellFormed(text string) string {
	if storable(text) {
		return text
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// cutText returns at most n bytes of a text, cut between characters.
func cutText(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
