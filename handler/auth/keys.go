package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chatkeep/handler/logs"
	"chatkeep/handler/panics"
)

const (
	refreshEvery  = time.Hour // in the background
	maxSearches   = 3         // fetches for unknown kids in a searchWindow
	searchWindow  = 5 * time.Minute
	maxUnknown    = 1000             // unknown kids of which the first sight is kept
	keyLife       = 24 * time.Hour   // after the last set that had the key: so long the issuer may be down, or a withdrawn key be accepted
	fetchTimeout  = 10 * time.Second // of a fetch, up to the last byte
	longestWait   = 3 * time.Second  // of a caller for fetches
	shortestPause = time.Second      // after a failed fetch; doubled by each further failure
	longestPause  = 30 * time.Second
	logEvery      = time.Minute // at most, while the source is down
	largestSet    = 1 << 20     // bytes
)

// keyStore holds an issuer's keys. Only a caller whose key is not held waits for a fetch.
//
// The keys are not shared between processes: whoever can write to a shared place could make users.
type keyStore struct {
	source     string // a URL, or a path
	needIssuer bool
	client     *http.Client
	log        *slog.Logger

	set atomic.Int64 // the number of the last fetch that succeeded; it changes with the keys, under mu

	mu       sync.Mutex
	keys     map[string]heldKey
	running  chan struct{} // closed when the current fetch ends; nil if there is none
	begun    int64         // number of fetches so far; the n-th has number n
	failures int           // failed fetches since the last success
	failure  error         // of the last fetch
	pause    time.Time     // after a failure: no fetch before this time
	refused  int           // requests for a key since the last success
	logged   time.Time     // when the failure was last logged, at level
	level    slog.Level
	searched [maxSearches]time.Time // when the last searches began, oldest first
	unknown  map[string]sight
}

type heldKey struct {
	key
	until time.Time
}

// sight is the first request for a kid that is not held.
type sight struct {
	at    time.Time
	begun int64 // keyStore.begun at that time
}

func newKeyStore(source string, needIssuer bool, log *slog.Logger) *keyStore {
	return &keyStore{
		source: source, needIssuer: needIssuer, log: log,
		keys: make(map[string]heldKey), unknown: make(map[string]sight),
		client: &http.Client{
			// One request an hour does not need an idle connection.
			Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
			// A redirect could lead to somebody else's keys.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// get returns the key named kid. The error is ErrInvalidToken if a fetch that began after the first request for kid did not find it,
// and ErrKeysUnavailable or ErrUnsearched if there was no such fetch.
func (s *keyStore) get(ctx context.Context, kid string) (heldKey, error) {
	k, running, err := s.find(kid)
	if running == nil {
		return k, err
	}
	limit := time.NewTimer(longestWait)
	defer limit.Stop()
	for running != nil {
		select {
		case <-running:
		case <-limit.C:
			return heldKey{}, logs.Because(logs.Timeout, fmt.Errorf("%w: the issuer is slow", ErrKeysUnavailable))
		case <-ctx.Done():
			return heldKey{}, fmt.Errorf("%w: %w", ErrKeysUnavailable, ctx.Err())
		}
		k, running, err = s.find(kid)
	}
	return k, err
}

// find returns the key named kid, a fetch to wait for, or an error of get. It begins a fetch if one is due.
func (s *keyStore) find(kid string) (k heldKey, running <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if k, ok := s.keys[kid]; ok && now.Before(k.until) {
		return k, nil, nil
	}
	first := s.firstSight(kid, now)
	if s.running == nil && s.set.Load() <= first && s.due(now) {
		s.fetch(s.anyAlive(now)) // the first load does not use up a search
	}
	switch {
	case s.set.Load() > first:
		return heldKey{}, nil, refuse(ErrInvalidToken, "kid is unknown to the issuer")
	case s.running != nil:
		return heldKey{}, s.running, nil
	case s.failure != nil:
		s.refused++
		return heldKey{}, nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, s.failure)
	default:
		return heldKey{}, nil, ErrUnsearched
	}
}

// firstSight returns how many fetches had begun at the first request for kid. It forgets a kid after a searchWindow, so that a key that
// is published late is found. s.mu is held.
func (s *keyStore) firstSight(kid string, now time.Time) int64 {
	if seen, ok := s.unknown[kid]; ok && now.Sub(seen.at) < searchWindow {
		return seen.begun
	}
	if len(s.unknown) >= maxUnknown {
		clear(s.unknown) // some 401 become 503
	}
	s.unknown[kid] = sight{at: now, begun: s.begun}
	return s.begun
}

// due reports whether an unknown kid may cause a fetch now. s.mu is held.
func (s *keyStore) due(now time.Time) bool {
	if s.failure != nil {
		return !now.Before(s.pause)
	}
	return !s.anyAlive(now) || now.Sub(s.searched[0]) >= searchWindow
}

func (s *keyStore) anyAlive(now time.Time) bool {
	for _, k := range s.keys {
		if now.Before(k.until) {
			return true
		}
	}
	return false
}

// fetch begins to read the keys. A search, for an unknown kid, is counted if it succeeds. The fetch does not end with the caller that
// began it, because others wait too; it ends within fetchTimeout. s.mu is held, and no fetch is running.
func (s *keyStore) fetch(search bool) {
	s.begun++
	number, begun := s.begun, time.Now()
	done := make(chan struct{})
	s.running = done
	var fetching sync.WaitGroup // nobody waits for it, but on done
	panics.Go(&fetching, s.log, func() {
		defer close(done)
		var keys map[string]key
		err := panics.Recover(context.Background(), s.log, func() (err error) {
			keys, err = s.read()
			return err
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running = nil
		if s.failure = err; err != nil {
			s.fail(time.Now())
			return
		}
		s.take(keys, number)
		if search {
			copy(s.searched[:], s.searched[1:])
			s.searched[maxSearches-1] = begun
		}
	})
}

// fail postpones the next fetch, and logs the first failure, a worse one, and one a minute. s.mu is held.
func (s *keyStore) fail(now time.Time) {
	s.failures++
	pause := min(shortestPause<<min(s.failures-1, 10), longestPause)
	pause = pause/2 + rand.N(pause/2) // so that instances do not retry together
	s.pause = now.Add(pause)
	level := slog.LevelError
	if s.anyAlive(now) {
		level = slog.LevelWarn
	}
	if s.failures == 1 || level > s.level || now.Sub(s.logged) >= logEvery {
		s.logged, s.level = now, level
		s.log.Log(context.Background(), level, "signing keys could not be read", "failures", s.failures, "requests", s.refused, "err", s.failure)
	}
}

// take stores the keys of a fetch. s.mu is held.
func (s *keyStore) take(keys map[string]key, number int64) {
	if s.failures > 0 {
		s.log.Info("signing keys are read again", "failures", s.failures, "requests", s.refused)
	}
	s.failures, s.refused = 0, 0
	now := time.Now()
	maps.DeleteFunc(s.keys, func(_ string, k heldKey) bool { return !now.Before(k.until) })
	for kid, k := range keys {
		s.keys[kid] = heldKey{key: k, until: now.Add(keyLife)}
		delete(s.unknown, kid)
	}
	s.set.Store(number)
}

// run reads the keys every hour until ctx ends, once a token has caused the first fetch.
func (s *keyStore) run(ctx context.Context) {
	hourly := time.NewTicker(refreshEvery)
	defer hourly.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hourly.C:
		}
		s.mu.Lock()
		if s.begun > 0 && s.running == nil {
			s.fetch(false)
		}
		s.mu.Unlock()
	}
}

// read reads the keys from the source.
func (s *keyStore) read() (map[string]key, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	body, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	document, err := io.ReadAll(io.LimitReader(body, largestSet+1))
	if err != nil {
		return nil, err
	}
	if len(document) > largestSet {
		return nil, errors.New("the key set is larger than 1 MiB")
	}
	return parseKeys(document, s.needIssuer)
}

func (s *keyStore) open(ctx context.Context) (io.ReadCloser, error) {
	if !strings.Contains(s.source, "://") {
		return os.Open(s.source)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.source, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return nil, failed.Err // without the URL, which does not belong in a log
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, logs.Because(logs.Status, fmt.Errorf("the issuer answered %d", resp.StatusCode))
	}
	return resp.Body, nil
}
