package auth

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	fetchTime   = 10 * time.Second // for one fetch
	afterGood   = 5 * time.Minute  // until an unknown kid may cause the next fetch
	afterFailed = time.Second      // until the next try after a failed one
	keysLive    = 24 * time.Hour   // after the last good fetch
	maxKeySet   = 1 << 20          // bytes
)

// keySet holds the issuer's keys (RFC 7517). They are fetched when a token names one that is not held, by one caller at a time and
// at most once in afterGood, so that forged names cannot make it ask. A failed fetch leaves the held keys as they are.
type keySet struct {
	url    string
	client *http.Client

	mu       sync.Mutex
	keys     map[string]*rsa.PublicKey
	good     time.Time     // of the last good fetch
	next     time.Time     // before which no fetch begins
	failed   error         // of the last fetch; nil when it was good
	fetching chan struct{} // closed when the running fetch ends; nil when none runs
}

func newKeySet(url string) *keySet {
	return &keySet{url: url, client: &http.Client{
		Timeout: fetchTime,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // keys come from where the settings say, or not at all
		},
	}}
}

// get returns the key of that name. ErrKeysUnavailable: it is not held, and the source did not answer.
// Callers that name a held key never wait.
func (s *keySet) get(ctx context.Context, kid string) (*rsa.PublicKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key := s.held(kid); key != nil {
		return key, nil
	}
	switch {
	case s.fetching != nil:
		running := s.fetching
		s.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, ctx.Err())
		}
	case !time.Now().Before(s.next):
		s.refresh(ctx)
	}
	if key := s.held(kid); key != nil {
		return key, nil
	}
	if s.failed != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, s.failed)
	}
	return nil, ErrInvalidToken
}

// held returns a key that is known and not too old, or nil. The caller holds s.mu.
func (s *keySet) held(kid string) *rsa.PublicKey {
	if time.Since(s.good) > keysLive {
		return nil
	}
	return s.keys[kid]
}

// refresh fetches the keys, detached from the caller's fate, for others wait for them too. The caller holds s.mu, which is free
// meanwhile.
func (s *keySet) refresh(ctx context.Context) {
	done := make(chan struct{})
	s.fetching = done
	s.mu.Unlock()
	keys, err := s.fetch(context.WithoutCancel(ctx))
	s.mu.Lock()
	s.fetching, s.failed = nil, err
	close(done)
	if err != nil {
		s.next = time.Now().Add(afterFailed)
		return
	}
	s.keys, s.good, s.next = keys, time.Now(), time.Now().Add(afterGood)
}

func (s *keySet) fetch(ctx context.Context) (map[string]*rsa.PublicKey, error) {
	text, err := s.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if len(text) > maxKeySet {
		return nil, errors.New("read keys: more than 1 MiB")
	}
	return parseKeys(text)
}

func (s *keySet) read(ctx context.Context) ([]byte, error) {
	if !strings.Contains(s.url, "://") {
		return os.ReadFile(s.url)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", response.StatusCode)
	}
	return io.ReadAll(io.LimitReader(response.Body, maxKeySet+1))
}

// parseKeys returns the keys of a set that can verify RS256; a set without one is an error.
func parseKeys(text []byte) (map[string]*rsa.PublicKey, error) {
	var set struct {
		Keys []struct {
			Type       string   `json:"kty"`
			ID         string   `json:"kid"`
			Use        string   `json:"use"`
			Algorithm  string   `json:"alg"`
			Operations []string `json:"key_ops"`
			Modulus    string   `json:"n"`
			Exponent   string   `json:"e"`
			Private    string   `json:"d"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("parse keys: not a JSON Web Key Set")
	}
	keys, named := make(map[string]*rsa.PublicKey), make(map[string]int)
	for _, k := range set.Keys {
		named[k.ID]++
		n, errN := base64.RawURLEncoding.Strict().DecodeString(k.Modulus)
		e, errE := base64.RawURLEncoding.Strict().DecodeString(k.Exponent)
		if errN != nil || errE != nil || len(e) > 4 {
			continue
		}
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		verifies := k.Operations == nil || len(k.Operations) == 1 && k.Operations[0] == "verify"
		if k.Type == "RSA" && k.ID != "" && (k.Use == "" || k.Use == "sig") && (k.Algorithm == "" || k.Algorithm == "RS256") &&
			verifies && k.Private == "" && key.N.BitLen() >= 2048 && key.E >= 65537 {
			keys[k.ID] = key
		}
	}
	for kid, times := range named {
		if times > 1 { // which one is meant cannot be told
			delete(keys, kid)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("parse keys: no usable RSA key")
	}
	return keys, nil
}
