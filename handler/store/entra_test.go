package store

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tokenLife is so short that the credential never answers from its memory; in Azure it is hours.
const tokenLife = 6 * time.Second

// identity is App Service's token endpoint, for a Redis that knows each token as a user's password until it expires.
type identity struct {
	t      *testing.T
	server *redistest.Server
	down   atomic.Bool

	mu      sync.Mutex
	issued  int
	expires time.Time // of the last token
	ends    sync.WaitGroup
}

func (i *identity) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	assert.Equal(i.t, "2019-08-01", query.Get("api-version"))
	assert.Equal(i.t, "https://redis.azure.com", query.Get("resource"))
	assert.Equal(i.t, "secret", r.Header.Get("X-Identity-Header"))
	if i.down.Load() {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.issued++
	user := fmt.Sprintf("object-%d", i.issued)
	token := "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"oid":%q}`, user)) + ".c2ln"
	i.expires = time.Now().Add(tokenLife)
	i.server.CLI("acl", "setuser", user, "on", "~*", "+@all", ">"+token)
	i.ends.Go(func() {
		time.Sleep(tokenLife)
		i.server.CLI("acl", "deluser", user) // ends the connections of this token, as Azure does
	})
	_, _ = fmt.Fprintf(w, `{"access_token":%q,"expires_on":"%d","resource":"https://redis.azure.com","token_type":"Bearer"}`,
		token, i.expires.Unix())
}

func TestRedisByManagedIdentity(t *testing.T) {
	server := redistest.StartTLS(t)
	source := &identity{t: t, server: server}
	endpoint := httptest.NewServer(source)
	t.Cleanup(endpoint.Close)
	t.Cleanup(source.ends.Wait)
	t.Setenv("IDENTITY_ENDPOINT", endpoint.URL+"/MSI/token")
	t.Setenv("IDENTITY_HEADER", "secret")
	credential, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
		ClientOptions: azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}},
	})
	require.NoError(t, err)
	w := &world{t: t, owner: someone(), Store: newRedis(t, connect(t, Connection{
		Addr: server.Addr, TLS: server.TLS, Credentials: EntraCredentials(credential, ""), Lifetime: 2 * time.Second,
	}), limits, time.Second)}
	id := w.start()

	var calls, failed atomic.Int64
	var lastFailure atomic.Pointer[error]
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				calls.Add(1)
				if _, _, err := w.Get(t.Context(), w.owner, id, page); err != nil {
					failed.Add(1)
					lastFailure.Store(&err)
				}
			}
		})
	}
	defer func() {
		close(stop)
		load.Wait()
	}()
	require.Never(t, func() bool { return failed.Load() > 0 }, 5*tokenLife/2, 50*time.Millisecond, "tokens that come and go")
	source.down.Store(true)
	source.mu.Lock()
	t.Logf("%d calls, %d tokens", calls.Load(), source.issued)
	require.Greater(t, source.issued, 10, "connections did not come and go")
	good := time.Until(source.expires) - 2*time.Second // expires_on has whole seconds
	source.mu.Unlock()
	require.Never(t, func() bool { return failed.Load() > 0 }, good, 20*time.Millisecond, "a token was still good")
	require.Eventually(t, func() bool { return failed.Load() > 10 }, 20*time.Second, 20*time.Millisecond)
	require.ErrorIs(t, *lastFailure.Load(), chat.ErrUnavailable)
	require.ErrorContains(t, *lastFailure.Load(), errNoToken.Error())

	source.down.Store(false)
	require.Eventually(t, func() bool {
		_, _, err := w.Get(t.Context(), w.owner, id, page)
		return err == nil
	}, 10*time.Second, 20*time.Millisecond, "it does not recover by itself")
}

func TestTheUserNameIsTheSettingOrTheTokensObjectID(t *testing.T) {
	name, err := objectID("e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"oid":"object"}`)) + ".x")
	require.NoError(t, err)
	require.Equal(t, "object", name)
	for _, token := range []string{"", "opaque", "a.!.c", "e30.e30.e30"} {
		_, err := objectID(token)
		require.ErrorIs(t, err, errNoToken)
	}
}
