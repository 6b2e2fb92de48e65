package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// source is where an issuer publishes its keys: a real HTTP server behind pipes instead of sockets, so that it works in a synctest
// bubble.
type source struct {
	issuer  *authtest.Issuer
	fetches atomic.Int64
	down    atomic.Bool                      // connections are refused
	slow    atomic.Int64                     // time.Duration before an answer
	answer  atomic.Pointer[http.HandlerFunc] // instead of the keys
	conns   chan net.Conn
	closed  chan struct{}
	log     bytes.Buffer
}

// inBubble returns a verifier of an issuer's tokens, and the source of its keys. The caller is in a synctest bubble.
func inBubble(t *testing.T) (*Verifier, *source) {
	t.Helper()
	s := &source{issuer: authtest.WithKey(keyPair()), conns: make(chan net.Conn), closed: make(chan struct{})}
	v := New(accepts(s.issuer, "http://keys.example"+authtest.KeysPath), slog.New(slog.NewJSONHandler(&s.log, nil)))
	transport, ok := v.keys.client.Transport.(*http.Transport)
	require.True(t, ok)
	transport.Proxy, transport.DialContext = nil, s.dial
	server := &http.Server{Handler: s}
	served := make(chan error)
	go func() { served <- server.Serve(s) }()
	t.Cleanup(func() {
		_ = server.Close()
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	return v, s
}

func (s *source) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if s.down.Load() {
		s.fetches.Add(1)
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	select {
	case s.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *source) Accept() (net.Conn, error) {
	select {
	case conn := <-s.conns:
		return conn, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *source) Close() error   { close(s.closed); return nil }
func (s *source) Addr() net.Addr { return &net.TCPAddr{} }

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.fetches.Add(1)
	time.Sleep(time.Duration(s.slow.Load()))
	if answer := s.answer.Load(); answer != nil {
		(*answer)(w, r)
		return
	}
	s.issuer.ServeHTTP(w, r)
}

// logged is what the verifier has logged so far.
func (s *source) logged() string {
	synctest.Wait() // for the fetch that writes
	return s.log.String()
}

// good returns a header with a token of the present key that is valid for a month.
func (s *source) good() http.Header {
	return bearerOf(s.issuer.Token(tenant, "alice", map[string]any{"exp": time.Now().Add(30 * 24 * time.Hour).Unix()}))
}

// forged returns a header with a kid that no key has.
func (*source) forged(n int) http.Header {
	return bearerOf(base64url.EncodeToString(fmt.Appendf(nil, `{"alg":"RS256","kid":"forged-%d"}`, n)) + ".e30.QQ")
}

func TestFiftyColdCallersMakeOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		require.Zero(t, s.fetches.Load(), "keys are fetched on first need")
		s.slow.Store(int64(time.Second))
		token := s.good()
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				user, err := v.User(t.Context(), token)
				assert.NoError(t, err)
				assert.Equal(t, "alice", user.ID)
			})
		}
		callers.Wait()
		require.EqualValues(t, 1, s.fetches.Load())
	})
}

func TestUnknownKidsCauseThreeFetchesInFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		_, err := v.User(t.Context(), s.good())
		require.NoError(t, err)
		for round := range int64(3) {
			for n := range 1000 {
				_, err := v.User(t.Context(), s.forged(n))
				if n < maxSearches {
					require.ErrorIs(t, err, ErrInvalidToken, "it was looked for")
				} else {
					require.ErrorIs(t, err, ErrUnsearched, "no fetch could look for it")
					require.ErrorIs(t, err, ErrKeysUnavailable)
					require.NotErrorIs(t, err, ErrInvalidToken)
				}
			}
			require.Equal(t, 1+maxSearches*(round+1), s.fetches.Load())
			_, err := v.User(t.Context(), s.good())
			require.NoError(t, err)

			time.Sleep(searchWindow - time.Second)
			_, err = v.User(t.Context(), s.forged(0))
			require.ErrorIs(t, err, ErrInvalidToken, "it stays refused")
			_, err = v.User(t.Context(), s.forged(999))
			require.ErrorIs(t, err, ErrKeysUnavailable)
			require.Equal(t, 1+maxSearches*(round+1), s.fetches.Load(), "before the five minutes are over")
			time.Sleep(time.Second)
		}
	})
}

func TestFirstLoadIsNoSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		for n := range 1 + maxSearches {
			_, err := v.User(t.Context(), s.forged(n))
			require.ErrorIs(t, err, ErrInvalidToken, n)
		}
		_, err := v.User(t.Context(), s.forged(1+maxSearches))
		require.ErrorIs(t, err, ErrKeysUnavailable)
		require.EqualValues(t, 1+maxSearches, s.fetches.Load())
	})
}

func TestForgedKidsDoNotHoldUpARollOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		_, err := v.User(t.Context(), s.good())
		require.NoError(t, err)
		for n := range maxSearches - 1 {
			_, err = v.User(t.Context(), s.forged(n))
			require.ErrorIs(t, err, ErrInvalidToken)
		}
		s.issuer.Rotate()
		_, err = v.User(t.Context(), s.good())
		require.NoError(t, err, "the first token of the new key")
	})
}

// TestGoodTokenIsNotRefusedUnsearched uses up the searches before the first token of a new key.
func TestGoodTokenIsNotRefusedUnsearched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		_, err := v.User(t.Context(), s.good())
		require.NoError(t, err)
		for n := range maxSearches {
			_, err = v.User(t.Context(), s.forged(n))
			require.ErrorIs(t, err, ErrInvalidToken)
		}
		s.issuer.Rotate()
		for range 4 {
			_, err = v.User(t.Context(), s.good())
			require.ErrorIs(t, err, ErrKeysUnavailable)
			require.NotErrorIs(t, err, ErrInvalidToken)
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Minute)
		_, err = v.User(t.Context(), s.good())
		require.NoError(t, err)
	})
}

// TestFetchThatBeganBeforeAKidWasSeenProvesNothing sends the first token of a new key while a fetch brings the old keys.
func TestFetchThatBeganBeforeAKidWasSeenProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		_, err := v.User(t.Context(), s.good())
		require.NoError(t, err)
		old := s.issuer.KeySet()
		slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second)
			_, _ = w.Write(old)
		})
		s.answer.Store(&slow)
		forger := make(chan error)
		go func() { _, err := v.User(t.Context(), s.forged(0)); forger <- err }()
		synctest.Wait()

		s.answer.Store(nil)
		s.issuer.Rotate()
		_, err = v.User(t.Context(), s.good())
		require.NoError(t, err)
		require.ErrorIs(t, <-forger, ErrInvalidToken)
		require.EqualValues(t, 3, s.fetches.Load(), "the first load, the forger's, and one more")
	})
}

func TestKeyThatIsPublishedLateIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		_, err := v.User(t.Context(), s.good())
		require.NoError(t, err)
		old := s.issuer.KeySet()
		stale := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(old) })
		s.answer.Store(&stale)
		s.issuer.Rotate()
		_, err = v.User(t.Context(), s.good())
		require.ErrorIs(t, err, ErrInvalidToken)
		s.answer.Store(nil)
		time.Sleep(searchWindow)
		_, err = v.User(t.Context(), s.good())
		require.NoError(t, err)
	})
}

func TestUnknownKidsAreForgottenBeforeTheyAreMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		for n := range maxUnknown + maxUnknown/2 {
			_, err := v.User(t.Context(), s.forged(n))
			require.Error(t, err)
			require.LessOrEqual(t, len(v.keys.unknown), maxUnknown)
		}
		require.Len(t, v.keys.unknown, maxUnknown/2)
	})
}

func TestForgedKidsAtOnceCauseTwoFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		_, err := v.User(t.Context(), s.good())
		require.NoError(t, err)
		s.slow.Store(int64(time.Second))
		var callers sync.WaitGroup
		for n := range 200 {
			callers.Go(func() {
				_, err := v.User(t.Context(), s.forged(n))
				assert.ErrorIs(t, err, ErrInvalidToken)
			})
		}
		callers.Wait()
		require.EqualValues(t, 3, s.fetches.Load(), "the first load, the first forger's, and one for all who came during it")
	})
}

func TestGoodCallersDoNotWaitBehindAnUnknownKid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		_, err := v.User(t.Context(), s.good())
		require.NoError(t, err)
		s.slow.Store(int64(time.Minute))
		begun := time.Now()
		unknown := make(chan error)
		go func() { _, err := v.User(t.Context(), s.forged(0)); unknown <- err }()
		synctest.Wait()
		for range 100 {
			_, err := v.User(t.Context(), s.good())
			require.NoError(t, err)
		}
		require.Zero(t, time.Since(begun))
		require.ErrorIs(t, <-unknown, ErrKeysUnavailable)
		require.Equal(t, longestWait, time.Since(begun))
		time.Sleep(time.Minute) // until the source has given up too
	})
}

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		ctx, stop := context.WithCancel(t.Context())
		running := make(chan struct{})
		go func() { v.Run(ctx); close(running) }()
		old := s.good()
		_, err := v.User(t.Context(), old)
		require.NoError(t, err)

		s.issuer.Rotate()
		s.slow.Store(int64(time.Second))
		fresh := s.good()
		var callers sync.WaitGroup
		for range 20 { // in the middle of it, tokens of both keys are good
			callers.Go(func() { _, err := v.User(t.Context(), fresh); assert.NoError(t, err) })
			callers.Go(func() { _, err := v.User(t.Context(), old); assert.NoError(t, err) })
		}
		callers.Wait()
		require.EqualValues(t, 2, s.fetches.Load())

		time.Sleep(keyLife - 2*time.Second)
		_, err = v.User(t.Context(), old)
		require.NoError(t, err, "a withdrawn key is good for 24 hours")
		time.Sleep(2 * time.Second)
		_, err = v.User(t.Context(), old)
		require.ErrorIs(t, err, ErrInvalidToken)
		_, err = v.User(t.Context(), fresh)
		require.NoError(t, err)
		time.Sleep(refreshEvery)
		stop()
		<-running
		synctest.Wait()
		require.Len(t, v.keys.keys, 1, "what is dead is gone")
	})
}

func TestKeysAreRefreshedHourlyInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		ctx, stop := context.WithCancel(t.Context())
		running := make(chan struct{})
		go func() { v.Run(ctx); close(running) }()
		time.Sleep(10 * time.Hour)
		require.Zero(t, s.fetches.Load(), "nobody has needed keys yet")
		_, err := v.User(t.Context(), s.good())
		require.NoError(t, err)
		time.Sleep(3*time.Hour + time.Minute)
		require.EqualValues(t, 1+3, s.fetches.Load())

		s.issuer.Rotate()
		time.Sleep(time.Hour)
		s.down.Store(true)
		_, err = v.User(t.Context(), s.good())
		require.NoError(t, err, "the new key is here before its first token")
		stop()
		<-running
	})
}

func TestSourceDownFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		s.down.Store(true)
		token := s.good()
		for range 6000 { // requests, 100 a second
			begun := time.Now()
			_, err := v.User(t.Context(), token)
			require.ErrorIs(t, err, ErrKeysUnavailable)
			require.ErrorContains(t, err, "connection refused")
			require.Zero(t, time.Since(begun))
			time.Sleep(10 * time.Millisecond)
		}
		require.Greater(t, s.fetches.Load(), int64(4))
		require.Less(t, s.fetches.Load(), int64(12))
		require.Equal(t, 1, strings.Count(s.logged(), `"level":"ERROR"`), "one line a minute")
		require.NotContains(t, s.logged(), "keys.example")

		s.down.Store(false)
		time.Sleep(longestPause)
		_, err := v.User(t.Context(), token)
		require.NoError(t, err)
		require.Regexp(t, `"signing keys are read again","failures":\d+,"requests":6000`, s.logged())
	})
}

func TestOutageIsLoggedOnceAMinuteAndWhenItGetsWorse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		_, err := v.User(t.Context(), s.good())
		require.NoError(t, err)
		begun := time.Now()
		s.down.Store(true)
		time.Sleep(15 * time.Second)
		for time.Since(begun) < keyLife-time.Minute {
			time.Sleep(time.Minute)
			_, err := v.User(t.Context(), s.forged(0))
			require.ErrorIs(t, err, ErrKeysUnavailable)
		}
		warnings := strings.Count(s.logged(), `"level":"WARN"`)
		require.InDelta(t, keyLife/time.Minute, warnings, 2)
		require.NotContains(t, s.logged(), `"level":"ERROR"`)
		time.Sleep(time.Until(begun.Add(keyLife)))
		_, err = v.User(t.Context(), s.good())
		require.ErrorIs(t, err, ErrKeysUnavailable)
		require.Equal(t, 1, strings.Count(s.logged(), `"level":"ERROR"`), "no key is left, less than a minute after the last warning")
		s.down.Store(false)
		time.Sleep(longestPause)
		_, err = v.User(t.Context(), s.good())
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(s.logged(), "read again"))
	})
}

func TestSourceDownLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		ctx, stop := context.WithCancel(t.Context())
		running := make(chan struct{})
		go func() { v.Run(ctx); close(running) }()
		token := s.good()
		_, err := v.User(t.Context(), token)
		require.NoError(t, err)
		s.down.Store(true)
		for range 23 {
			time.Sleep(time.Hour + time.Second)
			_, err := v.User(t.Context(), token)
			require.NoError(t, err, "keys are good for 24 hours")
		}
		require.EqualValues(t, 1+23, s.fetches.Load(), "known keys cause no fetch but the hourly ones")
		require.Equal(t, 23, strings.Count(s.logged(), `"level":"WARN"`))
		require.NotContains(t, s.logged(), `"level":"ERROR"`)
		_, err = v.User(t.Context(), s.forged(0))
		require.ErrorIs(t, err, ErrKeysUnavailable, "an unknown key may be a new one")
		require.NotErrorIs(t, err, ErrUnsearched, "the source is to blame")

		time.Sleep(time.Hour)
		_, err = v.User(t.Context(), token)
		require.ErrorIs(t, err, ErrKeysUnavailable)
		require.Contains(t, s.logged(), `"level":"ERROR"`)

		s.down.Store(false)
		time.Sleep(longestPause)
		_, err = v.User(t.Context(), token)
		require.NoError(t, err)
		stop()
		<-running
	})
}

// badAnswers are answers of a source that has no keys for us.
func badAnswers(issuer *authtest.Issuer) map[string]http.HandlerFunc {
	text := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write(issuer.KeySet())
		}
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	keys := string(issuer.KeySet())
	return map[string]http.HandlerFunc{
		"500 with keys": status(500), "404 with keys": status(404), "201 with keys": status(201), "nothing": text(""), "null": text("null"),
		"HTML": text("<!doctype html><title>Sign in</title>"), "an empty object": text("{}"), "an empty set": text(`{"keys":[]}`),
		"keys null": text(`{"keys":null}`), "keys an object": text(`{"keys":{}}`), "Keys": text(strings.Replace(keys, "keys", "Keys", 1)),
		"keys twice": text(strings.TrimSuffix(keys, "}") + `,"keys":[]}`), "cut off": text(keys[:len(keys)-3]), "trailing data": text(keys + "x"),
		"an elliptic curve": text(strings.ReplaceAll(keys, "RSA", "EC")), "for encryption": text(strings.ReplaceAll(keys, `"sig"`, `"enc"`)),
		"1 MiB and more": text(keys + strings.Repeat(" ", 1<<20)),
		"without end": func(w http.ResponseWriter, _ *http.Request) {
			for block := bytes.Repeat([]byte(" "), 1<<16); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		},
		"a redirect to another address": redirect("http://evil.example" + authtest.KeysPath),
		"a redirect to another scheme":  redirect("ftp://keys.example" + authtest.KeysPath),
		"a redirect to itself":          redirect(authtest.KeysPath),
		"no answer":                     func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a byte a second": func(w http.ResponseWriter, r *http.Request) {
			for i := range len(keys) {
				if _, err := io.WriteString(w, keys[i:i+1]); err != nil || r.Context().Err() != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Second)
			}
		},
		"a broken connection": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, keys[:100])
		},
	}
}

func TestBadAnswersAreFailedRefreshes(t *testing.T) {
	for name, answer := range badAnswers(authtest.WithKey(keyPair())) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, s := inBubble(t)
				s.answer.Store(&answer)
				begun := time.Now()
				_, err := v.User(t.Context(), s.good())
				require.ErrorIs(t, err, ErrKeysUnavailable)
				require.LessOrEqual(t, time.Since(begun), longestWait)
				time.Sleep(fetchTimeout)
				require.EqualValues(t, 1, s.fetches.Load())
				require.Contains(t, s.logged(), "signing keys could not be read")

				s.answer.Store(nil)
				_, err = v.User(t.Context(), s.good())
				require.NoError(t, err, "it recovers by itself")

				s.answer.Store(&answer)
				time.Sleep(searchWindow)
				_, err = v.User(t.Context(), s.forged(0))
				require.ErrorIs(t, err, ErrKeysUnavailable)
				_, err = v.User(t.Context(), s.good())
				require.NoError(t, err, "the last good keys are kept")
				time.Sleep(fetchTimeout)
			})
		})
	}
}

func TestCallerWhoLeavesDoesNotEndTheFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		s.slow.Store(int64(2 * time.Second))
		token := s.good()
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		stays := make(chan error)
		go func() { _, err := v.User(ctx, token); stays <- err }()
		go func() { _, err := v.User(t.Context(), token); stays <- err }()
		err := <-stays
		require.ErrorIs(t, err, ErrKeysUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, <-stays)
		require.EqualValues(t, 1, s.fetches.Load())
	})
}

func TestKeysFromAFile(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	path := filepath.Join(t.TempDir(), "keys.json")
	synctest.Test(t, func(t *testing.T) {
		v := New(accepts(issuer, path), quiet())
		_, err := v.User(t.Context(), bearerOf(issuer.Token(tenant, "alice", nil)))
		require.ErrorIs(t, err, ErrKeysUnavailable)
		require.ErrorIs(t, err, os.ErrNotExist)

		require.NoError(t, os.WriteFile(path, issuer.KeySet(), 0o600))
		time.Sleep(shortestPause)
		_, err = v.User(t.Context(), bearerOf(issuer.Token(tenant, "alice", nil)))
		require.NoError(t, err)
	})
}

// TestKeysOverTheNetwork uses a real connection, and a redirect that must not be followed.
func TestKeysOverTheNetwork(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	var reached atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Store(true)
		issuer.ServeHTTP(w, r)
	}))
	defer elsewhere.Close()
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, elsewhere.URL+authtest.KeysPath, http.StatusFound)
			return
		}
		issuer.ServeHTTP(w, r)
	}))
	defer keys.Close()
	token := bearerOf(issuer.Token(tenant, "alice", nil))

	_, err := New(accepts(issuer, keys.URL+authtest.KeysPath), quiet()).User(t.Context(), token)
	require.NoError(t, err)

	_, err = New(accepts(issuer, keys.URL+"/moved"), quiet()).User(t.Context(), token)
	require.ErrorIs(t, err, ErrKeysUnavailable)
	require.False(t, reached.Load())
}
