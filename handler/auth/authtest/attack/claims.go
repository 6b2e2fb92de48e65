package attack

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"chatkeep/handler/auth/authtest"
)

// names tries names that a careless reader takes for another's.
func (a *attacks) names() {
	for name, members := range map[string]string{
		"sub": `"sub":"mallory"`, "sub, the same": `"sub":"alice"`, "sub, escaped": `"\u0073ub":"mallory"`, "tid": `"tid":"` + stranger + `"`,
		"aud": `"aud":"` + authtest.LocalAudience + `"`, "exp": `"exp":4102444800`, "iss": `"iss":"x"`, "scp": `"scp":"` + authtest.Scope + `"`,
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
	a.token(12, "only Tid", 401, invalidToken, a.good(map[string]any{"tid": nil, "Tid": authtest.LocalTenant}))
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
		"missing": nil, "null": null, "another": stranger, "empty": "", "a prefix": authtest.LocalAudience[:35], "with a suffix": authtest.LocalAudience + "0",
		"with a slash": authtest.LocalAudience + "/", "with a space": " " + authtest.LocalAudience, "a number": 1, "an object": map[string]any{},
		"an empty array": []string{}, "ours and a number": []any{authtest.LocalAudience, 1}, "another and ours": []string{"other", authtest.LocalAudience},
		"ours in an array": []string{authtest.LocalAudience}, "two in one": authtest.LocalAudience + " " + authtest.LocalAudience, "true": true,
	} {
		a.token(17, "aud "+name, 401, invalidToken, a.good(map[string]any{"aud": aud}))
	}
	a.token(18, "a token for Graph", 401, invalidToken, a.good(map[string]any{"aud": "00000003-0000-0000-c000-000000000000"}))
	a.token(18, "aud as in v1.0", 401, invalidToken, a.good(map[string]any{"aud": "api://" + authtest.LocalAudience}))
	a.token(18, "a v1.0 token", 401, invalidToken, a.good(map[string]any{
		"ver": "1.0", "iss": "https://sts.windows.net/" + authtest.LocalTenant + "/", "aud": "api://" + authtest.LocalAudience, "azp": nil, "appid": authtest.LocalClient,
	}))
	for name, ver := range map[string]any{"1.0": "1.0", "a number": 2.0, "missing": nil, "3.0": "3.0"} {
		a.token(18, "ver "+name, 401, invalidToken, a.good(map[string]any{"ver": ver}))
	}

	for name, iss := range map[string]any{
		"missing": nil, "null": null, "empty": "", "a number": 1, "an array": []string{issuerOf(authtest.LocalTenant)},
		"with a slash at the end": issuerOf(authtest.LocalTenant) + "/",
		"as in v1.0":              "https://sts.windows.net/" + authtest.LocalTenant + "/",
		"over http":               "http://login.microsoftonline.com/" + authtest.LocalTenant + "/v2.0",
		"at a longer host":        "https://login.microsoftonline.com.evil.example/" + authtest.LocalTenant + "/v2.0",
		"with a user name":        "https://login.microsoftonline.com@evil.example/" + authtest.LocalTenant + "/v2.0",
		"of another cloud":        "https://login.microsoftonline.us/" + authtest.LocalTenant + "/v2.0",
		"at an upper-case host":   "https://LOGIN.microsoftonline.com/" + authtest.LocalTenant + "/v2.0",
		"with a port":             "https://login.microsoftonline.com:443/" + authtest.LocalTenant + "/v2.0",
		"with a double slash":     "https://login.microsoftonline.com//" + authtest.LocalTenant + "/v2.0",
		"the template itself":     entra,
		"with a query":            issuerOf(authtest.LocalTenant) + "?",
	} {
		a.token(19, "iss "+name, 401, invalidToken, a.good(map[string]any{"iss": iss}))
	}

	a.token(20, "iss of another tenant than tid", 401, invalidToken, a.good(map[string]any{"iss": issuerOf(stranger)}))
	a.token(20, "tid of another tenant than iss", 401, invalidToken,
		a.good(map[string]any{"iss": issuerOf(authtest.LocalTenant), "tid": stranger}))
	a.token(20, "a tenant that is not allowed", 401, invalidToken, a.i.Token(stranger, user, nil))
	a.token(20, "tid missing", 401, invalidToken, a.good(map[string]any{"tid": nil}))
	a.token(20, "tid null", 401, invalidToken, a.good(map[string]any{"tid": null}))
	a.token(20, "tid a number", 401, invalidToken, a.good(map[string]any{"tid": 1}))
	for _, tid := range []string{
		"common", "organizations", "", "{tenantid}", "*", "contoso.com", strings.ToUpper(authtest.LocalTenant), "{" + authtest.LocalTenant + "}", authtest.LocalTenant[:33],
		authtest.LocalTenant + "\n", " " + authtest.LocalTenant, strings.ReplaceAll(authtest.LocalTenant, "-", ""), authtest.LocalTenant + "/" + authtest.LocalTenant, "../" + authtest.LocalTenant,
	} {
		a.token(20, "tid "+strconv.Quote(tid), 401, invalidToken, a.i.Token(tid, user, nil))
	}

	for name, other := range map[string]*authtest.Issuer{"the consumer tenant": a.consumer, "another tenant": a.neighbour} {
		header := text(map[string]any{"alg": "RS256", "kid": other.KeyID(), "typ": "JWT"})
		a.token(21, "a token of ours signed by "+name, 401, invalidToken, other.Sign(header, a.payload()))
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
		a.token(22, "sub with "+name, 401, invalidToken, a.i.Token(authtest.LocalTenant, sub, nil))
	}
	a.token(22, "sub of 1 MB", 400, invalidRequest, a.i.Token(authtest.LocalTenant, strings.Repeat("s", 1_000_000), nil))
	for name, sub := range map[string]string{
		"invalid UTF-8": "alice\xff", "an overlong character": "alice\xc0\xaf", "half a surrogate": `alice\ud800`, "an unescaped newline": "alice\n",
	} {
		payload := strings.Replace(a.payload(), `"sub":"alice"`, `"sub":"`+sub+`"`, 1)
		a.token(22, "sub with "+name, 401, invalidToken, a.i.Sign(text(a.header()), payload))
	}
	for name, payload := range map[string]string{
		"null": "null", "an array": "[]", "a string": `"alice"`, "nothing": "", "cut off": strings.TrimSuffix(a.payload(), "}"),
		"trailing data": a.payload() + a.payload(), "an empty object": "{}", "not JSON": "alice", "deeply nested": strings.Repeat("[", 5000),
	} {
		a.token(22, "claims that are "+name, 401, invalidToken, a.i.Sign(text(a.header()), payload))
	}

	for _, sub := range []string{
		"a}:{b", "{", "}", ":", "*", "?", "|", "/", "..", "%00", "alice}", "{alice}", "'", `"`, `\`, "<b>", "null", strings.Repeat("s", 255),
	} {
		a.add(Attack{Row: 23, Name: "sub " + sub, Header: withToken(a.i.Token(authtest.LocalTenant, sub, nil)), Status: 200, Subject: sub})
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
	a.token(25, "roles without scp", 403, insufficientScope, a.good(map[string]any{"scp": nil, "roles": []string{authtest.Scope}}))
	a.token(25, "an application's token with our scope", 403, insufficientScope, a.good(map[string]any{"idtyp": "app"}))
	for _, scp := range []string{
		"User.Read", authtest.Scope + "_evil", "not_" + authtest.Scope, strings.ToUpper(authtest.Scope), authtest.Scope + ",openid", authtest.Scope + "\topenid", "access as user",
	} {
		a.token(25, "scp "+strconv.Quote(scp), 403, insufficientScope, a.good(map[string]any{"scp": scp}))
	}
	a.token(25, "an ID token", 401, invalidToken, a.good(map[string]any{"scp": nil, "nonce": "n"}))
	a.token(25, "an ID token with an empty scp", 401, invalidToken, a.good(map[string]any{"scp": ""}))
	a.token(25, "scp an array", 401, invalidToken, a.good(map[string]any{"scp": []string{authtest.Scope}}))
	a.token(25, "roles a string", 401, invalidToken, a.good(map[string]any{"roles": authtest.Scope}))
	a.token(25, "our scope among others", 200, "", a.good(map[string]any{"scp": "openid " + authtest.Scope + " profile"}))
	a.token(25, "a user with roles", 200, "", a.good(map[string]any{"roles": []string{"admin"}, "idtyp": "user"}))
	a.token(25, "the scope of another audience's expired token", 401, invalidToken,
		a.good(map[string]any{"aud": stranger, "exp": 1, "scp": "x"}))
}
