package agent

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

const tenant = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

// entraServer plays Entra ID's token endpoint: it exchanges a user's token for "for " and the user's name.
type entraServer struct {
	*httptest.Server
	mu      sync.Mutex
	forms   []url.Values // of exchanges
	refusal func(w http.ResponseWriter, form url.Values) bool
}

func startEntra(t *testing.T) *entraServer {
	e := &entraServer{}
	e.Server = httptest.NewTLSServer(http.HandlerFunc(e.serve))
	t.Cleanup(e.Close)
	return e
}

func (e *entraServer) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	at := e.URL + "/" + tenant
	switch r.URL.Path {
	case "/" + tenant + "/v2.0/.well-known/openid-configuration":
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q}`, at+"/v2.0", at+"/a", at+"/oauth2/v2.0/token")
	case "/" + tenant + "/oauth2/v2.0/token":
		_ = r.ParseForm()
		e.mu.Lock()
		e.forms = append(e.forms, r.PostForm)
		refusal := e.refusal
		e.mu.Unlock()
		if refusal == nil || !refusal(w, r.PostForm) {
			_, _ = fmt.Fprintf(w, `{"token_type":"Bearer","access_token":%q,"expires_in":3600,"scope":%q}`,
				"for-"+nameOf(r.PostForm.Get("assertion")), r.PostForm.Get("scope"))
		}
	default:
		http.Error(w, `{"error":"invalid_tenant"}`, http.StatusBadRequest)
	}
}

func (e *entraServer) exchanges() []url.Values {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.forms
}

// onBehalfOf acts for callers, as the server allows.
func (e *entraServer) onBehalfOf(t *testing.T) *OnBehalfOf {
	o, err := NewOnBehalfOf(OnBehalfOfConfig{
		ClientID: "11111111-2222-3333-4444-555555555555", Secret: "s3cret", Authority: e.URL, Scope: "https://api.powerplatform.com/.default",
		Transport: e.Client(),
	})
	require.NoError(t, err)
	return o
}

// user is a caller who is signed in.
func user(name string) chat.Caller { return userUntil(name, time.Unix(4e9, 0)) }

func userUntil(name string, exp time.Time) chat.Caller {
	return callerWith(name, fmt.Sprintf(`{"sub":%q,"exp":%d,"scp":"access_as_user"}`, name, exp.Unix()))
}

func callerWith(name, claims string) chat.Caller {
	token := "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
	return chat.Caller{Owner: chat.Owner{TenantID: tenant, UserID: name}, ObjectID: name + "-object", Token: chat.Secret(token)}
}

// nameOf is whose token it is.
func nameOf(token string) string {
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	_, rest, _ := strings.Cut(string(payload), `"sub":"`)
	name, _, _ := strings.Cut(rest, `"`)
	return name
}

func TestTurnsOfAUserShareOneExchange(t *testing.T) {
	t.Parallel()
	entra := startEntra(t)
	o := entra.onBehalfOf(t)
	var all sync.WaitGroup
	tokens := make([]chat.Secret, 40)
	errs := make([]error, len(tokens))
	for i := range tokens {
		all.Go(func() {
			tokens[i], errs[i] = o.tokenFor(t.Context(), userUntil([]string{"ann", "bob"}[i%2], time.Unix(4e9, 0)))
		})
	}
	all.Wait()
	for i, token := range tokens {
		require.NoError(t, errs[i])
		require.Equal(t, []string{"for-ann", "for-bob"}[i%2], string(token))
	}
	require.Len(t, entra.exchanges(), 2)
	form := entra.exchanges()[0]
	require.Equal(t, "urn:ietf:params:oauth:grant-type:jwt-bearer", form.Get("grant_type"))
	require.Equal(t, "on_behalf_of", form.Get("requested_token_use"))
	require.Equal(t, "s3cret", form.Get("client_secret"))
	require.Equal(t, "11111111-2222-3333-4444-555555555555", form.Get("client_id"))
	require.Contains(t, strings.Fields(form.Get("scope")), "https://api.powerplatform.com/.default")

	o.forget(userUntil("ann", time.Unix(4e9, 0)))
	_, err := o.tokenFor(t.Context(), userUntil("ann", time.Unix(4e9, 0)))
	require.NoError(t, err)
	require.Len(t, entra.exchanges(), 3)
}

func TestATokenIsNotKeptLongerThanItsCallersOwn(t *testing.T) {
	t.Parallel()
	entra := startEntra(t)
	o := entra.onBehalfOf(t)
	past := userUntil("ann", time.Now().Add(-time.Second)) // within the leeway of its check
	for range 2 {
		_, err := o.tokenFor(t.Context(), past)
		require.NoError(t, err)
	}
	require.Len(t, entra.exchanges(), 2)
	require.Equal(t, 1, o.newest.Len())
	_, err := o.tokenFor(t.Context(), user("bob"))
	require.NoError(t, err)
	require.Equal(t, 1, o.newest.Len(), "what is over makes room")
	require.Len(t, o.byHash, 1)
}

func TestExchangesAreBounded(t *testing.T) {
	t.Parallel()
	o := startEntra(t).onBehalfOf(t)
	hash := func(i int) assertionHash { return assertionHash{byte(i), byte(i >> 8)} }
	for i := range maxExchanges {
		o.exchangeOf(hash(i), time.Unix(4e9, 0))
	}
	first := o.exchangeOf(hash(0), time.Unix(4e9, 0)) // used again
	o.exchangeOf(hash(maxExchanges), time.Unix(4e9, 0))
	require.Equal(t, maxExchanges, o.newest.Len())
	require.Len(t, o.byHash, maxExchanges)
	require.Same(t, first, o.exchangeOf(hash(0), time.Unix(4e9, 0)))
	require.NotContains(t, o.byHash, hash(1), "used longest ago")
}

func TestACallWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	entra := startEntra(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	entra.refusal = func(http.ResponseWriter, url.Values) bool {
		close(asked)
		<-answer
		return false
	}
	o := entra.onBehalfOf(t)
	caller := user("ann")
	var first sync.WaitGroup
	first.Go(func() { _, _ = o.tokenFor(t.Context(), caller) })
	<-asked
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(chat.ErrCancelled)
	_, err := o.tokenFor(ctx, caller)
	require.ErrorIs(t, err, chat.ErrCancelled)
	close(answer)
	first.Wait()
	require.Len(t, entra.exchanges(), 1)
}

func TestRefusalsOfEntra(t *testing.T) {
	t.Parallel()
	const claims = `{"access_token":{"capolids":{"essential":true,"values":["x"]}}}`
	for name, row := range map[string]struct {
		status int
		body   string
		want   *chat.Failure
		text   string
	}{
		"more claims": {
			400, fmt.Sprintf(`{"error":"interaction_required","error_codes":[50076],"claims":%q}`, claims),
			&chat.Failure{Code: "insufficient_claims", Claims: base64.StdEncoding.EncodeToString([]byte(claims))},
			"400 interaction_required AADSTS50076",
		},
		"interaction": {400, `{"error":"interaction_required"}`, &chat.Failure{Code: "insufficient_claims"}, "400 interaction_required"},
		"session over": {
			400, `{"error":"invalid_grant","error_codes":[50173]}`, &chat.Failure{Code: "insufficient_claims"}, "400 invalid_grant AADSTS50173",
		},
		"no consent": {
			400, `{"error":"invalid_grant","suberror":"consent_required","error_codes":[65001],"error_description":"Ann Example"}`, chat.ErrConsentRequired,
			"400 invalid_grant consent_required AADSTS65001",
		},
		"no consent, by its code": {400, `{"error":"interaction_required","error_codes":[65001]}`, chat.ErrConsentRequired, "AADSTS65001"},
		"not assigned":            {400, `{"error":"invalid_grant","error_codes":[50105]}`, chat.ErrAgentForbidden, "AADSTS50105"},
		"a bad secret":            {401, `{"error":"invalid_client","error_codes":[7000215]}`, chat.ErrAgentFailed, "401 invalid_client AADSTS7000215"},
		"an ill-formed grant":     {400, `{"error":"Ann Example"}`, chat.ErrAgentFailed, "on behalf of: 400"},
		"throttled":               {429, `{}`, &chat.Failure{Code: "agent_busy", RetryAfter: 7 * time.Second}, "429"},
		"down":                    {503, `nothing`, &chat.Failure{Code: "agent_busy", RetryAfter: 7 * time.Second}, "503"},
		"broken":                  {500, `Ann Example`, chat.ErrAgentFailed, "500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entra := startEntra(t)
			entra.refusal = func(w http.ResponseWriter, _ url.Values) bool {
				if row.status == 429 || row.status == 503 {
					w.Header().Set("Retry-After", "7")
				}
				w.WriteHeader(row.status)
				_, _ = w.Write([]byte(row.body))
				return true
			}
			caller := user("ann")
			_, err := entra.onBehalfOf(t).tokenFor(t.Context(), caller)
			failure, ok := errors.AsType[*chat.Failure](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, row.want.Code, failure.Code)
			require.Equal(t, row.want.Claims, failure.Claims)
			require.Equal(t, row.want.RetryAfter, failure.RetryAfter)
			require.Contains(t, err.Error(), row.text)
			for _, secret := range []string{"s3cret", string(caller.Token), "Ann Example"} {
				require.NotContains(t, err.Error(), secret)
			}
			require.Len(t, entra.exchanges(), 1, "not tried again")
		})
	}
}

// What an exchange answers that is no token, and what comes when there is no answer, is no text for a log.
func TestAnAnswerThatIsNoTokenIsNotQuoted(t *testing.T) {
	t.Parallel()
	entra := startEntra(t)
	entra.refusal = func(w http.ResponseWriter, _ url.Values) bool {
		_, _ = w.Write([]byte(`{"access_token":"t0ken"`))
		return true
	}
	_, err := entra.onBehalfOf(t).tokenFor(t.Context(), user("ann"))
	require.ErrorIs(t, err, chat.ErrAgentFailed)
	require.NotContains(t, err.Error(), "t0ken")
	entra.Close()
	_, err = entra.onBehalfOf(t).tokenFor(t.Context(), user("ann"))
	require.ErrorIs(t, err, chat.ErrAgentFailed)
}

func TestOnlyUsersAreActedFor(t *testing.T) {
	t.Parallel()
	entra := startEntra(t)
	o := entra.onBehalfOf(t)
	for name, row := range map[string]struct {
		token string
		want  error
	}{
		"an application":          {string(callerWith("app", `{"exp":4000000000,"roles":["a"]}`).Token), chat.ErrAgentForbidden},
		"an application, by type": {string(callerWith("app", `{"exp":4000000000,"scp":"a","idtyp":"app"}`).Token), chat.ErrAgentForbidden},
		"no token":                {"", chat.ErrAgentFailed},
		"not base64":              {"a.!.c", chat.ErrAgentFailed},
		"not JSON":                {"a.AAAA.c", chat.ErrAgentFailed},
	} {
		_, err := o.tokenFor(t.Context(), chat.Caller{Owner: chat.Owner{TenantID: tenant}, Token: chat.Secret(row.token)})
		require.ErrorIs(t, err, row.want, name)
	}
	require.Empty(t, entra.exchanges())
}

func TestAManagedIdentityProvesWhoWeAre(t *testing.T) {
	t.Parallel()
	entra := startEntra(t)
	cfg := entra.onBehalfOf(t).cfg
	cfg.Secret = ""
	cfg.Assertion = func(context.Context) (string, error) { return "by-identity", nil }
	o, err := NewOnBehalfOf(cfg)
	require.NoError(t, err)
	_, err = o.tokenFor(t.Context(), user("ann"))
	require.NoError(t, err)
	form := entra.exchanges()[0]
	require.Equal(t, "by-identity", form.Get("client_assertion"))
	require.Equal(t, "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", form.Get("client_assertion_type"))
	require.Empty(t, form.Get("client_secret"))

	cfg.Assertion = func(context.Context) (string, error) { return "", errors.New("no identity here") }
	o, err = NewOnBehalfOf(cfg)
	require.NoError(t, err)
	_, err = o.tokenFor(t.Context(), user("ann"))
	require.ErrorIs(t, err, chat.ErrAgentFailed)
}
