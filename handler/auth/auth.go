// Package auth turns a bearer token into a user.
//
// It lets in delegated users with a v2.0 access token of Entra ID, signed with RS256 by a key of the configured issuer, and nobody
// else. Who the user is comes from the verified token alone, never from any other header.
package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// User is who asks. ID and TenantID together name a user for ever; neither does so alone.
type User struct {
	ID       string // the claim sub: 1 to 255 printable ASCII characters without space
	TenantID string // the claim tid: a GUID in lower case
	ObjectID string // the claim oid: a GUID in lower case, or empty. For administrators; it is no key
}

// Config says whose tokens are accepted. Nothing in it is ever derived from a token.
type Config struct {
	// Issuer is what a token's iss must equal. With {tenantid} in it, it is a template in which the token's tid is put; then Tenants
	// is required, and of the keys only those are used that say themselves, in a member issuer, whose tokens they sign.
	// An issuer without {tenantid} but with a GUID names its tenant: tid must be that GUID.
	Issuer string
	// Audiences are the accepted aud: this API's client id, and no more in most cases.
	Audiences []string
	// KeysURL is where the issuer's keys (RFC 7517) are read: an https URL, an http URL on loopback, or a path of a file.
	KeysURL string
	// Tenants are the accepted tid. None with an exact Issuer means every tid that the issuer is consistent with.
	Tenants []string
	// Scope is what the user must have allowed the client to ask for: one of the words in scp.
	Scope string
	// Clients are the accepted azp; none means any.
	Clients []string
}

// Errors of User. Each may be wrapped with the reason, which is for the operator and not for the caller. It is constant text: no
// error holds anything of a token.
var (
	// ErrNoToken means that the request brings no bearer token. It is a 401.
	ErrNoToken = errors.New("no bearer token")
	// ErrBadRequest means that the Authorization header cannot be read. It is a 400.
	ErrBadRequest = errors.New("malformed Authorization header")
	// ErrInvalidToken means that the token is refused. It is a 401.
	ErrInvalidToken = errors.New("invalid token")
	// ErrExpired is the ErrInvalidToken of a token that was good once.
	ErrExpired = fmt.Errorf("%w: expired", ErrInvalidToken)
	// ErrInsufficientScope means that the token is genuine, but not for a user who allowed an accepted client Config.Scope. It is a 403.
	ErrInsufficientScope = errors.New("insufficient scope")
	// ErrKeysUnavailable means that the token may be good: the key to tell is not to be had now. It is a 503.
	ErrKeysUnavailable = errors.New("signing keys unavailable")
)

// reason is why a token is refused. The type keeps text of a token out of errors: only a constant becomes a reason by itself.
type reason string

func refuse(kind error, why reason) error { return fmt.Errorf("%w: %s", kind, why) }

// leeway is how far the clocks of issuer and host may differ.
const leeway = 60 * time.Second

var (
	guid  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	named = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
)

// Verifier tells users by their tokens. It is safe for concurrent use.
type Verifier struct {
	cfg         Config
	namesTenant bool // by a GUID in cfg.Issuer
	keys        *keyStore
	dates       *jwt.Validator
}

// New returns a Verifier. Keys are read when the first token needs them.
func New(cfg Config, log *slog.Logger) *Verifier {
	return &Verifier{
		cfg:         cfg,
		namesTenant: named.MatchString(cfg.Issuer),
		keys:        newKeyStore(cfg.KeysURL, strings.Contains(cfg.Issuer, tenantID), log),
		dates: jwt.NewValidator(jwt.WithExpirationRequired(), jwt.WithNotBeforeRequired(), jwt.WithIssuedAt(),
			jwt.WithLeeway(leeway)),
	}
}

// Run keeps the keys fresh until ctx ends: it reads them every hour, once a first token has needed them.
func (v *Verifier) Run(ctx context.Context) { v.keys.run(ctx) }

// User returns whom the bearer token in h names, or one of this package's errors. It waits for the issuer only when the key that
// signed the token is not at hand, and then at most 3 seconds.
func (v *Verifier) User(ctx context.Context, h http.Header) (User, error) {
	token, err := bearer(h)
	if err != nil {
		return User{}, err
	}
	payload, signer, err := v.verify(ctx, token)
	if err != nil {
		return User{}, err
	}
	c, err := parseClaims(payload)
	if err != nil {
		return User{}, err
	}
	if err := v.check(c, signer); err != nil {
		return User{}, err
	}
	return User{ID: c.Sub, TenantID: c.Tid, ObjectID: c.Oid}, nil
}

// Challenge is the WWW-Authenticate header (RFC 6750 §3) of the answer to an error of User, or empty for none. It never says which
// check failed.
func (v *Verifier) Challenge(err error) string {
	switch {
	case errors.Is(err, ErrNoToken):
		return `Bearer realm="api"`
	case errors.Is(err, ErrBadRequest):
		return `Bearer error="invalid_request"`
	case errors.Is(err, ErrExpired):
		return `Bearer error="invalid_token", error_description="The access token expired"`
	case errors.Is(err, ErrInvalidToken):
		return `Bearer error="invalid_token"`
	case errors.Is(err, ErrInsufficientScope):
		return `Bearer error="insufficient_scope", scope="` + v.cfg.Scope + `"`
	default:
		return ""
	}
}

// check holds the claims of a token, whose signature is good, against the configuration. What a token may do is asked last, so that
// only a token of ours hears about scopes.
func (v *Verifier) check(c claims, signer key) error {
	switch {
	case c.Ver != "2.0":
		return refuse(ErrInvalidToken, "ver is not 2.0")
	case !guid.MatchString(c.Tid):
		return refuse(ErrInvalidToken, "tid is not a GUID in lower case")
	case c.Iss != expand(v.cfg.Issuer, c.Tid):
		return refuse(ErrInvalidToken, "iss is not the configured issuer")
	case v.namesTenant && !strings.Contains(v.cfg.Issuer, c.Tid):
		return refuse(ErrInvalidToken, "tid is not the issuer's tenant")
	case len(v.cfg.Tenants) > 0 && !slices.Contains(v.cfg.Tenants, c.Tid):
		return refuse(ErrInvalidToken, "tid is not an allowed tenant")
	case signer.issuer != "" && c.Iss != expand(signer.issuer, c.Tid):
		// A set shared by tenants also holds keys of others: the consumer tenant's must not vouch for a company's users.
		return refuse(ErrInvalidToken, "the key belongs to another issuer")
	case !slices.Contains(v.cfg.Audiences, c.Aud):
		return refuse(ErrInvalidToken, "aud is not this API")
	case !validSubject(c.Sub):
		return refuse(ErrInvalidToken, "sub is missing or malformed")
	case c.Oid != "" && !guid.MatchString(c.Oid):
		return refuse(ErrInvalidToken, "oid is not a GUID in lower case")
	}
	if err := v.checkDates(c); err != nil {
		return err
	}
	switch {
	case c.Idtyp == "app", c.Scp == "" && len(c.Roles) > 0:
		return refuse(ErrInsufficientScope, "the token is an application's, not a user's")
	case c.Scp == "": // an ID token, which is no access token whatever its aud
		return refuse(ErrInvalidToken, "scp is missing")
	case !slices.Contains(strings.Split(c.Scp, " "), v.cfg.Scope):
		return refuse(ErrInsufficientScope, "scp lacks the required scope")
	case len(v.cfg.Clients) > 0 && !slices.Contains(v.cfg.Clients, c.Azp):
		return refuse(ErrInsufficientScope, "azp is not an allowed client")
	}
	return nil
}

func (v *Verifier) checkDates(c claims) error {
	for _, seconds := range []int64{c.Exp, c.Nbf, c.Iat} {
		if seconds <= 0 || seconds > lastDate {
			return refuse(ErrInvalidToken, "exp, nbf or iat is missing or out of range")
		}
	}
	err := v.dates.Validate(jwt.RegisteredClaims{ExpiresAt: date(c.Exp), NotBefore: date(c.Nbf), IssuedAt: date(c.Iat)})
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return ErrExpired
	case err != nil:
		return refuse(ErrInvalidToken, "nbf or iat is in the future")
	default:
		return nil
	}
}

func date(seconds int64) *jwt.NumericDate { return jwt.NewNumericDate(time.Unix(seconds, 0)) }

// tenantID is the place of a tenant's id in the template of an issuer, as Entra writes it.
const tenantID = "{tenantid}"

func expand(template, tenant string) string { return strings.ReplaceAll(template, tenantID, tenant) }
