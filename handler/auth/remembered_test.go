package auth

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// loseKeys makes verification impossible, so that only a remembered token is accepted.
func loseKeys(v *Verifier, s *source) {
	s.down.Store(true)
	v.keys.mu.Lock()
	defer v.keys.mu.Unlock()
	clear(v.keys.keys)
}

// remembered returns a header with this token, after the present key set has accepted it.
func remembered(t *testing.T, v *Verifier, token string) http.Header {
	t.Helper()
	h := bearerOf(token)
	for range 2 { // the first may load the keys
		_, err := v.User(t.Context(), h)
		require.NoError(t, err)
	}
	return h
}

func TestTokenIsRememberedForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		token := s.issuer.Token(tenant, "alice", nil)
		h := remembered(t, v, token)
		want, err := v.User(t.Context(), h)
		require.NoError(t, err)
		loseKeys(v, s)
		time.Sleep(time.Minute - time.Nanosecond)
		user, err := v.User(t.Context(), h)
		require.NoError(t, err)
		require.Equal(t, want, user)
		require.Equal(t, "alice", user.ID)
		require.Equal(t, token, user.Token)

		time.Sleep(time.Nanosecond) // the last look-up has not put off the end
		_, err = v.User(t.Context(), h)
		require.ErrorIs(t, err, ErrKeysUnavailable)
	})
}

func TestTokenIsVerifiedAgainAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		h := remembered(t, v, s.issuer.Token(tenant, "alice", nil))
		time.Sleep(time.Minute)
		_, err := v.User(t.Context(), h)
		require.NoError(t, err)
		loseKeys(v, s)
		time.Sleep(time.Minute - time.Nanosecond)
		_, err = v.User(t.Context(), h)
		require.NoError(t, err)
	})
}

func TestTokenIsNotRememberedBeyondItsExp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		h := remembered(t, v, s.issuer.Token(tenant, "alice", map[string]any{"exp": time.Now().Add(30 * time.Second).Unix()}))
		time.Sleep(30*time.Second - time.Nanosecond)
		keys := v.keys.keys
		v.keys.keys = nil
		_, err := v.User(t.Context(), h)
		require.NoError(t, err)
		v.keys.keys = keys

		for range 10 { // in its leeway the token is good, but verified with each request
			time.Sleep(5 * time.Second)
			_, err = v.User(t.Context(), h)
			require.NoError(t, err)
			_, ok := v.remembered.get(v.remembered.digest(h.Get("Authorization")[len("Bearer "):]), v.keys.set.Load(), time.Now())
			require.False(t, ok)
		}
		time.Sleep(leeway)
		for range 2 {
			_, err = v.User(t.Context(), h)
			require.ErrorIs(t, err, ErrExpired)
		}
	})
}

// TestTokenIsNotRememberedBeforeItsNbf matters when the clock is set back.
func TestTokenIsNotRememberedBeforeItsNbf(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	v := New(accepts(issuer, keyFile(t, issuer)), quiet())
	for _, claim := range []string{"nbf", "iat"} {
		start := time.Now().Truncate(time.Second)
		token := issuer.Token(tenant, "alice", map[string]any{"nbf": start.Unix() - 1000, "iat": start.Unix() - 1000, claim: start.Unix()})
		remembered(t, v, token)
		digest, set := v.remembered.digest(token), v.keys.set.Load()
		for offset, want := range map[time.Duration]bool{0: true, -leeway: true, -leeway - time.Nanosecond: false} {
			_, ok := v.remembered.get(digest, set, start.Add(offset))
			require.Equal(t, want, ok, "%s %v", claim, offset)
		}
	}
}

func TestTokenIsNotRememberedBeyondItsKeysLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		_, err := v.User(t.Context(), s.good())
		require.NoError(t, err)
		kid := s.issuer.KeyID()
		old := s.issuer.Token(tenant, "alice", map[string]any{"exp": time.Now().Add(48 * time.Hour).Unix()})
		s.issuer.Rotate()
		_, err = v.User(t.Context(), s.good()) // the old key is not published any more
		require.NoError(t, err)
		end := v.keys.keys[kid].until
		time.Sleep(time.Until(end) - 30*time.Second)
		h := remembered(t, v, old)
		time.Sleep(30*time.Second - time.Nanosecond)
		_, err = v.User(t.Context(), h)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		for range 2 {
			_, err = v.User(t.Context(), h)
			require.ErrorIs(t, err, ErrInvalidToken)
		}
	})
}

// TestNewKeySetEmptiesTheTable publishes the same key for another issuer.
func TestNewKeySetEmptiesTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		h := remembered(t, v, s.issuer.Token(tenant, "alice", nil))
		other := authtest.WithKey(keyPair())
		other.Name = "https://other.example"
		answer := http.HandlerFunc(other.ServeHTTP)
		s.answer.Store(&answer)
		_, err := v.User(t.Context(), h)
		require.NoError(t, err)

		_, err = v.User(t.Context(), s.forged(0)) // has the keys read
		require.ErrorIs(t, err, ErrInvalidToken)
		for range 2 {
			_, err = v.User(t.Context(), h)
			require.EqualError(t, err, "invalid token: the key belongs to another issuer")
		}
		s.answer.Store(nil)
		_, err = v.User(t.Context(), s.forged(1))
		require.ErrorIs(t, err, ErrInvalidToken)
		_, err = v.User(t.Context(), h)
		require.NoError(t, err)
	})
}

// TestNewKeyEmptiesTheTable adds a key to the set and keeps the one that signed the remembered token.
func TestNewKeyEmptiesTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := inBubble(t)
		h := remembered(t, v, s.issuer.Token(tenant, "alice", nil))
		s.issuer.PublishKeyOf(authtest.New())
		_, err := v.User(t.Context(), s.forged(0))
		require.ErrorIs(t, err, ErrInvalidToken)
		loseKeys(v, s)
		_, err = v.User(t.Context(), h)
		require.ErrorIs(t, err, ErrKeysUnavailable)
	})
}

// TestVerificationByOldKeysIsNotRemembered changes the keys during verifications.
func TestVerificationByOldKeysIsNotRemembered(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	v := New(accepts(issuer, keyFile(t, issuer)), quiet())
	h := remembered(t, v, issuer.Token(tenant, "alice", nil))
	good, foreign := map[string]key{}, map[string]key{}
	for kid, k := range v.keys.keys {
		good[kid] = k.key
		foreign[kid] = key{public: k.public, issuer: "https://other.example"}
	}
	take := func(keys map[string]key) {
		v.keys.mu.Lock()
		defer v.keys.mu.Unlock()
		v.keys.begun++
		v.keys.take(keys, v.keys.begun)
	}
	for range 100 {
		take(good)
		var callers sync.WaitGroup
		begun := make(chan struct{}, 4)
		for range cap(begun) {
			callers.Go(func() {
				for refused := false; !refused; {
					_, err := v.User(t.Context(), h)
					refused = err != nil
					select {
					case begun <- struct{}{}:
					default:
					}
				}
				_, err := v.User(t.Context(), h)
				assert.ErrorIs(t, err, ErrInvalidToken, "once refused")
			})
		}
		<-begun
		take(foreign)
		_, err := v.User(t.Context(), h)
		require.ErrorIs(t, err, ErrInvalidToken)
		callers.Wait()
		_, err = v.User(t.Context(), h)
		require.ErrorIs(t, err, ErrInvalidToken)
	}
}

func TestTableKeepsOneKeySet(t *testing.T) {
	table, now := newRememberedTokens(), time.Now()
	good := verified{exp: now.Add(time.Hour), until: now.Add(time.Hour)}
	one, two := table.digest("one"), table.digest("two")
	table.put(one, 1, now, good)
	_, ok := table.get(one, 1, now)
	require.True(t, ok)
	_, ok = table.get(one, 2, now)
	require.False(t, ok, "verified with an older set")

	table.put(two, 2, now, good)
	table.put(one, 1, now, good) // its verification began before the change
	for set := range int64(4) {
		_, ok = table.get(one, set, now)
		require.False(t, ok, set)
	}
	require.Len(t, table.young, 1)
	require.Empty(t, table.old)
}

func TestTableIsBounded(t *testing.T) {
	table, now := newRememberedTokens(), time.Now()
	digest := func(n int) (d tokenDigest) { binary.BigEndian.PutUint64(d[:], uint64(n)); return d }
	const all = 3*maxRemembered + 1
	for n := range all {
		table.put(digest(n), 1, now, verified{exp: now.Add(time.Hour), until: now.Add(time.Hour)})
		require.LessOrEqual(t, len(table.young)+len(table.old), maxRemembered)
		_, ok := table.get(digest(max(0, n-maxRemembered/2+1)), 1, now)
		require.True(t, ok, "the newer half is kept")
	}
	_, ok := table.get(digest(all-maxRemembered-1), 1, now)
	require.False(t, ok, "the oldest are dropped")
}

func TestDigestIsKeyed(t *testing.T) {
	one, two := New(Config{}, quiet()).remembered, New(Config{}, quiet()).remembered
	token := one.digest("token")
	require.Equal(t, token, one.digest("token"), "it is not the same twice")
	require.NotEqual(t, one.digest("token"), one.digest("tokem"))
	require.NotEqual(t, one.digest("token"), two.digest("token"))
	require.NotEqual(t, tokenDigest(sha256.Sum256([]byte("token"))), one.digest("token"))
}

// TestOneOtherByteIsAnotherToken changes each byte of a remembered token in turn.
func TestOneOtherByteIsAnotherToken(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	v := New(accepts(issuer, keyFile(t, issuer)), quiet())
	token := issuer.Token(tenant, "alice", nil)
	remembered(t, v, token)
	for i := range len(token) {
		for _, letter := range []byte{token[i] ^ 1, 'A', '.'} {
			if letter == token[i] {
				continue
			}
			_, err := v.User(t.Context(), bearerOf(token[:i]+string(rune(letter))+token[i+1:]))
			require.Error(t, err, "byte %d", i)
		}
	}
	for _, other := range []string{token[:len(token)-1], token + "A", token + ".", token[1:], strings.ToLower(token)} {
		_, err := v.User(t.Context(), bearerOf(other))
		require.Error(t, err)
	}
	remembered(t, v, token)
	require.Len(t, v.remembered.young, 1, "what is refused is not remembered")
}

func TestRememberingIsSafeForConcurrentUse(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	v := New(accepts(issuer, keyFile(t, issuer)), quiet())
	tokens := make([]string, 16)
	for i := range tokens {
		tokens[i] = issuer.Token(tenant, fmt.Sprint("user-", i), nil)
	}
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			for i := range 20 * len(tokens) {
				n := (i + caller) % len(tokens)
				user, err := v.User(t.Context(), bearerOf(tokens[n]))
				assert.NoError(t, err)
				assert.Equal(t, fmt.Sprint("user-", n), user.ID)
				assert.Equal(t, tokens[n], user.Token)
			}
		})
	}
	callers.Wait()
}
