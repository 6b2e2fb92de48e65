// Package auth turns a bearer token into a user.
//
// It accepts delegated v2.0 access tokens of Entra ID, signed with RS256 by a key of the configured issuer, and nothing else. The user
// comes from the verified token alone, never from another header.
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

// Config says whose tokens are accepted. Nothing in it comes from a token.
type Config struct {
	// Issuer is the required iss. {tenantid} in it stands for the token's tid; then Tenants is required, and only keys with a member
	// issuer are used. An Issuer with a GUID in it names its tenant: tid must be that GUID.
	Issuer string
	// Audiences are the accepted aud: in most cases this API's client id alone.
	Audiences []string
	// KeysURL is where the issuer publishes its keys (RFC 7517): an https URL, an http URL on loopback, or the path of a file.
	KeysURL string
	// Tenants are the accepted tid. Empty means any that Issuer allows.
	Tenants []string
	// Scope is the scope that scp must contain.
	Scope string
	// Clients are the accepted azp. Empty means any.
	Clients []string
}

// Errors of Verifier.User. They may be wrapped with a reason, which is for the operator and not for the caller. A reason is constant
// text: no error contains any part of a token.
var (
	// ErrNoToken means that the request has no bearer token. It is a 401.
	ErrNoToken = errors.New("no bearer token")
	// ErrBadRequest means that the Authorization header is malformed. It is a 400.
	ErrBadRequest = errors.New("malformed Authorization header")
	// ErrInvalidToken means that the token is not valid here, or that there is more than one credential. It is a 401.
	ErrInvalidToken = errors.New("invalid token")
	// ErrExpired is an ErrInvalidToken: the token was valid and has expired.
	ErrExpired = fmt.Errorf("%w: expired", ErrInvalidToken)
	// ErrInsufficientScope means that the token is genuine, but lacks Config.Scope, is an application's, or was issued to a client that
	// is not accepted. It is a 403.
	ErrInsufficientScope = errors.New("insufficient scope")
	// ErrKeysUnavailable means that the signing key cannot be fetched now; the token may be valid. It is a 503.
	ErrKeysUnavailable = errors.New("signing keys unavailable")
	// ErrUnsearched is an ErrKeysUnavailable: other unknown kids have used up the fetches, so that none looks for this one now. A
	// stranger can cause it with every request, so it does not deserve a log line each time.
	ErrUnsearched = fmt.Errorf("%w: too many unknown kids", ErrKeysUnavailable)
)

// reason is why a token is refused. Only a constant converts to it implicitly, which keeps parts of a token out of errors.
type reason string

func refuse(kind error, why reason) error { return fmt.Errorf("%w: %s", kind, why) }

// leeway is how far the issuer's clock and ours may differ.
const leeway = 60 * time.Second

var (
	guid  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	named = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
)

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	cfg         Config
	namesTenant bool // cfg.Issuer contains a GUID
	keys        *keyStore
	dates       *jwt.Validator
	remembered  *rememberedTokens
}

// New returns a Verifier. It fetches the keys when the first token needs them.
func New(cfg Config, log *slog.Logger) *Verifier {
	return &Verifier{
		cfg:         cfg,
		namesTenant: named.MatchString(cfg.Issuer),
		keys:        newKeyStore(cfg.KeysURL, strings.Contains(cfg.Issuer, tenantID), log),
		dates: jwt.NewValidator(jwt.WithExpirationRequired(), jwt.WithNotBeforeRequired(), jwt.WithIssuedAt(),
			jwt.WithLeeway(leeway)),
		remembered: newRememberedTokens(),
	}
}

// Run refreshes the keys every hour until ctx ends, once a token has caused the first fetch.
func (v *Verifier) Run(ctx context.Context) { v.keys.run(ctx) }

// User returns the user named by the bearer token in h, or one of this package's errors. An accepted token is remembered for at most a
// minute, and never past its exp. User waits for the issuer only if it does not hold the signing key, and then at most 3 seconds.
func (v *Verifier) User(ctx context.Context, h http.Header) (User, error) {
	token, err := bearer(h)
	if err != nil {
		return User{}, err
	}
	// The set is loaded before the signing key, so that a token verified with an older set is never remembered for a newer one.
	now, set, digest := time.Now(), v.keys.set.Load(), v.remembered.digest(token)
	found, ok := v.remembered.get(digest, set, now)
	if !ok {
		if found, err = v.verify(ctx, token); err != nil {
			return User{}, err
		}
		v.remembered.put(digest, set, now, found)
	}
	user := found.user
	user.Token = token
	return user, nil
}

// verify makes all checks of a token.
func (v *Verifier) verify(ctx context.Context, token string) (verified, error) {
	payload, signer, err := v.verifyJWS(ctx, token)
	if err != nil {
		return verified{}, err
	}
	c, err := parseClaims(payload)
	if err != nil {
		return verified{}, err
	}
	if err := v.check(c, signer.key); err != nil {
		return verified{}, err
	}
	return verified{
		user:  User{ID: c.Sub, TenantID: c.Tid, ObjectID: c.Oid},
		from:  time.Unix(max(c.Nbf, c.Iat), 0).Add(-leeway),
		exp:   time.Unix(c.Exp, 0),
		until: signer.until,
	}, nil
}

// Challenge returns the WWW-Authenticate header (RFC 6750 §3) for an error of User, or "" for none. It does not say which check failed.
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

// check compares the claims of a token whose signature is valid with the configuration. The scope comes last, so that only a token for
// this API gets a 403.
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
		// A set that tenants share has keys of other issuers: the consumer tenant's must not sign for a company's users.
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
	case c.Scp == "": // an ID token can have our aud too
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

// tenantID stands for the tenant's id in an issuer, as Entra writes it.
const tenantID = "{tenantid}"

func expand(template, tenant string) string { return strings.ReplaceAll(template, tenantID, tenant) }
