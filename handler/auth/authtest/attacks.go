package authtest

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Attack is one request with forged, broken or odd credentials, and the answer that it must get.
type Attack struct {
	Row       int         // attacks of one kind have one number
	Name      string      // of the way within the kind
	Header    http.Header // as the handler is to see it; an HTTP client would trim or refuse some
	Status    int         // 200: the request is let in, as Subject of LocalTenant, whatever else the header says
	Challenge string      // WWW-Authenticate
	Subject   string
}

// The challenges of RFC 6750 §3.
const (
	noToken           = `Bearer realm="api"`
	invalidRequest    = `Bearer error="invalid_request"`
	invalidToken      = `Bearer error="invalid_token"`
	expired           = `Bearer error="invalid_token", error_description="The access token expired"`
	insufficientScope = `Bearer error="insufficient_scope", scope="` + Scope + `"`
)

const (
	entra     = "https://login.microsoftonline.com/{tenantid}/v2.0"
	consumers = "9188040d-6c67-4c5b-b112-36a304b66dad" // the tenant of personal accounts
	stranger  = "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee" // a tenant that is not allowed
	user      = "alice"
)

// Attacks returns what someone tries who knows how JWT libraries go wrong, for an API that accepts tokens of the returned issuer
// (by its Name, which is a template), for its Audience, of LocalTenant alone, with Scope, from any client. The issuer's key set also
// has keys of other tenants, as Entra's has. A request to the trap, an URL, means that a token has made the verifier fetch something.
func Attacks(trap string) (*Issuer, []Attack) {
	i := New()
	i.Name = entra
	a := &attacks{i: i, attacker: NewKey(), consumer: NewKey(), neighbour: NewKey()}
	i.publishForeign(&a.consumer.PublicKey, i.issuer(consumers))
	i.publishForeign(&a.neighbour.PublicKey, i.issuer(stranger))

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
	return i, a.all
}

type attacks struct {
	i                             *Issuer
	attacker, consumer, neighbour *rsa.PrivateKey // the last two are in the key set
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
func (a *attacks) good(changes map[string]any) string { return a.i.Token(LocalTenant, user, changes) }

// withHeader is a genuine token but for its header, in which members are changed; the signature is right.
func (a *attacks) withHeader(changes map[string]any) string {
	header := a.i.header()
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

// beside is a genuine token with more text in its claims: repeated names, which no map could hold, or other spellings.
func (a *attacks) beside(members string) string {
	return a.i.Sign(text(a.i.header()), strings.TrimSuffix(a.payload(), "}")+","+members+"}")
}

// null is JSON's null, where nil would leave a claim out.
var null = json.RawMessage("null")

func (a *attacks) algorithms() {
	for _, alg := range []string{"none", "None", "nOnE", "NONE", ""} {
		token := a.withHeader(map[string]any{"alg": alg})
		a.token(1, "alg "+alg+" with a signature", 401, invalidToken, token)
		a.token(1, "alg "+alg+" with an empty signature", 401, invalidToken, token[:strings.LastIndex(token, ".")+1])
		a.token(1, "alg "+alg+" with two segments", 401, invalidToken, token[:strings.LastIndex(token, ".")])
	}

	public := &a.i.signer().PublicKey
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err) // an RSA key always encodes
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(public)
	for name, secret := range map[string][]byte{
		"PEM, PKIX":    pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}),
		"PEM, PKCS #1": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		"DER, PKIX":    pkix, "DER, PKCS #1": pkcs1,
		"JWK, n as text": []byte(modulus(public)), "JWK, n as bytes": public.N.Bytes(),
	} {
		header := text(map[string]any{"alg": "HS256", "kid": a.i.KeyID(), "typ": "JWT"})
		a.token(2, "HS256 keyed with the public key: "+name, 401, invalidToken, sign(jwt.SigningMethodHS256, secret, header, a.payload()))
		a.token(2, "the same, labelled RS256: "+name, 401, invalidToken,
			sign(jwt.SigningMethodHS256, secret, text(a.i.header()), a.payload()))
	}

	for _, method := range []jwt.SigningMethod{
		jwt.SigningMethodPS256, jwt.SigningMethodPS384, jwt.SigningMethodPS512, jwt.SigningMethodRS384, jwt.SigningMethodRS512,
	} {
		header := text(map[string]any{"alg": method.Alg(), "kid": a.i.KeyID(), "typ": "JWT"})
		a.token(3, method.Alg()+" with the genuine key", 401, invalidToken, sign(method, a.i.signer(), header, a.payload()))
		a.token(3, method.Alg()+" labelled RS256", 401, invalidToken, sign(method, a.i.signer(), text(a.i.header()), a.payload()))
	}

	a.token(4, "alg missing", 401, invalidToken, a.withHeader(map[string]any{"alg": nil}))
	for name, alg := range map[string]any{
		"a number": 256, "lower-case": "rs256", "with a space": "RS256 ", "null": null, "an array": []string{"RS256"}, "ES256": "ES256",
	} {
		a.token(4, "alg "+name, 401, invalidToken, a.withHeader(map[string]any{"alg": alg}))
	}
}

func (a *attacks) headers(trap string) {
	kid := text(a.i.KeyID())
	for name, header := range map[string]string{
		"alg none, then RS256":   `{"alg":"none","alg":"RS256","kid":` + kid + `}`,
		"alg RS256, then none":   `{"alg":"RS256","alg":"none","kid":` + kid + `}`,
		"alg, escaped the 2nd":   `{"alg":"RS256","\u0061lg":"RS256","kid":` + kid + `}`,
		"kid wrong, then right":  `{"alg":"RS256","kid":"x","kid":` + kid + `}`,
		"kid the same, twice":    `{"alg":"RS256","kid":` + kid + `,"kid":` + kid + `}`,
		"Alg in another case":    `{"Alg":"RS256","kid":` + kid + `}`,
		"KID beside the kid":     `{"alg":"RS256","kid":` + kid + `,"KID":"x"}`,
		"trailing data":          `{"alg":"RS256","kid":` + kid + `} {}`,
		"an array":               `["RS256",` + kid + `]`,
		"null":                   `null`,
		"a string":               `"RS256"`,
		"nothing":                ``,
		"not JSON":               `{"alg":"RS256",kid:` + kid + `}`,
		"invalid UTF-8":          "{\"alg\":\"RS256\",\"kid\":" + kid + ",\"typ\":\"\xff\"}",
		"deeply nested":          strings.Repeat("[", 700),
		"deeply nested x5t":      `{"alg":"RS256","kid":` + kid + `,"x5t":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`,
		"a byte order mark":      "\xef\xbb\xbf" + `{"alg":"RS256","kid":` + kid + `}`,
		"more than 1 KiB of typ": `{"alg":"RS256","kid":` + kid + `,"typ":"` + strings.Repeat("x", 1024) + `"}`,
	} {
		a.token(5, "header with "+name, 401, invalidToken, a.i.Sign(header, a.payload()))
	}

	a.token(7, "kid missing", 401, invalidToken, a.withHeader(map[string]any{"kid": nil}))
	for name, kid := range map[string]any{
		"a path": "../../etc/passwd", "SQL": "' OR 1=1; DROP TABLE keys; --", "LDAP": "*)(uid=*))(|(uid=*", "CRLF": "a\r\nSet-Cookie: a=b",
		"a format": "%s%s%n", "a URL": trap, "a number": 1, "empty": "", "null": null, "an array": []string{a.i.KeyID()},
		"129 bytes": strings.Repeat("k", 129), "700 bytes": strings.Repeat("k", 700), "NUL": "\x00",
	} {
		a.token(7, "kid "+name, 401, invalidToken, a.withHeader(map[string]any{"kid": kid}))
	}
	a.token(7, "kid of 100 KB", 400, invalidRequest, a.withHeader(map[string]any{"kid": strings.Repeat("k", 100_000)}))

	own := publish(&a.attacker.PublicKey, a.i.Name)
	for name, value := range map[string]any{
		"jku": trap, "x5u": trap, "jwk": own, "x5c": []string{"MIIB"}, "JKU": trap, "x5t#S256": own.ID,
	} {
		a.token(8, name+" with a genuine signature", 401, invalidToken, a.withHeader(map[string]any{name: value}))
		for which, kid := range map[string]string{"our kid": a.i.KeyID(), "its own kid": own.ID} {
			header := text(map[string]any{"alg": "RS256", "kid": kid, name: value})
			a.token(8, name+" with the attacker's signature and "+which, 401, invalidToken,
				sign(jwt.SigningMethodRS256, a.attacker, header, a.payload()))
		}
	}
	a.token(8, "x5t, which names the key once more", 200, "", a.withHeader(map[string]any{"x5t": a.i.KeyID()}))

	for name, members := range map[string]map[string]any{
		"crit with an unknown name": {"crit": []string{"x"}, "x": 1}, "crit empty": {"crit": []string{}}, "crit null": {"crit": null},
		"b64 false": {"b64": false}, "b64 and crit": {"b64": false, "crit": []string{"b64"}}, "exp in the header": {"exp": 1},
	} {
		a.token(9, name, 401, invalidToken, a.withHeader(members))
	}

	for name, members := range map[string]map[string]any{
		"zip": {"zip": "DEF"}, "cty": {"cty": "JWT"}, "enc": {"enc": "A256GCM"},
		"typ secevent+jwt": {"typ": "secevent+jwt"}, "typ logout+jwt": {"typ": "logout+jwt"}, "typ JWE": {"typ": "JWE"}, "typ number": {"typ": 1},
	} {
		a.token(10, name, 401, invalidToken, a.withHeader(members))
	}
	for _, typ := range []any{"JWT", "jwt", "at+jwt", "AT+JWT", nil} {
		a.token(10, "typ as usual", 200, "", a.withHeader(map[string]any{"typ": typ}))
	}
	jwe := encode([]byte(`{"alg":"RSA-OAEP","enc":"A256GCM","kid":` + kid + `}`))
	a.token(10, "an encrypted token of five parts", 401, invalidToken, jwe+".QQ.QQ.QQ.QQ")
	parts := strings.Split(a.good(nil), ".")
	serialised := text(map[string]string{"protected": parts[0], "payload": parts[1], "signature": parts[2]})
	a.token(10, "JSON serialisation", 400, invalidRequest, serialised)
	a.token(10, "JSON serialisation in base64url", 401, invalidToken, encode([]byte(serialised)))
	a.token(10, "JSON serialisation as the payload", 401, invalidToken, a.i.Sign(text(a.i.header()), serialised))
	a.token(10, "a token in a token", 401, invalidToken, a.i.Sign(text(a.i.header()), text(a.good(nil))))
}

// names tries names that a careless reader takes for another's.
func (a *attacks) names() {
	for name, members := range map[string]string{
		"sub": `"sub":"mallory"`, "sub, the same": `"sub":"alice"`, "sub, escaped": `"\u0073ub":"mallory"`, "tid": `"tid":"` + stranger + `"`,
		"aud": `"aud":"` + LocalAudience + `"`, "exp": `"exp":4102444800`, "iss": `"iss":"x"`, "scp": `"scp":"` + Scope + `"`,
		"a claim nobody reads": `"x":1,"x":2`,
	} {
		a.token(11, name+" twice", 401, invalidToken, a.beside(members))
	}
	for name, members := range map[string]string{
		"SUB": `"SUB":"mallory"`, "Sub": `"Sub":"mallory"`, "sub with a long s": `"\u017fub":"mallory"`,
		"TID": `"TID":"` + stranger + `"`, "Exp": `"Exp":1`, "EXP": `"EXP":1`, "sub with a space": `"sub ":"mallory"`,
		"sub within an object": `"act":{"sub":"mallory"}`, "Scp": `"Scp":"x"`, "IdTyp": `"IdTyp":"app"`,
	} {
		a.token(12, name+" beside the real claim", 200, "", a.beside(members))
	}
	for _, name := range []string{"Sub", "SUB", "\u017fub", "sub\u200b"} {
		a.token(12, "only "+name, 401, invalidToken, a.good(map[string]any{"sub": nil, name: "mallory"}))
	}
	a.token(12, "only Tid", 401, invalidToken, a.good(map[string]any{"tid": nil, "Tid": LocalTenant}))
	a.token(12, "only Exp", 401, invalidToken, a.good(map[string]any{"exp": nil, "Exp": time.Now().Add(time.Hour).Unix()}))
}

func (a *attacks) dates() {
	now := time.Now()
	a.token(13, "expired an hour ago", 401, expired, a.good(map[string]any{"exp": now.Add(-time.Hour).Unix()}))
	a.token(13, "expired in 1970", 401, expired, a.good(map[string]any{"exp": 1}))
	a.token(14, "nbf in an hour", 401, invalidToken, a.good(map[string]any{"nbf": now.Add(time.Hour).Unix()}))
	a.token(15, "iat in an hour", 401, invalidToken, a.good(map[string]any{"iat": now.Add(time.Hour).Unix()}))
	for row, name := range map[int]string{13: "exp", 14: "nbf", 15: "iat"} {
		soon := strconv.FormatInt(now.Add(-time.Second).Unix(), 10)
		if name == "exp" {
			soon = strconv.FormatInt(now.Add(time.Hour).Unix(), 10)
		}
		for what, value := range map[string]any{
			"missing": nil, "zero": 0, "negative": -1, "null": null, "a string": soon, "text": "123",
			"a fraction": json.RawMessage(soon + ".5"), "with a point": json.RawMessage(soon + ".0"), "1e300": json.RawMessage("1e300"),
			"1e18": json.RawMessage("1e18"), "18 zeros": json.RawMessage("1000000000000000000"), "beyond 64 bits": json.RawMessage("18446744073709551617"),
			"true": true, "an array": []int64{now.Unix()}, "an object": map[string]int64{"exp": now.Unix()},
			"in an exponent": json.RawMessage("17e8"), "in milliseconds": now.UnixMilli() * 1000,
		} {
			a.token(row, name+" "+what, 401, invalidToken, a.good(map[string]any{name: value}))
		}
	}
}

func (a *attacks) claims() {
	for name, aud := range map[string]any{
		"missing": nil, "null": null, "another": stranger, "empty": "", "a prefix": LocalAudience[:35], "with a suffix": LocalAudience + "0",
		"with a slash": LocalAudience + "/", "with a space": " " + LocalAudience, "a number": 1, "an object": map[string]any{},
		"an empty array": []string{}, "ours and a number": []any{LocalAudience, 1}, "another and ours": []string{"other", LocalAudience},
		"ours in an array": []string{LocalAudience}, "two in one": LocalAudience + " " + LocalAudience, "true": true,
	} {
		a.token(17, "aud "+name, 401, invalidToken, a.good(map[string]any{"aud": aud}))
	}
	a.token(18, "a token for Graph", 401, invalidToken, a.good(map[string]any{"aud": "00000003-0000-0000-c000-000000000000"}))
	a.token(18, "aud as in v1.0", 401, invalidToken, a.good(map[string]any{"aud": "api://" + LocalAudience}))
	a.token(18, "a v1.0 token", 401, invalidToken, a.good(map[string]any{
		"ver": "1.0", "iss": "https://sts.windows.net/" + LocalTenant + "/", "aud": "api://" + LocalAudience, "azp": nil, "appid": LocalClient,
	}))
	for name, ver := range map[string]any{"1.0": "1.0", "a number": 2.0, "missing": nil, "3.0": "3.0"} {
		a.token(18, "ver "+name, 401, invalidToken, a.good(map[string]any{"ver": ver}))
	}

	for name, iss := range map[string]any{
		"missing": nil, "null": null, "empty": "", "a number": 1, "an array": []string{a.i.issuer(LocalTenant)},
		"with a slash at the end": a.i.issuer(LocalTenant) + "/",
		"as in v1.0":              "https://sts.windows.net/" + LocalTenant + "/",
		"over http":               "http://login.microsoftonline.com/" + LocalTenant + "/v2.0",
		"at a longer host":        "https://login.microsoftonline.com.evil.example/" + LocalTenant + "/v2.0",
		"with a user name":        "https://login.microsoftonline.com@evil.example/" + LocalTenant + "/v2.0",
		"of another cloud":        "https://login.microsoftonline.us/" + LocalTenant + "/v2.0",
		"at an upper-case host":   "https://LOGIN.microsoftonline.com/" + LocalTenant + "/v2.0",
		"with a port":             "https://login.microsoftonline.com:443/" + LocalTenant + "/v2.0",
		"with a double slash":     "https://login.microsoftonline.com//" + LocalTenant + "/v2.0",
		"the template itself":     entra,
		"with a query":            a.i.issuer(LocalTenant) + "?",
	} {
		a.token(19, "iss "+name, 401, invalidToken, a.good(map[string]any{"iss": iss}))
	}

	a.token(20, "iss of another tenant than tid", 401, invalidToken, a.good(map[string]any{"iss": a.i.issuer(stranger)}))
	a.token(20, "tid of another tenant than iss", 401, invalidToken,
		a.good(map[string]any{"iss": a.i.issuer(LocalTenant), "tid": stranger}))
	a.token(20, "a tenant that is not allowed", 401, invalidToken, a.i.Token(stranger, user, nil))
	a.token(20, "tid missing", 401, invalidToken, a.good(map[string]any{"tid": nil}))
	a.token(20, "tid null", 401, invalidToken, a.good(map[string]any{"tid": null}))
	a.token(20, "tid a number", 401, invalidToken, a.good(map[string]any{"tid": 1}))
	for _, tid := range []string{
		"common", "organizations", "", "{tenantid}", "*", "contoso.com", strings.ToUpper(LocalTenant), "{" + LocalTenant + "}", LocalTenant[:33],
		LocalTenant + "\n", " " + LocalTenant, strings.ReplaceAll(LocalTenant, "-", ""), LocalTenant + "/" + LocalTenant, "../" + LocalTenant,
	} {
		a.token(20, "tid "+strconv.Quote(tid), 401, invalidToken, a.i.Token(tid, user, nil))
	}

	for name, key := range map[string]*rsa.PrivateKey{"the consumer tenant": a.consumer, "another tenant": a.neighbour} {
		header := text(map[string]any{"alg": "RS256", "kid": keyID(&key.PublicKey), "typ": "JWT"})
		a.token(21, "a token of ours signed by "+name, 401, invalidToken, sign(jwt.SigningMethodRS256, key, header, a.payload()))
	}

	a.token(22, "sub missing", 401, invalidToken, a.good(map[string]any{"sub": nil}))
	for name, sub := range map[string]any{"a number": 1, "null": null, "an array": []string{user}, "an object": map[string]any{}, "true": true} {
		a.token(22, "sub "+name, 401, invalidToken, a.good(map[string]any{"sub": sub}))
	}
	for name, sub := range map[string]string{
		"empty": "", "256 characters": strings.Repeat("s", 256), "5000 characters": strings.Repeat("s", 5000), "NUL": "alice\x00", "CR": "alice\r",
		"CRLF": "alice\r\nX: y", "a space": "alice smith", "only a space": " ", "U+FFFD": "alice\ufffd", "a right-to-left mark": "alice\u200f",
		"DEL": "alice\x7f", "an umlaut": "älice", "a tab": "alice\t", "a zero-width space": "alice\u200b",
	} {
		a.token(22, "sub with "+name, 401, invalidToken, a.i.Token(LocalTenant, sub, nil))
	}
	a.token(22, "sub of 1 MB", 400, invalidRequest, a.i.Token(LocalTenant, strings.Repeat("s", 1_000_000), nil))
	for name, sub := range map[string]string{
		"invalid UTF-8": "alice\xff", "an overlong character": "alice\xc0\xaf", "half a surrogate": `alice\ud800`, "an unescaped newline": "alice\n",
	} {
		payload := strings.Replace(a.payload(), `"sub":"alice"`, `"sub":"`+sub+`"`, 1)
		a.token(22, "sub with "+name, 401, invalidToken, a.i.Sign(text(a.i.header()), payload))
	}
	for name, payload := range map[string]string{
		"null": "null", "an array": "[]", "a string": `"alice"`, "nothing": "", "cut off": strings.TrimSuffix(a.payload(), "}"),
		"trailing data": a.payload() + a.payload(), "an empty object": "{}", "not JSON": "alice", "deeply nested": strings.Repeat("[", 5000),
	} {
		a.token(22, "claims that are "+name, 401, invalidToken, a.i.Sign(text(a.i.header()), payload))
	}

	for _, sub := range []string{
		"a}:{b", "{", "}", ":", "*", "?", "|", "/", "..", "%00", "alice}", "{alice}", "'", `"`, `\`, "<b>", "null", strings.Repeat("s", 255),
	} {
		a.add(Attack{Row: 23, Name: "sub " + sub, Header: bearer(a.i.Token(LocalTenant, sub, nil)), Status: 200, Subject: sub})
	}

	for name, oid := range map[string]any{"a number": 1, "text": "alice", "upper-case": "ABCDEFAB-bbbb-cccc-dddd-eeeeeeeeeeee"} {
		a.token(23, "oid "+name, 401, invalidToken, a.good(map[string]any{"oid": oid}))
	}
	a.token(23, "oid missing, which Entra may leave out", 200, "", a.good(map[string]any{"oid": nil}))
}

func (a *attacks) scopes() {
	app := map[string]any{"scp": nil, "idtyp": "app", "roles": []string{"Chat.All"}}
	a.token(25, "an application's token", 403, insufficientScope, a.good(app))
	a.token(25, "an application's token without roles", 403, insufficientScope, a.good(map[string]any{"scp": nil, "idtyp": "app"}))
	a.token(25, "roles without scp", 403, insufficientScope, a.good(map[string]any{"scp": nil, "roles": []string{Scope}}))
	a.token(25, "an application's token with our scope", 403, insufficientScope, a.good(map[string]any{"idtyp": "app"}))
	for _, scp := range []string{
		"User.Read", Scope + "_evil", "not_" + Scope, strings.ToUpper(Scope), Scope + ",openid", Scope + "\topenid", "access as user",
	} {
		a.token(25, "scp "+strconv.Quote(scp), 403, insufficientScope, a.good(map[string]any{"scp": scp}))
	}
	a.token(25, "an ID token", 401, invalidToken, a.good(map[string]any{"scp": nil, "nonce": "n"}))
	a.token(25, "an ID token with an empty scp", 401, invalidToken, a.good(map[string]any{"scp": ""}))
	a.token(25, "scp an array", 401, invalidToken, a.good(map[string]any{"scp": []string{Scope}}))
	a.token(25, "roles a string", 401, invalidToken, a.good(map[string]any{"roles": Scope}))
	a.token(25, "our scope among others", 200, "", a.good(map[string]any{"scp": "openid " + Scope + " profile"}))
	a.token(25, "a user with roles", 200, "", a.good(map[string]any{"roles": []string{"admin"}, "idtyp": "user"}))
	a.token(25, "the scope of another audience's expired token", 401, invalidToken,
		a.good(map[string]any{"aud": stranger, "exp": 1, "scp": "x"}))
}

func (a *attacks) sizes() {
	filled := func(bytes int) string { // a genuine token of at least so many bytes
		return a.good(map[string]any{"padding": strings.Repeat("x", bytes*3/4)})
	}
	for name, token := range map[string]string{
		"8 KiB and a little": filled(8 << 10), "16 KiB": filled(16 << 10), "64 KiB": filled(64 << 10),
		"a header segment of 1 MB": strings.Repeat("A", 1<<20) + ".QQ.QQ",
		"a million dots":           strings.Repeat(".", 1_000_000),
		"8193 dots":                strings.Repeat(".", 8193),
		"depth 20,000":             a.i.Sign(text(a.i.header()), strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)),
		"50,000 claims":            a.beside(`"c":0` + strings.Repeat(`,"d":0`, 50_000)),
	} {
		a.token(26, name, 400, invalidRequest, token)
	}
	for name, token := range map[string]string{
		"8192 dots": strings.Repeat(".", 8192), "8192 letters": strings.Repeat("A", 8192), "one letter": "A", "one dot": ".", "two dots": "..",
		"three dots": "...", "a fourth segment": a.good(nil) + ".", "a segment before": "." + a.good(nil), "an UUID": LocalTenant,
	} {
		a.token(26, name, 401, invalidToken, token)
	}
	spaces := strings.Repeat(" ", 1024)
	a.token(26, "a header of more than 1 KiB", 401, invalidToken, a.i.Sign(spaces+text(a.i.header()), a.payload()))
	a.token(26, "a full 6 KiB", 200, "", filled(5<<10))
}

func (a *attacks) credentials() {
	token := a.good(nil)
	a.value(27, "two headers", 400, invalidRequest, "Bearer "+token, "Bearer "+a.i.Token(LocalTenant, "mallory", nil))
	a.value(27, "two equal headers", 400, invalidRequest, "Bearer "+token, "Bearer "+token)
	a.value(27, "a second header of another scheme", 400, invalidRequest, "Bearer "+token, "Basic YTpi")
	a.value(27, "an empty second header", 400, invalidRequest, "Bearer "+token, "")
	a.value(27, "two joined by a comma", 400, invalidRequest, "Bearer "+token+", Bearer "+token)
	a.value(27, "two joined by a comma alone", 400, invalidRequest, "Bearer "+token+",Bearer "+token)
	a.value(27, "a comma at the end", 400, invalidRequest, "Bearer "+token+",")
	a.value(27, "parameters after the token", 400, invalidRequest, "Bearer "+token+` realm="api"`)
	a.add(Attack{Row: 27, Name: "no header", Header: http.Header{}, Status: 401, Challenge: noToken})
	a.add(Attack{Row: 27, Name: "only Proxy-Authorization", Status: 401, Challenge: noToken,
		Header: http.Header{"Proxy-Authorization": {"Bearer " + token}}})
	a.add(Attack{Row: 27, Name: "only a cookie", Status: 401, Challenge: noToken,
		Header: http.Header{"Cookie": {"access_token=" + token + "; Authorization=Bearer " + token}}})
	both := bearer(token)
	both.Set("Proxy-Authorization", "Bearer "+a.i.Token(LocalTenant, "mallory", nil))
	both.Set("Cookie", "access_token="+a.i.Token(LocalTenant, "mallory", nil))
	a.add(Attack{Row: 27, Name: "other credentials beside the token", Header: both, Status: 200})

	for _, scheme := range []string{"bearer ", "BEARER ", "BeArEr ", "Bearer  ", "Bearer     "} {
		a.value(28, strconv.Quote(scheme), 200, "", scheme+token)
	}
	for name, value := range map[string]string{
		"alone": "Bearer", "with a space": "Bearer ", "with spaces": "Bearer   ", "a trailing space": "Bearer " + token + " ",
		"a trailing newline": "Bearer " + token + "\n", "a trailing CRLF": "Bearer " + token + "\r\n",
		"quoted": `Bearer "` + token + `"`, "in angle brackets": "Bearer <" + token + ">",
		"Bearer twice": "Bearer Bearer " + token, "a tab after a space": "Bearer \t" + token, "NUL": "Bearer " + token + "\x00",
		"a named token": "Bearer token=" + token, "a wide dot": "Bearer " + strings.ReplaceAll(token, ".", "。"),
	} {
		a.value(28, "Bearer "+name, 400, invalidRequest, value)
	}
	for name, value := range map[string]string{
		"Bearer and a tab": "Bearer\t" + token, "BearerX": "BearerX " + token, "BearerX at once": "Bearer" + token, "Basic": "Basic YTpi",
		"the token alone": token, "JWT": "JWT " + token, "Token": "Token " + token, "Bearer:": "Bearer: " + token, "DPoP": "DPoP " + token,
		"empty": "", "a space": " ", "a space before": " Bearer " + token, "Negotiate": "Negotiate YTpi", "a wide B": "Ｂearer " + token,
		"Digest": `Digest username="a", realm="b"`,
	} {
		a.value(28, name, 401, noToken, value)
	}
}

func (a *attacks) encodings() {
	token := a.good(nil)
	parts := strings.Split(token, ".")
	join := func(parts ...string) string { return strings.Join(parts, ".") }
	for name, token := range map[string]string{
		"padding at the end": token + "=", "padding in the header": join(parts[0]+"=", parts[1], parts[2]), "padding escaped": token + "%3D",
		"plus": join(parts[0], parts[1], "+"+parts[2][1:]), "slash": join(parts[0], parts[1], "/"+parts[2][1:]),
		"CR within": token[:20] + "\r" + token[20:], "LF within": token[:20] + "\n" + token[20:], "LF in the signature": token + "\n",
		"CRLF before a dot": join(parts[0]+"\r\n", parts[1], parts[2]), "a space within": token[:20] + " " + token[20:], "a tilde": token + "~",
	} {
		a.token(29, name, 400, invalidRequest, token)
	}
	for name, token := range map[string]string{
		"an empty header": join("", parts[1], parts[2]), "an empty payload": join(parts[0], "", parts[2]),
		"an empty signature":             join(parts[0], parts[1], ""),
		"trailing bits in the signature": token[:len(token)-1] + nextLetter(token[len(token)-1]),
		"one letter too many":            join(parts[0], parts[1], parts[2]+"AAA"), "a header of one letter": join("A", parts[1], parts[2]),
	} {
		a.token(29, name, 401, invalidToken, token)
	}
	header, payload := text(a.i.header()), a.payload() // made so long that their last letter has unused bits
	for len(header)%3 == 0 {
		header += " "
	}
	for len(payload)%3 == 0 {
		payload += " "
	}
	loose := func(text string) string { s := encode([]byte(text)); return s[:len(s)-1] + nextLetter(s[len(s)-1]) }
	a.token(29, "trailing bits in the header", 401, invalidToken, a.signText(loose(header)+"."+encode([]byte(payload))))
	a.token(29, "trailing bits in the payload", 401, invalidToken, a.signText(encode([]byte(header))+"."+loose(payload)))
	a.token(29, "the same without", 200, "", a.signText(encode([]byte(header))+"."+encode([]byte(payload))))
}

func (a *attacks) signatures() {
	token := a.good(nil)
	parts := strings.Split(token, ".")
	signed := parts[0] + "." + parts[1]
	signature := []byte(decode(parts[2]))
	changed := func(change func(s []byte) []byte) string {
		return signed + "." + encode(change(append([]byte(nil), signature...)))
	}
	for _, at := range []int{0, 1, 127, 254, 255} {
		a.token(31, "byte "+strconv.Itoa(at)+" flipped", 401, invalidToken, changed(func(s []byte) []byte { s[at] ^= 1; return s }))
	}
	a.token(31, "cut short", 401, invalidToken, changed(func(s []byte) []byte { return s[:255] }))
	a.token(31, "cut at the start", 401, invalidToken, changed(func(s []byte) []byte { return s[1:] }))
	a.token(31, "lengthened", 401, invalidToken, changed(func(s []byte) []byte { return append(s, 0) }))
	a.token(31, "lengthened at the start", 401, invalidToken, changed(func(s []byte) []byte { return append([]byte{0}, s...) }))
	a.token(31, "all zero", 401, invalidToken, changed(func([]byte) []byte { return make([]byte, 256) }))
	a.token(31, "of another payload", 401, invalidToken, strings.Join(strings.Split(a.i.Token(LocalTenant, "mallory", nil), ".")[:2], ".")+"."+parts[2])
	a.token(31, "of another header", 401, invalidToken, encode([]byte(text(a.i.header())+" "))+"."+parts[1]+"."+parts[2])
	a.token(31, "by the attacker", 401, invalidToken, sign(jwt.SigningMethodRS256, a.attacker, text(a.i.header()), a.payload()))
	a.token(31, "by another tenant's key under our kid", 401, invalidToken, sign(jwt.SigningMethodRS256, a.neighbour, text(a.i.header()), a.payload()))
	a.token(31, "by our key under another tenant's kid", 401, invalidToken,
		a.withHeader(map[string]any{"kid": keyID(&a.neighbour.PublicKey)}))

	// EMSA-PKCS1-v1_5 (RFC 8017 §9.2) has one right way to pad a digest.
	digest := sha256.Sum256([]byte(signed))
	prefix := []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}
	noNull := []byte{0x30, 0x2f, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x04, 0x20}
	right := append(append([]byte(nil), prefix...), digest[:]...)
	a.token(31, "padded by hand, rightly", 200, "", signed+"."+a.padded(1, 0xff, right, nil))
	a.token(31, "padded as for encryption", 401, invalidToken, signed+"."+a.padded(2, 0xff, right, nil))
	a.token(31, "padded with zeros", 401, invalidToken, signed+"."+a.padded(0, 0x00, right, nil))
	a.token(31, "padded with other bytes", 401, invalidToken, signed+"."+a.padded(1, 0xfe, right, nil))
	a.token(31, "a digest without its algorithm", 401, invalidToken, signed+"."+a.padded(1, 0xff, digest[:], nil))
	a.token(31, "an algorithm without NULL", 401, invalidToken, signed+"."+a.padded(1, 0xff, append(noNull, digest[:]...), nil))
	a.token(31, "bytes after the digest", 401, invalidToken, signed+"."+a.padded(1, 0xff, right, make([]byte, 100)))
}

// padded is a signature over 00 | kind | fill… | 00 | text | rest.
func (a *attacks) padded(kind, fill byte, text, rest []byte) string {
	block := make([]byte, 256)
	tail := append(append([]byte(nil), text...), rest...)
	copy(block[256-len(tail):], tail)
	block[1] = kind
	for at := 2; at < 255-len(tail); at++ {
		block[at] = fill
	}
	key := a.i.signer()
	return encode(new(big.Int).Exp(new(big.Int).SetBytes(block), key.D, key.N).FillBytes(make([]byte, 256)))
}

// signText signs header and payload as they are encoded already.
func (a *attacks) signText(signed string) string {
	signature, err := jwt.SigningMethodRS256.Sign(signed, a.i.signer())
	if err != nil {
		panic(err) // the key is ours
	}
	return signed + "." + encode(signature)
}

func (a *attacks) otherHeaders() {
	for name, value := range map[string]string{
		"X-Ms-Client-Principal":       "eyJhdXRoX3R5cCI6ImFhZCIsImNsYWltcyI6W3sidHlwIjoic3ViIiwidmFsIjoibWFsbG9yeSJ9XX0=",
		"X-Ms-Client-Principal-Id":    "mallory",
		"X-Ms-Client-Principal-Name":  "mallory",
		"X-Ms-Client-Principal-Idp":   "aad",
		"X-Ms-Token-Aad-Id-Token":     a.i.Token(LocalTenant, "mallory", nil),
		"X-Ms-Token-Aad-Access-Token": a.i.Token(LocalTenant, "mallory", nil),
		"X-Msft-Entra-Identity":       a.i.Token(LocalTenant, "mallory", nil),
		"X-Forwarded-User":            "mallory",
		"X-Forwarded-Authorization":   "Bearer " + a.i.Token(LocalTenant, "mallory", nil),
		"X-Original-Authorization":    "Bearer " + a.i.Token(LocalTenant, "mallory", nil),
		"X-Functions-Key":             "mallory",
	} {
		a.add(Attack{Row: 32, Name: name + " without a token", Header: http.Header{name: {value}}, Status: 401, Challenge: noToken})
		both := bearer(a.good(nil))
		both.Set(name, value)
		a.add(Attack{Row: 32, Name: name + " beside a token", Header: both, Status: 200})
	}
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// nextLetter returns the letter of base64url that differs from this one in its last bit.
func nextLetter(letter byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, letter)^1])
}

func decode(segment string) string {
	bytes, err := jwt.NewParser().DecodeSegment(segment)
	if err != nil {
		panic(err) // we have encoded it
	}
	return string(bytes)
}
