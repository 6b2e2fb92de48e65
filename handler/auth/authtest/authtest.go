// Package authtest is a token issuer, for tests and for local use.
package authtest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
)

// What the issuer of make run uses.
const (
	LocalIssuer   = "http://127.0.0.1:7072"
	LocalAudience = "11111111-2222-3333-4444-555555555555"
	LocalTenant   = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
)

// Issuer signs tokens with one key. It is safe for concurrent use.
type Issuer struct {
	Name     string // iss
	Audience string // aud
	Key      *rsa.PrivateKey
}

// New returns an issuer with a new key.
func New() *Issuer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // only when the machine has no randomness
	}
	return &Issuer{Name: LocalIssuer, Audience: LocalAudience, Key: key}
}

// KeyID names the key by its digest.
func (i *Issuer) KeyID() string {
	digest := sha256.Sum256(i.Key.N.Bytes())
	return base64.RawURLEncoding.EncodeToString(digest[:12])
}

// ServeHTTP serves the key set.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(i.KeySet())
}

// KeySet is the JSON Web Key Set (RFC 7517) of the issuer.
func (i *Issuer) KeySet() []byte {
	exponent := binary.BigEndian.AppendUint32(nil, uint32(i.Key.E))
	text, err := json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "use": "sig", "kid": i.KeyID(), "issuer": i.Name,
		"n": base64.RawURLEncoding.EncodeToString(i.Key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(exponent[1:]),
	}}}, json.Deterministic(true))
	if err != nil {
		panic(err) // strings always encode
	}
	return text
}

// Token returns a token for a user of a tenant, good for an hour, as Entra ID makes them. Changes replace claims; nil removes one.
func (i *Issuer) Token(tenant, user string, changes map[string]any) string {
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": i.Name, "aud": i.Audience, "sub": user, "tid": tenant, "oid": "oid-" + user, "ver": "2.0",
		"scp": "access_as_user", "azp": LocalAudience,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return i.Sign(map[string]any{"alg": "RS256", "typ": "JWT", "kid": i.KeyID()}, claims)
}

// Sign returns a token with exactly this header and these claims.
func (i *Issuer) Sign(header map[string]any, claims jwt.MapClaims) string {
	token := &jwt.Token{Header: header, Claims: claims, Method: jwt.SigningMethodRS256}
	text, err := token.SignedString(i.Key)
	if err != nil {
		panic(err) // the key and the claims are ours
	}
	return text
}
