package chat

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sort"
	"sync"
	"time"

	"chatkeep/handler/panics"
)

// The pauses between two looks at the log of a conversation.
const (
	firstLook = 30 * time.Millisecond  // while a turn runs in another process and has just told something
	lastLook  = 500 * time.Millisecond // while it is silent
	idleLook  = 2 * time.Minute        // while none runs, and up to half as long again: a store tells when one begins, and seldom fails to
)

// watch is the reading of one log for all streams of a conversation in this process that do not read a turn of it. Whichever of them waits
// when a look is due looks for all of them.
type watch struct {
	service *Service
	readers int           // guarded by Service.mu
	begun   chan struct{} // holds a value when a turn may have begun
	stop    func()        // ends the store's watch

	mu      sync.Mutex
	at      EventID
	from    EventID       // events are all that follow it, up to at
	events  []StreamEvent // of the last two turns at most
	isLive  bool          // a turn ran, as of the last look
	pause   time.Duration // before the next look, while a turn runs
	due     time.Time     // when that is
	looking bool
	again   bool          // a turn may have begun since somebody began to look
	failing time.Time     // since when looks have failed; zero: the last did not
	err     error         // for which streams end
	more    chan struct{} // closed, and replaced, after each look
}

// join returns the watch of a stream's conversation, for the stream to leave.
func (s *Service) join(st *Stream) *watch {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.watches[st.key]
	if !ok {
		w = &watch{service: s, begun: make(chan struct{}, 1), at: st.at, from: st.at, more: make(chan struct{})}
		w.stop = s.store.Watch(st.key.owner, st.key.id, w.nudge)
		s.watches[st.key] = w
	}
	w.readers++
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isLive, w.pause, w.due = true, firstLook, time.Now() // what was true at the last look may not be now
	return w
}

func (s *Service) leave(key conversationKey, w *watch) {
	s.mu.Lock()
	w.readers--
	isLast := w.readers == 0
	if isLast {
		delete(s.watches, key)
	}
	s.mu.Unlock()
	if isLast {
		w.stop()
	}
}

// nudge has somebody look.
func (w *watch) nudge() {
	select {
	case w.begun <- struct{}{}:
	default:
	}
}

// read returns the events that follow what a stream has read. It waits for them until ctx ends, and returns none when a turn of this process
// may have them.
func (w *watch) read(ctx context.Context, st *Stream) ([]StreamEvent, error) {
	for isFirst := true; ; isFirst = false {
		events, isBehind, more, due, err := w.state(st)
		switch {
		case err != nil || len(events) > 0:
			return events, err
		case isBehind:
			log, err := st.look(ctx, &st.at)
			if err != nil {
				return nil, err
			}
			return log.events()
		case !isFirst && st.service.runningTurn(st.key) != nil:
			return nil, nil
		}
		timer := time.NewTimer(time.Until(due))
		select {
		case <-more:
		case <-w.begun:
			w.look(ctx, st, true)
		case <-timer.C:
			w.look(ctx, st, false)
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-w.service.streamsEnd:
			err = io.EOF
		}
		timer.Stop()
		if err != nil {
			return nil, err
		}
	}
}

// state returns what is there for a stream, whether the watch has forgotten some of it, and otherwise what to wait for.
func (w *watch) state(st *Stream) (events []StreamEvent, isBehind bool, more <-chan struct{}, due time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return nil, false, nil, due, w.err
	case st.at.Compare(w.from) < 0:
		return nil, true, nil, due, nil
	case st.at.Compare(w.at) > 0: // it has read a turn of this process
		w.at, w.from, w.events = st.at, st.at, nil
	}
	i := sort.Search(len(w.events), func(i int) bool { return w.events[i].ID.Compare(st.at) > 0 })
	events = w.events[i:]
	due = w.due
	if w.looking {
		due = time.Now().Add(idleLook)
	}
	return events, false, w.more, due, nil
}

// look looks at the log, unless somebody does, or has since the look was due. It is not cancelled when ctx ends, for others wait for it.
func (w *watch) look(ctx context.Context, st *Stream, hasBegun bool) {
	w.mu.Lock()
	if w.looking || !hasBegun && time.Now().Before(w.due) {
		w.again = w.again || hasBegun
		w.mu.Unlock()
		return
	}
	w.looking = true
	after := w.at
	w.mu.Unlock()
	var log Log
	err := panics.Recover(ctx, w.service.log, func() (err error) {
		log, err = st.look(context.WithoutCancel(ctx), &after)
		return err
	})

	w.mu.Lock()
	defer w.mu.Unlock()
	again := w.again
	w.looking, w.again = false, false
	defer func() { close(w.more); w.more = make(chan struct{}) }()
	now := time.Now()
	if errors.Is(err, ErrUnavailable) {
		if w.failing.IsZero() {
			w.failing = now
		}
		w.pause = min(w.pause*3/2, lastLook)
		w.due = now.Add(w.pause)
		if now.Sub(w.failing) >= w.service.settings.TurnLease {
			w.err = err
		}
		return
	}
	w.failing = time.Time{}
	if err != nil {
		w.err = err
		return
	}
	if w.at != after { // a stream went ahead meanwhile
		w.due = now
		return
	}
	events, err := log.events()
	if err != nil {
		w.err = err
		return
	}
	w.keep(events)
	w.isLive = log.IsLive
	switch {
	case len(events) > 0:
		w.pause = firstLook
	default:
		w.pause = min(w.pause*3/2, lastLook)
	}
	w.due = now.Add(w.pause)
	switch {
	case log.MoreEntries || log.MoreMessages || again:
		w.due = now
	case !w.isLive:
		w.due = now.Add(idleLook + rand.N(idleLook/2))
	}
}

// keep adds events, and forgets those of all turns but the last two. The caller holds w.mu.
func (w *watch) keep(events []StreamEvent) {
	if w.events = append(w.events, events...); len(w.events) == 0 {
		return
	}
	w.at = w.events[len(w.events)-1].ID
	last := w.at.Seq
	i := sort.Search(len(w.events), func(i int) bool { return w.events[i].ID.Seq >= last })
	if i == 0 {
		return
	}
	before := w.events[i-1].ID.Seq
	if i = sort.Search(i, func(i int) bool { return w.events[i].ID.Seq >= before }); i > 0 {
		w.from = w.events[i-1].ID
		w.events = append([]StreamEvent(nil), w.events[i:]...)
	}
}
