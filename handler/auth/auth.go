// Package auth turns a bearer token into a user.
package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
)

// User is who a token speaks for.
type User struct {
	ID       string // sub: never given to another user of the tenant
	TenantID string // tid: part of who the user is, for two tenants may use one ID
	ObjectID string // oid: for administrators; may be empty
}

// Why a request has no user. The texts are constant and tell nothing of the token.
var (
	ErrNoToken         = errors.New("no bearer token")
	ErrBadRequest      = errors.New("malformed authorization header")
	ErrInvalidToken    = errors.New("invalid token")
	ErrExpired         = fmt.Errorf("expired: %w", ErrInvalidToken)
	ErrKeysUnavailable = errors.New("the issuer's keys are unavailable") // whether the token is good cannot be told now
)

// Config says whose tokens are accepted.
type Config struct {
	Issuer    string   // equal to iss
	Audiences []string // one of them in aud
	KeysURL   string   // where the issuer's keys are: an https URL, an http URL on loopback, or a file path
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	config Config
	keys   *keySet
	parser *jwt.Parser
}

// Leeway is how far the issuer's clock may be from ours.
const Leeway = 60 * time.Second

const (
	maxToken   = 8 << 10 // bytes
	maxHeader  = 1 << 10 // bytes of the first segment
	maxKeyName = 128     // characters of kid
	maxID      = 255     // characters of sub and tid
)

// New returns a Verifier. The keys are fetched when the first token comes.
func New(config Config) *Verifier {
	return &Verifier{
		config: config,
		keys:   newKeySet(config.KeysURL),
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{"RS256"}), jwt.WithStrictDecoding(),
			jwt.WithIssuer(config.Issuer), jwt.WithAudience(config.Audiences...),
			jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(Leeway),
		),
	}
}

// User returns who the request's token speaks for: exactly one Authorization header with the Bearer scheme (RFC 6750) and a signed
// JWT (RFC 7519) of our issuer, for us, at this time. The error is one of this package's.
func (v *Verifier) User(ctx context.Context, header http.Header) (User, error) {
	token, err := bearer(header)
	if err != nil {
		return User{}, err
	}
	var c claims
	_, err = v.parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) {
		kid, err := keyName(token)
		if err != nil {
			return nil, err
		}
		return v.keys.get(ctx, kid)
	})
	switch {
	case err == nil:
		return User{ID: c.Subject, TenantID: c.TenantID, ObjectID: c.ObjectID}, nil
	case errors.Is(err, ErrKeysUnavailable):
		return User{}, err
	case errors.Is(err, jwt.ErrTokenExpired):
		return User{}, ErrExpired
	default:
		return User{}, ErrInvalidToken // the cause may quote the token
	}
}

// Challenge is the WWW-Authenticate header that belongs to an error (RFC 6750, section 3), or nothing.
func Challenge(err error) string {
	switch {
	case errors.Is(err, ErrNoToken):
		return `Bearer realm="api"`
	case errors.Is(err, ErrBadRequest):
		return `Bearer error="invalid_request"`
	case errors.Is(err, ErrExpired):
		return `Bearer error="invalid_token", error_description="The access token expired"`
	case errors.Is(err, ErrInvalidToken):
		return `Bearer error="invalid_token"`
	default:
		return ""
	}
}

var tokenAlphabet = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// bearer takes the token out of the header, and looks at nothing but its size and alphabet.
func bearer(header http.Header) (string, error) {
	values := header.Values("Authorization")
	if len(values) == 0 {
		return "", ErrNoToken
	}
	if len(values) > 1 {
		return "", ErrBadRequest
	}
	scheme, rest, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", ErrNoToken
	}
	token := strings.TrimLeft(rest, " ")
	if len(token) > maxToken || !tokenAlphabet.MatchString(token) {
		return "", ErrBadRequest
	}
	return token, nil
}

// keyName reads the kid from the token's header. Members that would change what the signature means, or name a key, are refused, as
// is everything else that our issuers do not send.
func keyName(token string) (string, error) {
	segment, _, _ := strings.Cut(token, ".")
	if len(segment) > maxHeader {
		return "", ErrInvalidToken
	}
	text, err := jwt.NewParser(jwt.WithStrictDecoding()).DecodeSegment(segment)
	if err != nil {
		return "", ErrInvalidToken
	}
	var h struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
		X5T       string `json:"x5t"`
	}
	if err := json.Unmarshal(text, &h, json.RejectUnknownMembers(true)); err != nil {
		return "", ErrInvalidToken
	}
	goodType := h.Type == "" || strings.EqualFold(h.Type, "JWT") || strings.EqualFold(h.Type, "at+jwt")
	if h.Algorithm != "RS256" || h.KeyID == "" || len(h.KeyID) > maxKeyName || !goodType {
		return "", ErrInvalidToken
	}
	return h.KeyID, nil
}

// claims are what we read of a token. Names match exactly, and none may appear twice.
type claims struct {
	jwt.RegisteredClaims
	TenantID string
	ObjectID string
}

// UnmarshalJSON reads the claims strictly, where encoding/json would take "SUB" for "sub" and the last of two.
func (c *claims) UnmarshalJSON(text []byte) error {
	var raw struct {
		Issuer    string    `json:"iss"`
		Audience  audiences `json:"aud"`
		Subject   string    `json:"sub"`
		TenantID  string    `json:"tid"`
		ObjectID  string    `json:"oid"`
		ExpiresAt int64     `json:"exp"`
		NotBefore int64     `json:"nbf"`
		IssuedAt  int64     `json:"iat"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return ErrInvalidToken
	}
	for _, seconds := range []int64{raw.ExpiresAt, raw.NotBefore, raw.IssuedAt} {
		if seconds < 0 || seconds > 1<<40 {
			return ErrInvalidToken
		}
	}
	if !goodID(raw.Subject) || !goodID(raw.TenantID) {
		return ErrInvalidToken
	}
	c.Issuer, c.Audience, c.Subject, c.TenantID, c.ObjectID =
		raw.Issuer, jwt.ClaimStrings(raw.Audience), raw.Subject, raw.TenantID, raw.ObjectID
	c.ExpiresAt, c.NotBefore, c.IssuedAt = date(raw.ExpiresAt), date(raw.NotBefore), date(raw.IssuedAt)
	return nil
}

// audiences is one string, or an array of them.
type audiences []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audiences) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		*a = audiences{""}
		return json.Unmarshal(text, &(*a)[0])
	}
	return json.Unmarshal(text, (*[]string)(a))
}

// date is a claim's time, or nil for a claim that is not there.
func date(seconds int64) *jwt.NumericDate {
	if seconds == 0 {
		return nil
	}
	return jwt.NewNumericDate(time.Unix(seconds, 0))
}

// goodID accepts printable ASCII without space, as OpenID Connect Core has sub.
func goodID(id string) bool {
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return id != "" && len(id) <= maxID
}
