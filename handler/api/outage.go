package api

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	outageLogEvery = time.Minute
	outageQuiet    = 10 * time.Second
)

// outage counts the requests that fail alike, in place of a log line each: it logs when the first fails, once in outageLogEvery while
// more do, and when one succeeds again. Where some fail and some succeed, the second outage in outageLogEvery ends only with a success
// that comes outageQuiet after the last failure. It is safe for concurrent use.
type outage struct {
	code string // of the problem
	log  *slog.Logger

	open atomic.Bool // written under mu; read without it, for those who succeed are many

	mu       sync.Mutex
	began    time.Time
	last     time.Time // failure
	logged   time.Time
	ended    time.Time // the one before
	requests int       // failed
}

// failed counts a request that failed.
func (o *outage) failed(ctx context.Context, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if !o.open.Load() {
		o.open.Store(true)
		o.began, o.logged, o.requests = now, time.Time{}, 0
	}
	o.last = now
	o.requests++
	switch {
	case o.requests == 1:
		o.logged = now
		o.log.ErrorContext(ctx, "requests fail", "code", o.code, "requests", o.requests, "err", err)
	case now.Sub(o.logged) >= outageLogEvery:
		o.logged = now
		o.log.ErrorContext(ctx, "requests still fail", "code", o.code, "requests", o.requests, "err", err)
	}
}

// succeeded says that a request of the kind that failed does not fail any more.
func (o *outage) succeeded() {
	if !o.open.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	isRepeated := !o.ended.IsZero() && o.began.Sub(o.ended) < outageLogEvery
	if o.open.Load() && (!isRepeated || time.Since(o.last) >= outageQuiet) {
		o.open.Store(false)
		o.ended = time.Now()
		o.log.Info("requests succeed again", "code", o.code, "requests", o.requests, "afterMs", o.last.Sub(o.began).Milliseconds())
	}
}

// outages are one for each thing that requests of many callers fail for at once.
type outages struct{ store, identity, health outage }

func newOutages(log *slog.Logger) *outages {
	return &outages{
		store:    outage{code: "store_unavailable", log: log},
		identity: outage{code: "identity_unavailable", log: log},
		health:   outage{code: "unhealthy", log: log},
	}
}

// of returns the outage that requests with the code are part of, or nil.
func (o *outages) of(code string) *outage {
	switch code {
	case o.store.code:
		return &o.store
	case o.identity.code:
		return &o.identity
	default:
		return nil
	}
}
