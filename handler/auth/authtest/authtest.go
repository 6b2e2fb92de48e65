// Package authtest is a token issuer for tests and for make run.
package authtest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The values that make run uses. The keys are at LocalIssuer + KeysPath.
const (
	LocalIssuer   = "http://127.0.0.1:7072"
	LocalAudience = "11111111-2222-3333-4444-555555555555"
	LocalTenant   = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	LocalClient   = "99999999-8888-7777-6666-555555555555"
	Scope         = "access_as_user"
	KeysPath      = "/keys"
)

// Issuer signs tokens and, as an http.Handler, publishes the key that verifies them. It is safe for concurrent use once Name and
// Audience are set.
type Issuer struct {
	Name     string // iss, in which {tenantid} stands for the token's tenant
	Audience string // aud

	mu     sync.Mutex
	key    *rsa.PrivateKey
	others []publicKey // other issuers' keys in the same set
}

// publicKey is a key (RFC 7517) as Entra publishes it: without alg, but with the issuer whose tokens it signs.
type publicKey struct {
	Type     string `json:"kty"`
	Use      string `json:"use"`
	ID       string `json:"kid"`
	Modulus  string `json:"n"`
	Exponent string `json:"e"`
	Issuer   string `json:"issuer"`
}

// New returns the local issuer with a new key. Making the key takes about 0.1 s.
func New() *Issuer { return WithKey(NewKey()) }

// WithKey returns the local issuer with this key.
func WithKey(key *rsa.PrivateKey) *Issuer {
	return &Issuer{Name: LocalIssuer, Audience: LocalAudience, key: key}
}

// NewKey returns a new RSA key pair of 2048 bits.
func NewKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // the machine has no randomness
	}
	return key
}

// Token returns a token for a user of a tenant that is valid for an hour, with the claims of Entra's v2.0 access tokens. Changes
// replace claims; nil removes one.
func (i *Issuer) Token(tenant, user string, changes map[string]any) string {
	now := time.Now()
	claims := map[string]any{
		"ver": "2.0", "iss": i.issuer(tenant), "aud": i.Audience, "tid": tenant, "sub": user, "oid": objectID(tenant, user),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"scp": Scope, "azp": LocalClient, "azpacr": "0", "name": "Somebody", "preferred_username": "somebody@example.com",
		"aio": rand.Text(), "rh": "0.AAAA.", "uti": rand.Text(),
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return i.Sign(text(map[string]any{"typ": "JWT", "alg": "RS256", "kid": i.KeyID()}), text(claims))
}

// Sign returns a token with exactly this header and this payload. The signature is RS256, whatever the header says.
func (i *Issuer) Sign(header, payload string) string {
	signed := encode([]byte(header)) + "." + encode([]byte(payload))
	signature, err := jwt.SigningMethodRS256.Sign(signed, i.signer())
	if err != nil {
		panic(err) // the key is ours
	}
	return signed + "." + encode(signature)
}

// KeyID returns the kid of the present key.
func (i *Issuer) KeyID() string { return keyID(&i.signer().PublicKey) }

// Rotate replaces the key by a new one. The old one is no longer published.
func (i *Issuer) Rotate() {
	key := NewKey()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key = key
}

// KeySet returns the issuer's JSON Web Key Set (RFC 7517).
func (i *Issuer) KeySet() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	keys := append([]publicKey{publish(&i.key.PublicKey, i.Name)}, i.others...)
	return []byte(text(map[string]any{"keys": keys}))
}

// ServeHTTP serves the key set and, for the tenant in the path, the metadata that point to it (OpenID Connect Discovery 1.0).
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tenant, isMetadata := strings.CutSuffix(r.URL.Path, "/.well-known/openid-configuration")
	switch {
	case r.URL.Path == KeysPath:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(i.KeySet())
	case isMetadata:
		tenant = strings.TrimSuffix(strings.TrimPrefix(tenant, "/"), "/v2.0")
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(text(map[string]any{
			"issuer": i.issuer(tenant), "jwks_uri": "http://" + r.Host + KeysPath,
			"id_token_signing_alg_values_supported": []string{"RS256"}, "subject_types_supported": []string{"pairwise"},
		})))
	default:
		http.NotFound(w, r)
	}
}

func (i *Issuer) issuer(tenant string) string {
	return strings.ReplaceAll(i.Name, "{tenantid}", tenant)
}

func (i *Issuer) signer() *rsa.PrivateKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.key
}

// PublishKeyOf adds another issuer's present key to the set: Entra's common set has keys of several issuers.
func (i *Issuer) PublishKeyOf(other *Issuer) {
	theirs := publish(&other.signer().PublicKey, other.Name)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.others = append(i.others, theirs)
}

func publish(key *rsa.PublicKey, issuer string) publicKey {
	return publicKey{Type: "RSA", Use: "sig", ID: keyID(key), Modulus: modulus(key), Exponent: exponent(key), Issuer: issuer}
}

// keyID returns the thumbprint of a key (RFC 7638).
func keyID(key *rsa.PublicKey) string {
	digest := sha256.Sum256([]byte(`{"e":"` + exponent(key) + `","kty":"RSA","n":"` + modulus(key) + `"}`))
	return encode(digest[:])
}

func modulus(key *rsa.PublicKey) string { return encode(key.N.Bytes()) }

func exponent(key *rsa.PublicKey) string { return encode(big.NewInt(int64(key.E)).Bytes()) }

// objectID returns a GUID that is always the same for a user of a tenant.
func objectID(tenant, user string) string {
	digest := sha256.Sum256([]byte(tenant + " " + user))
	h := hex.EncodeToString(digest[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func encode(bytes []byte) string { return base64.RawURLEncoding.EncodeToString(bytes) }

func text(value any) string {
	bytes, err := json.Marshal(value)
	if err != nil {
		panic(err) // our values always encode
	}
	return string(bytes)
}
