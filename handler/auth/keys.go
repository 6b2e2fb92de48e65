package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	refreshEvery  = time.Hour        // in the background
	unknownEvery  = 5 * time.Minute  // at most, for a kid that nobody knows
	keyLife       = 24 * time.Hour   // since a set last had the key; so long an issuer may be down, or a withdrawn key still be good
	fetchTimeout  = 10 * time.Second // for one fetch, to the last byte
	patience      = 3 * time.Second  // of a caller who waits for a fetch
	shortestPause = time.Second      // before a failed fetch is tried again; doubled with each failure
	longestPause  = 30 * time.Second
	largestSet    = 1 << 20
)

// keyStore holds an issuer's keys. Only a caller who needs a key that is not there ever waits.
//
// Keys live in this process alone. Whoever can write to where they are shared could make users.
type keyStore struct {
	source     string // a URL, or a path
	needIssuer bool
	client     *http.Client
	log        *slog.Logger

	mu       sync.Mutex
	keys     map[string]heldKey
	running  chan struct{} // closed at the end of the fetch under way; nil if there is none
	fetched  bool          // a first fetch was begun
	failures int           // fetches since the last good one
	failure  error         // of the last fetch
	pause    time.Time     // after a failure, no fetch before
	unknown  time.Time     // when an unknown kid last caused a fetch
}

type heldKey struct {
	key
	until time.Time
}

func newKeyStore(source string, needIssuer bool, log *slog.Logger) *keyStore {
	return &keyStore{
		source: source, needIssuer: needIssuer, log: log,
		keys: make(map[string]heldKey),
		client: &http.Client{
			// One request an hour needs no open connection.
			Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
			// Keys come from the configured place and from no other that it may name.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// get returns the key named kid: ErrInvalidToken if the issuer has no such key, ErrKeysUnavailable if that cannot be found out now.
func (s *keyStore) get(ctx context.Context, kid string) (key, error) {
	s.mu.Lock()
	if k, ok := s.held(kid); ok {
		s.mu.Unlock()
		return k, nil
	}
	if s.running == nil && s.due() {
		s.fetch(kid)
	}
	running := s.running
	s.mu.Unlock()

	if running != nil {
		tired := time.NewTimer(patience)
		defer tired.Stop()
		select {
		case <-running:
		case <-tired.C:
			return key{}, fmt.Errorf("%w: the issuer is slow", ErrKeysUnavailable)
		case <-ctx.Done():
			return key{}, fmt.Errorf("%w: %w", ErrKeysUnavailable, ctx.Err())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.held(kid)
	switch {
	case ok:
		return k, nil
	case s.failure != nil:
		return key{}, fmt.Errorf("%w: %w", ErrKeysUnavailable, s.failure)
	default:
		return key{}, refuse(ErrInvalidToken, "kid is unknown to the issuer")
	}
}

// held returns the key named kid if it is there and alive. s.mu is held.
func (s *keyStore) held(kid string) (key, bool) {
	k, ok := s.keys[kid]
	return k.key, ok && time.Now().Before(k.until)
}

// due reports whether a kid that is not held may cause a fetch now. s.mu is held.
func (s *keyStore) due() bool {
	now := time.Now()
	if s.failure != nil {
		return !now.Before(s.pause)
	}
	return !s.anyAlive(now) || now.Sub(s.unknown) >= unknownEvery
}

func (s *keyStore) anyAlive(now time.Time) bool {
	for _, k := range s.keys {
		if now.Before(k.until) {
			return true
		}
	}
	return false
}

// fetch begins to read the keys, for the sake of kid or, if that is empty, because it is time. No caller owns it, so that none who
// leaves can end it for the others; it ends within fetchTimeout. s.mu is held, and no fetch is running.
func (s *keyStore) fetch(kid string) {
	begun := time.Now()
	first := !s.anyAlive(begun)
	done := make(chan struct{})
	s.running, s.fetched = done, true
	go func() {
		defer close(done)
		keys, err := s.read()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running = nil
		s.take(keys, err)
		_, found := keys[kid]
		if kid != "" && (!first || !found) { // a first fetch that brings its key was no search for an unknown one
			s.unknown = begun
		}
	}()
}

// take keeps what a fetch brought. s.mu is held.
func (s *keyStore) take(keys map[string]key, err error) {
	now := time.Now()
	s.failure = err
	if err != nil {
		s.failures++
		pause := min(shortestPause<<min(s.failures-1, 10), longestPause)
		pause = pause/2 + rand.N(pause/2) // so that instances which failed together do not come back together
		s.pause = now.Add(pause)
		level := slog.LevelError
		if s.anyAlive(now) {
			level = slog.LevelWarn
		}
		s.log.Log(context.Background(), level, "signing keys could not be read", "failures", s.failures, "err", err)
		return
	}
	if s.failures > 0 {
		s.log.Info("signing keys are read again", "failures", s.failures)
	}
	s.failures = 0
	for kid, k := range s.keys {
		if !now.Before(k.until) {
			delete(s.keys, kid)
		}
	}
	for kid, k := range keys {
		s.keys[kid] = heldKey{key: k, until: now.Add(keyLife)}
	}
}

// run reads the keys every hour until ctx ends, beginning after the first fetch that a token caused.
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
		if s.fetched && s.running == nil {
			s.fetch("")
		}
		s.mu.Unlock()
	}
}

// read reads the keys from where they are published.
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
		return nil, failed.Err // without the URL, which is not for logs
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the issuer answered %d", resp.StatusCode)
	}
	return resp.Body, nil
}
