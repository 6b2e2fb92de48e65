// Package attack lists requests with forged, broken or odd credentials, each with the answer that it must get.
package attack

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"chatkeep/handler/auth/authtest"

	"github.com/golang-jwt/jwt/v5"
)

// Attack is one request and its answer.
type Attack struct {
	Row       int         // attacks of one kind have one number
	Name      string      // of the variant within the kind
	Header    http.Header // as the handler sees it; an HTTP client would trim or refuse some
	Status    int         // 200: the request is let in, as Subject of authtest.LocalTenant, whatever else the header says
	Challenge string      // WWW-Authenticate
	Subject   string
}

// The challenges of RFC 6750 §3.
const (
	noToken           = `Bearer realm="api"`
	invalidRequest    = `Bearer error="invalid_request"`
	invalidToken      = `Bearer error="invalid_token"`
	expired           = `Bearer error="invalid_token", error_description="The access token expired"`
	insufficientScope = `Bearer error="insufficient_scope", scope="` + authtest.Scope + `"`
)

const (
	entra     = "https://login.microsoftonline.com/{tenantid}/v2.0"
	consumers = "9188040d-6c67-4c5b-b112-36a304b66dad" // the tenant of personal accounts
	stranger  = "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee" // a tenant that is not allowed
	user      = "alice"
)

// All returns what someone tries who knows how JWT libraries go wrong, for an API that accepts tokens of the returned issuer (by its
// Name, which is a template), for its Audience, of authtest.LocalTenant alone, with authtest.Scope, from any client. The issuer's key
// set also has keys of other tenants, as Entra's has. A request to the trap, a URL, means that a token made the verifier fetch
// something.
func All(trap string) (*authtest.Issuer, []Attack) {
	key := authtest.NewKey()
	issuer := authtest.WithKey(key)
	issuer.Name = entra
	a := &attacks{i: issuer, key: key, attacker: authtest.New(), consumer: authtest.New(), neighbour: authtest.New()}
	a.consumer.Name, a.neighbour.Name = issuerOf(consumers), issuerOf(stranger)
	issuer.PublishKeyOf(a.consumer)
	issuer.PublishKeyOf(a.neighbour)

	a.algorithms()
	a.headers(trap)
	a.names()
	a.dates()
	a.claims()
	a.scopes()
	a.sizes()
	a.credentials()
	a.encodings()
	a.signatures()
	a.otherHeaders()
	return issuer, a.all
}

type attacks struct {
	i                             *authtest.Issuer
	key                           *rsa.PrivateKey  // the issuer's
	attacker, consumer, neighbour *authtest.Issuer // the keys of the last two are in the key set
	all                           []Attack
}

// token adds a request with a token.
func (a *attacks) token(row int, name string, status int, challenge, token string) {
	a.value(row, name, status, challenge, "Bearer "+token)
}

// value adds a request with these Authorization headers.
func (a *attacks) value(row int, name string, status int, challenge string, values ...string) {
	a.add(Attack{Row: row, Name: name, Header: http.Header{"Authorization": values}, Status: status, Challenge: challenge})
}

func (a *attacks) add(attack Attack) {
	if attack.Status == http.StatusOK && attack.Subject == "" {
		attack.Subject = user
	}
	a.all = append(a.all, attack)
}

// good is a genuine token with some claims changed.
func (a *attacks) good(changes map[string]any) string {
	return a.i.Token(authtest.LocalTenant, user, changes)
}

// header is the header of a genuine token.
func (a *attacks) header() map[string]any {
	return map[string]any{"typ": "JWT", "alg": "RS256", "kid": a.i.KeyID()}
}

// withHeader is a genuine token with some members of its header changed; the signature is valid.
func (a *attacks) withHeader(changes map[string]any) string {
	header := a.header()
	for name, value := range changes {
		if header[name] = value; value == nil {
			delete(header, name)
		}
	}
	return a.i.Sign(text(header), a.payload())
}

// payload is the claims of a genuine token, as JSON.
func (a *attacks) payload() string {
	_, rest, _ := strings.Cut(a.good(nil), ".")
	body, _, _ := strings.Cut(rest, ".")
	return decode(body)
}

// beside is a genuine token with more members in its claims, as text: a map could not repeat a name.
func (a *attacks) beside(members string) string {
	return a.i.Sign(text(a.header()), strings.TrimSuffix(a.payload(), "}")+","+members+"}")
}

// null is JSON's null, where nil would leave a claim out.
var null = json.RawMessage("null")

func issuerOf(tenant string) string { return strings.ReplaceAll(entra, "{tenantid}", tenant) }

func withToken(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// sign returns a token signed with any method.
func sign(method jwt.SigningMethod, key any, header, payload string) string {
	signed := encode([]byte(header)) + "." + encode([]byte(payload))
	signature, err := method.Sign(signed, key)
	if err != nil {
		panic(err) // the method and the key are ours
	}
	return signed + "." + encode(signature)
}

func encode(bytes []byte) string { return base64.RawURLEncoding.EncodeToString(bytes) }

func decode(segment string) string {
	bytes, err := base64.RawURLEncoding.DecodeString(segment)
	if err != nil {
		panic(err) // we have encoded it
	}
	return string(bytes)
}

func text(value any) string {
	bytes, err := json.Marshal(value)
	if err != nil {
		panic(err) // our values always encode
	}
	return string(bytes)
}
