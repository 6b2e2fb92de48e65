package main

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/require"
)

// Two users speak to an agent of Copilot Studio through the host, each as that user, and the managed identity proves who we are.
func TestAnAgentOfCopilotStudioAnswers(t *testing.T) {
	var mu sync.Mutex
	var asked, proofs []string
	var refusal string // of exchanges
	refuse := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		refusal = text
	}
	identity := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Query().Get("resource"))
		_, _ = fmt.Fprintf(w, `{"access_token":"proof","expires_on":"%d","token_type":"Bearer"}`, time.Now().Add(24*time.Hour).Unix())
	}))
	defer identity.Close()
	entra := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := "https://" + r.Host + "/" + authtest.LocalTenant
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
			_, _ = fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q}`, at+"/v2.0", at+"/a", at+"/token")
			return
		}
		_ = r.ParseForm()
		mu.Lock()
		defer mu.Unlock()
		proofs = append(proofs, r.PostForm.Get("client_assertion"))
		if refusal != "" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, refusal)
			return
		}
		claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(r.PostForm.Get("assertion"), ".")[1])
		name := "bob"
		if strings.Contains(string(claims), `"sub":"alice"`) {
			name = "alice"
		}
		_, _ = fmt.Fprintf(w, `{"token_type":"Bearer","access_token":"for-%s","expires_in":3600,"scope":%q}`, name, r.PostForm.Get("scope"))
	}))
	defer entra.Close()
	studio := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer for-")
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("x-ms-conversationid", "of-"+name)
		_, _ = fmt.Fprintf(w, "event: activity\ndata: {\"type\":\"message\",\"text\":\"to %s at %s\"}\n\nevent: end\ndata: end\n\n", name, r.URL.Path)
	}))
	defer studio.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: entra.Certificate().Raw}), 0o600))

	d := deploy(t, "AGENT=copilotstudio", "COPILOTSTUDIO_DIRECT_URL="+studio.URL+"/bots/b", "COPILOTSTUDIO_CLOUD=Prod", "AZURE_AUTHORITY_HOST="+entra.URL,
		"SSL_CERT_FILE="+ca, "IDENTITY_ENDPOINT="+identity.URL+"/MSI/token", "IDENTITY_HEADER=secret")
	ids := map[string]string{}
	for _, user := range []string{"alice", "bob"} {
		started := d.must(201, "POST", "/api/chat/start", user, "")
		require.Equal(t, "to "+user+" at /bots/b/conversations", started.Messages[0].Text)
		ids[user] = started.ConversationID
	}
	for _, user := range []string{"bob", "alice", "bob"} {
		sent := d.must(200, "POST", "/api/chat/send", user, said(ids[user], "Hello"))
		require.Equal(t, "to "+user+" at /bots/b/conversations/of-"+user, sent.Messages[0].Text)
	}
	d.must(404, "POST", "/api/chat/send", "bob", said(ids["alice"], "Hello"))

	const claims = `{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`
	refuse(fmt.Sprintf(`{"error":"interaction_required","error_codes":[50076],"claims":%q}`, claims))
	refused := d.must(401, "POST", "/api/chat/send", "alice", said(ids["alice"], "Hello again"))
	require.Equal(t, "insufficient_claims", refused.Code)
	require.Equal(t, `Bearer error="insufficient_claims", claims="`+base64.StdEncoding.EncodeToString([]byte(claims))+`"`, refused.header.Get("WWW-Authenticate"))
	refuse(`{"error":"invalid_grant","suberror":"consent_required","error_codes":[65001]}`)
	require.Equal(t, "consent_required", d.must(403, "POST", "/api/chat/start", "bob", "").Code)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []string{"api://AzureADTokenExchange"}, asked)
	require.Equal(t, "proof", proofs[0])
}
