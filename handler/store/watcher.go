package store

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/panics"

	"github.com/redis/go-redis/v9"
)

const (
	watchBudget = time.Second      // for a change of what is subscribed to
	watchRetry  = 25 * time.Second // after which a subscription that is not confirmed is tried again, and what it is for looked at
	watchPing   = 30 * time.Second // after which a connection that is silent is tried
)

// watcher hears of turns that begin, over one connection, which it makes when somebody first watches. It is safe for concurrent use.
//
// Whenever a subscription is made, or made again after the connection was lost, something may have been missed: then it calls too.
type watcher struct {
	client redis.UniversalClient
	log    *slog.Logger
	wake   chan struct{} // holds a value when wishes has some
	stop   chan struct{} // closed by close
	all    sync.WaitGroup

	mu        sync.Mutex
	watches   map[string]map[*func()]bool // of each channel, what to call
	wishes    map[string]bool             // whether to subscribe to a channel, or no longer
	confirmed map[string]bool             // channels that Redis publishes to us
	isRunning bool
	isClosed  bool
}

func newWatcher(client redis.UniversalClient, log *slog.Logger) *watcher {
	return &watcher{
		client: client, log: log, wake: make(chan struct{}, 1), stop: make(chan struct{}),
		watches: make(map[string]map[*func()]bool), wishes: make(map[string]bool), confirmed: make(map[string]bool),
	}
}

// Watch implements chat.Store.
func (r *Redis) Watch(owner chat.Owner, id string, begun func()) (stop func()) {
	return r.watcher.watch(logKey(tagOf(owner), id), begun)
}

func (w *watcher) watch(channel string, begun func()) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isClosed {
		return func() {}
	}
	if w.watches[channel] == nil {
		w.watches[channel] = make(map[*func()]bool)
		w.wish(channel, true)
	}
	w.watches[channel][&begun] = true
	if !w.isRunning {
		w.isRunning = true
		panics.Go(&w.all, w.log, w.run)
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watches[channel], &begun)
		if len(w.watches[channel]) == 0 {
			delete(w.watches, channel)
			w.wish(channel, false)
		}
	}
}

// wish has a channel subscribed to, or no longer. The caller holds w.mu.
func (w *watcher) wish(channel string, subscribed bool) {
	w.wishes[channel] = subscribed
	delete(w.confirmed, channel)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run fulfils wishes and hears what is published until close is called.
func (w *watcher) run() {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.isRunning = false
	}()
	pubsub := w.client.Subscribe(context.Background())
	heard := pubsub.ChannelWithSubscriptions(redis.WithChannelHealthCheckInterval(watchPing))
	defer func() {
		_ = pubsub.Close()
		for range heard { // or who fills it would wait for room
		}
	}()
	retry := time.NewTicker(watchRetry)
	defer retry.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-w.wake:
			w.fulfil(pubsub)
		case <-retry.C:
			w.retry()
		case message, ok := <-heard:
			if !ok {
				return
			}
			switch message := message.(type) {
			case *redis.Message:
				w.call(message.Channel)
			case *redis.Subscription:
				if message.Kind == "subscribe" {
					w.confirm(message.Channel)
					w.call(message.Channel)
				}
			}
		}
	}
}

// fulfil changes what is subscribed to. What fails is tried again by go-redis when it connects anew, and by retry.
func (w *watcher) fulfil(pubsub *redis.PubSub) {
	var more, fewer []string
	w.mu.Lock()
	for channel, subscribed := range w.wishes {
		if subscribed {
			more = append(more, channel)
		} else {
			fewer = append(fewer, channel)
		}
	}
	clear(w.wishes)
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), watchBudget)
	defer cancel()
	if len(fewer) > 0 {
		_ = pubsub.Unsubscribe(ctx, fewer...)
	}
	if len(more) > 0 {
		_ = pubsub.Subscribe(ctx, more...)
	}
}

// retry wishes again for what is not confirmed, and has it looked at meanwhile.
func (w *watcher) retry() {
	w.mu.Lock()
	var missing []string
	for channel := range w.watches {
		if !w.confirmed[channel] {
			missing = append(missing, channel)
			w.wish(channel, true)
		}
	}
	w.mu.Unlock()
	for _, channel := range missing {
		w.call(channel)
	}
}

func (w *watcher) confirm(channel string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watches[channel] != nil {
		w.confirmed[channel] = true
	}
}

// call calls those who watch a channel.
func (w *watcher) call(channel string) {
	w.mu.Lock()
	var all []func()
	for begun := range w.watches[channel] {
		all = append(all, *begun)
	}
	w.mu.Unlock()
	for _, begun := range all {
		begun()
	}
}

// close ends the hearing, and waits for its end.
func (w *watcher) close() {
	w.mu.Lock()
	isFirst := !w.isClosed
	w.isClosed = true
	w.mu.Unlock()
	if isFirst {
		close(w.stop)
	}
	w.all.Wait()
}
