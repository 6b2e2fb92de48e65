package agent

import (
	"container/list"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/logs"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// OnBehalfOfConfig is who we are to Entra ID, and what we ask for. One of Secret, Certificates and Assertion proves who we are.
type OnBehalfOfConfig struct {
	ClientID     string // of the app registration that callers' tokens are for
	Secret       chat.Secret
	Certificates []*x509.Certificate // with Key; the first is its own
	Key          crypto.PrivateKey
	Assertion    func(context.Context) (string, error) // a token of a managed identity that the registration trusts

	Authority string // such as https://login.microsoftonline.com/
	Scope     string
	Transport policy.Transporter // nil: azcore's own
}

// OnBehalfOf exchanges callers' tokens for tokens with which we act for them at another API. It is safe for concurrent use. It remembers the
// last maxExchanges tokens, none longer than the caller's own is valid.
type OnBehalfOf struct {
	cfg OnBehalfOfConfig

	mu     sync.Mutex
	byHash map[assertionHash]*list.Element // of *exchange
	newest list.List                       // the one used last in front
}

const (
	maxExchanges     = 10_000
	exchangeTime     = 10 * time.Second // for one, before the agent is asked at all
	leastTokenTime   = 5 * time.Minute  // that a token must be good for; a turn takes less
	entraTokenErrors = 64 << 10         // bytes of a refusal that are read
)

// assertionHash names a caller's token, which is not kept.
type assertionHash [sha256.Size]byte

// exchange is what one caller's token is exchanged for.
type exchange struct {
	hash  assertionHash
	until time.Time     // the caller's token is valid
	busy  chan struct{} // holds a value while somebody has the fields below
	token chat.Secret
	good  time.Time // until then the token is used
}

// NewOnBehalfOf returns an OnBehalfOf, or what is wrong with its certificate or authority. It asks nobody yet.
func NewOnBehalfOf(cfg OnBehalfOfConfig) (*OnBehalfOf, error) {
	o := &OnBehalfOf{cfg: cfg, byHash: map[assertionHash]*list.Element{}}
	_, err := o.credential("common", "none")
	return o, err
}

// credential is of one caller. Its own retries are off: a turn has little time, and its caller may try again.
func (o *OnBehalfOf) credential(tenantID, assertion string) (*azidentity.OnBehalfOfCredential, error) {
	options := &azidentity.OnBehalfOfCredentialOptions{
		ClientOptions: azcore.ClientOptions{
			Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: o.cfg.Authority},
			Retry:     policy.RetryOptions{MaxRetries: -1},
			Transport: o.cfg.Transport,
		},
		DisableInstanceDiscovery: true, // the operator says who the authority is
	}
	switch {
	case o.cfg.Secret != "":
		return azidentity.NewOnBehalfOfCredentialWithSecret(tenantID, o.cfg.ClientID, assertion, string(o.cfg.Secret), options)
	case len(o.cfg.Certificates) > 0:
		return azidentity.NewOnBehalfOfCredentialWithCertificate(tenantID, o.cfg.ClientID, assertion, o.cfg.Certificates, o.cfg.Key, options)
	default:
		return azidentity.NewOnBehalfOfCredentialWithClientAssertions(tenantID, o.cfg.ClientID, assertion, o.cfg.Assertion, options)
	}
}

// tokenFor returns a token with which we act for the caller. Calls for the same caller's token wait for each other, so that one exchange
// serves all. Its errors are failures of a turn.
func (o *OnBehalfOf) tokenFor(ctx context.Context, caller chat.Caller) (chat.Secret, error) {
	exp, isUser, err := readAssertion(caller.Token)
	switch {
	case err != nil:
		return "", failed("the caller's token", err)
	case !isUser:
		return "", &chat.Failure{Code: chat.ErrAgentForbidden.Code, Err: errors.New("the caller is an application, not a user")}
	}
	x := o.exchangeOf(sha256.Sum256([]byte(caller.Token)), exp)
	ctx, cancel := context.WithTimeoutCause(ctx, exchangeTime, chat.ErrAgentTimeout)
	defer cancel()
	select {
	case x.busy <- struct{}{}:
		defer func() { <-x.busy }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if time.Now().Before(x.good) {
		return x.token, nil
	}
	credential, err := o.credential(caller.Owner.TenantID, string(caller.Token))
	if err != nil {
		return "", failed("on behalf of", err)
	}
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{o.cfg.Scope}})
	if err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", exchangeFailure(err)
	}
	x.token, x.good = chat.Secret(token.Token), token.ExpiresOn.Add(-leastTokenTime)
	if x.until.Before(x.good) {
		x.good = x.until
	}
	return x.token, nil
}

// forget drops the token that the caller's was exchanged for: the agent does not take it.
func (o *OnBehalfOf) forget(caller chat.Caller) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if element := o.byHash[sha256.Sum256([]byte(caller.Token))]; element != nil {
		o.drop(element)
	}
}

// exchangeOf finds the exchange of a caller's token, or makes it. Those that are over, and the one that was used longest ago, make room.
func (o *OnBehalfOf) exchangeOf(hash assertionHash, until time.Time) *exchange {
	o.mu.Lock()
	defer o.mu.Unlock()
	if element := o.byHash[hash]; element != nil {
		o.newest.MoveToFront(element)
		return element.Value.(*exchange)
	}
	for oldest := o.newest.Back(); oldest != nil; oldest = o.newest.Back() {
		if o.newest.Len() < maxExchanges && time.Now().Before(oldest.Value.(*exchange).until) {
			break
		}
		o.drop(oldest)
	}
	x := &exchange{hash: hash, until: until, busy: make(chan struct{}, 1)}
	o.byHash[hash] = o.newest.PushFront(x)
	return x
}

// drop forgets an exchange. The caller holds o.mu.
func (o *OnBehalfOf) drop(element *list.Element) {
	delete(o.byHash, o.newest.Remove(element).(*exchange).hash)
}

// readAssertion reads a caller's token, which was verified before: when it ends, and whether it is a user's.
func readAssertion(token chat.Secret) (exp time.Time, isUser bool, err error) {
	parts := strings.Split(string(token), ".")
	if len(parts) != 3 {
		return time.Time{}, false, errors.New("it is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false, errors.New("its payload is not base64url")
	}
	var claims struct {
		Exp   int64  `json:"exp"`
		Scp   string `json:"scp"`
		Idtyp string `json:"idtyp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return time.Time{}, false, errors.New("its payload is not an object of claims")
	}
	return time.Unix(claims.Exp, 0), claims.Scp != "" && claims.Idtyp != "app", nil
}

// refusal is Entra's, as far as it is read. The rest of it quotes the user.
type refusal struct {
	Error    string  `json:"error"`
	SubError string  `json:"suberror"`
	Codes    []int64 `json:"error_codes"` // of AADSTS
	Claims   string  `json:"claims"`      // JSON
}

// Codes of AADSTS.
var (
	noConsent  = []int64{65001, 65004, 90094, 90095}                // the user or an administrator must consent
	notAllowed = []int64{50105, 53003}                              // not assigned to the application; blocked by a policy
	signIn     = []int64{50132, 50133, 50173, 70043, 70044, 500133} // the session or the token is over
)

var entraWord = regexp.MustCompile(`^[a-z_]{1,40}$`)

// exchangeFailure says what to do after Entra's refusal. Its cause names codes alone: what else azidentity says may hold tokens and people's
// names.
func exchangeFailure(err error) error {
	failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err)
	if !ok || failed.RawResponse == nil {
		return &chat.Failure{Code: chat.ErrAgentFailed.Code, Err: logs.Because(logs.CauseOf(err), fmt.Errorf("on behalf of: no answer of Entra (%T)", rootOf(err)))}
	}
	response := failed.RawResponse
	var r refusal
	if body, err := runtime.Payload(response); err == nil && len(body) <= entraTokenErrors {
		_ = json.Unmarshal(body, &r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) // else the status says enough
	}
	f := &chat.Failure{Code: chat.ErrAgentFailed.Code, Err: logs.Because(logs.Auth, fmt.Errorf("on behalf of: %s", r.codes(response.StatusCode)))}
	has := func(codes []int64) bool {
		return slices.ContainsFunc(r.Codes, func(code int64) bool { return slices.Contains(codes, code) })
	}
	switch {
	case response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable:
		f.Code, f.RetryAfter = chat.ErrAgentBusy.Code, retryAfter(response.Header)
	case r.Claims != "":
		f.Code, f.Claims = chat.ErrInsufficientClaims.Code, base64.StdEncoding.EncodeToString([]byte(r.Claims))
	case r.Error == "consent_required" || r.SubError == "consent_required" || has(noConsent):
		f.Code = chat.ErrConsentRequired.Code
	case has(notAllowed):
		f.Code = chat.ErrAgentForbidden.Code
	case r.Error == "interaction_required" || has(signIn):
		f.Code = chat.ErrInsufficientClaims.Code
	}
	return f
}

// codes are the identifiers of a refusal.
func (r refusal) codes(status int) string {
	words := []string{strconv.Itoa(status)}
	for _, word := range []string{r.Error, r.SubError} {
		if entraWord.MatchString(word) {
			words = append(words, word)
		}
	}
	for _, code := range r.Codes[:min(len(r.Codes), 3)] {
		words = append(words, "AADSTS"+strconv.FormatInt(code, 10))
	}
	return strings.Join(words, " ")
}
