package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"hash"
	"sync"
	"time"
)

const (
	rememberFor   = time.Minute // at most
	maxRemembered = 10_000
)

// verified is the result of verifying a token.
type verified struct {
	user  User      // without the token
	from  time.Time // the later of nbf and iat, less the leeway
	exp   time.Time // without leeway
	until time.Time // the end of the signing key's life; once remembered, of the entry's
}

// rememberedTokens is a table of recently accepted tokens: a look-up costs a twentieth of a verification. It holds digests, not tokens,
// and no token that was refused. It is safe for concurrent use.
//
// All entries belong to one key set. They are kept in two generations: when the young one is full, it replaces the old one.
type rememberedTokens struct {
	macs sync.Pool // of hash.Hash, for tokenDigest

	mu         sync.RWMutex
	set        int64 // keyStore.set
	young, old map[tokenDigest]verified
}

// tokenDigest is an HMAC-SHA-256 under a random key. It says nothing about a token to anyone outside this process.
type tokenDigest [sha256.Size]byte

func newRememberedTokens() *rememberedTokens {
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // which never fails
	return &rememberedTokens{
		macs:  sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }},
		young: make(map[tokenDigest]verified),
	}
}

func (t *rememberedTokens) digest(token string) (d tokenDigest) {
	mac := t.macs.Get().(hash.Hash)
	mac.Reset()
	mac.Write([]byte(token))
	mac.Sum(d[:0])
	t.macs.Put(mac)
	return d
}

// get returns the result for a token that was verified with this key set, unless it has ended or is not valid now.
func (t *rememberedTokens) get(d tokenDigest, set int64, now time.Time) (verified, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if set != t.set {
		return verified{}, false
	}
	token, ok := t.young[d]
	if !ok {
		token, ok = t.old[d]
	}
	return token, ok && !now.Before(token.from) && now.Before(token.exp) && now.Before(token.until)
}

// put remembers a token whose verification began at now with this key set. If the table has a newer set, it does nothing.
func (t *rememberedTokens) put(d tokenDigest, set int64, now time.Time, token verified) {
	if end := now.Add(rememberFor); end.Before(token.until) {
		token.until = end
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case set < t.set:
		return
	case set > t.set:
		t.set, t.young, t.old = set, make(map[tokenDigest]verified), nil
	case len(t.young) >= maxRemembered/2:
		t.young, t.old = make(map[tokenDigest]verified), t.young
	}
	t.young[d] = token
}
