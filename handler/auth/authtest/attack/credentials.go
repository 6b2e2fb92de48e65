package attack

import (
	"net/http"
	"strconv"
	"strings"

	"chatkeep/handler/auth/authtest"
)

func (a *attacks) sizes() {
	filled := func(bytes int) string { // a genuine token of at least so many bytes
		return a.good(map[string]any{"padding": strings.Repeat("x", bytes*3/4)})
	}
	for name, token := range map[string]string{
		"8 KiB and a little": filled(8 << 10), "16 KiB": filled(16 << 10), "64 KiB": filled(64 << 10),
		"a header segment of 1 MB": strings.Repeat("A", 1<<20) + ".QQ.QQ",
		"a million dots":           strings.Repeat(".", 1_000_000),
		"8193 dots":                strings.Repeat(".", 8193),
		"depth 20,000":             a.i.Sign(text(a.header()), strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)),
		"50,000 claims":            a.beside(`"c":0` + strings.Repeat(`,"d":0`, 50_000)),
	} {
		a.token(26, name, 400, invalidRequest, token)
	}
	for name, token := range map[string]string{
		"8192 dots": strings.Repeat(".", 8192), "8192 letters": strings.Repeat("A", 8192), "one letter": "A", "one dot": ".", "two dots": "..",
		"three dots": "...", "a fourth segment": a.good(nil) + ".", "a segment before": "." + a.good(nil), "an UUID": authtest.LocalTenant,
	} {
		a.token(26, name, 401, invalidToken, token)
	}
	spaces := strings.Repeat(" ", 1024)
	a.token(26, "a header of more than 1 KiB", 401, invalidToken, a.i.Sign(spaces+text(a.header()), a.payload()))
	a.token(26, "a full 6 KiB", 200, "", filled(5<<10))
}

func (a *attacks) credentials() {
	token := a.good(nil)
	a.value(27, "two headers", 401, invalidToken, "Bearer "+token, "Bearer "+a.i.Token(authtest.LocalTenant, "mallory", nil))
	a.value(27, "two equal headers", 401, invalidToken, "Bearer "+token, "Bearer "+token)
	a.value(27, "three headers", 401, invalidToken, "Bearer "+token, "Bearer "+token, "Bearer "+token)
	a.value(27, "a second header of another scheme", 401, invalidToken, "Bearer "+token, "Basic YTpi")
	a.value(27, "a first header of another scheme", 401, noToken, "Basic YTpi", "Bearer "+token)
	a.value(27, "an empty second header", 401, invalidToken, "Bearer "+token, "")
	a.value(27, "an empty first header", 401, noToken, "", "Bearer "+token)
	a.value(27, "a first header without a token", 401, noToken, "Bearer", "Bearer "+token)
	a.value(27, "two headers of more than 8 KiB", 401, invalidToken, "Bearer "+token, "Bearer "+strings.Repeat("A", 8192))
	a.value(27, "two joined by a comma", 401, invalidToken, "Bearer "+token+", Bearer "+token)
	a.value(27, "two joined by a comma alone", 401, invalidToken, "Bearer "+token+",Bearer "+token)
	a.value(27, "two joined, the first of another scheme", 401, noToken, "Basic YTpi, Bearer "+token)
	a.value(27, "a comma at the end", 401, invalidToken, "Bearer "+token+",")
	a.value(27, "a comma at the start", 401, invalidToken, "Bearer ,"+token)
	a.value(27, "parameters after the token", 400, invalidRequest, "Bearer "+token+` realm="api"`)
	a.add(Attack{Row: 27, Name: "no header", Header: http.Header{}, Status: 401, Challenge: noToken})
	a.add(Attack{Row: 27, Name: "only Proxy-Authorization", Status: 401, Challenge: noToken,
		Header: http.Header{"Proxy-Authorization": {"Bearer " + token}}})
	a.add(Attack{Row: 27, Name: "only a cookie", Status: 401, Challenge: noToken,
		Header: http.Header{"Cookie": {"access_token=" + token + "; Authorization=Bearer " + token}}})
	both := withToken(token)
	both.Set("Proxy-Authorization", "Bearer "+a.i.Token(authtest.LocalTenant, "mallory", nil))
	both.Set("Cookie", "access_token="+a.i.Token(authtest.LocalTenant, "mallory", nil))
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

func (a *attacks) otherHeaders() {
	for name, value := range map[string]string{
		"X-Ms-Client-Principal":       "eyJhdXRoX3R5cCI6ImFhZCIsImNsYWltcyI6W3sidHlwIjoic3ViIiwidmFsIjoibWFsbG9yeSJ9XX0=",
		"X-Ms-Client-Principal-Id":    "mallory",
		"X-Ms-Client-Principal-Name":  "mallory",
		"X-Ms-Client-Principal-Idp":   "aad",
		"X-Ms-Token-Aad-Id-Token":     a.i.Token(authtest.LocalTenant, "mallory", nil),
		"X-Ms-Token-Aad-Access-Token": a.i.Token(authtest.LocalTenant, "mallory", nil),
		"X-Msft-Entra-Identity":       a.i.Token(authtest.LocalTenant, "mallory", nil),
		"X-Forwarded-User":            "mallory",
		"X-Forwarded-Authorization":   "Bearer " + a.i.Token(authtest.LocalTenant, "mallory", nil),
		"X-Original-Authorization":    "Bearer " + a.i.Token(authtest.LocalTenant, "mallory", nil),
		"X-Functions-Key":             "mallory",
	} {
		a.add(Attack{Row: 32, Name: name + " without a token", Header: http.Header{name: {value}}, Status: 401, Challenge: noToken})
		both := withToken(a.good(nil))
		both.Set(name, value)
		a.add(Attack{Row: 32, Name: name + " beside a token", Header: both, Status: 200})
	}
}
