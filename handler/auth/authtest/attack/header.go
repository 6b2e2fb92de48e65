package attack

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strconv"
	"strings"

	"chatkeep/handler/auth/authtest"

	"github.com/golang-jwt/jwt/v5"
)

func (a *attacks) algorithms() {
	for _, alg := range []string{"none", "None", "nOnE", "NONE", ""} {
		token := a.withHeader(map[string]any{"alg": alg})
		a.token(1, "alg "+alg+" with a signature", 401, invalidToken, token)
		a.token(1, "alg "+alg+" with an empty signature", 401, invalidToken, token[:strings.LastIndex(token, ".")+1])
		a.token(1, "alg "+alg+" with two segments", 401, invalidToken, token[:strings.LastIndex(token, ".")])
	}

	public := &a.key.PublicKey
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err) // an RSA key always encodes
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(public)
	for name, secret := range map[string][]byte{
		"PEM, PKIX":    pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}),
		"PEM, PKCS #1": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		"DER, PKIX":    pkix, "DER, PKCS #1": pkcs1,
		"JWK, n as text": []byte(encode(public.N.Bytes())), "JWK, n as bytes": public.N.Bytes(),
	} {
		header := text(map[string]any{"alg": "HS256", "kid": a.i.KeyID(), "typ": "JWT"})
		a.token(2, "HS256 keyed with the public key: "+name, 401, invalidToken, sign(jwt.SigningMethodHS256, secret, header, a.payload()))
		a.token(2, "the same, labelled RS256: "+name, 401, invalidToken,
			sign(jwt.SigningMethodHS256, secret, text(a.header()), a.payload()))
	}

	for _, method := range []jwt.SigningMethod{
		jwt.SigningMethodPS256, jwt.SigningMethodPS384, jwt.SigningMethodPS512, jwt.SigningMethodRS384, jwt.SigningMethodRS512,
	} {
		header := text(map[string]any{"alg": method.Alg(), "kid": a.i.KeyID(), "typ": "JWT"})
		a.token(3, method.Alg()+" with the genuine key", 401, invalidToken, sign(method, a.key, header, a.payload()))
		a.token(3, method.Alg()+" labelled RS256", 401, invalidToken, sign(method, a.key, text(a.header()), a.payload()))
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
	for name, kid := range map[string]any{ // three of them well-formed: a verifier looks for no more at once
		"a path": "../../etc/passwd", "CRLF": "a\r\nSet-Cookie: a=b", "a URL": trap,
		"a number": 1, "empty": "", "null": null, "an array": []string{a.i.KeyID()},
		"129 bytes": strings.Repeat("k", 129), "700 bytes": strings.Repeat("k", 700),
	} {
		a.token(7, "kid "+name, 401, invalidToken, a.withHeader(map[string]any{"kid": kid}))
	}
	a.token(7, "kid of 100 KB", 400, invalidRequest, a.withHeader(map[string]any{"kid": strings.Repeat("k", 100_000)}))

	var own struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(a.attacker.KeySet(), &own); err != nil {
		panic(err) // a key set is JSON
	}
	for name, value := range map[string]any{
		"jku": trap, "x5u": trap, "jwk": own.Keys[0], "x5c": []string{"MIIB"}, "JKU": trap, "x5t#S256": a.attacker.KeyID(),
	} {
		a.token(8, name+" with a genuine signature", 401, invalidToken, a.withHeader(map[string]any{name: value}))
		for which, kid := range map[string]string{"our kid": a.i.KeyID(), "its own kid": a.attacker.KeyID()} {
			header := text(map[string]any{"alg": "RS256", "kid": kid, name: value})
			a.token(8, name+" with the attacker's signature and "+which, 401, invalidToken,
				a.attacker.Sign(header, a.payload()))
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
	a.token(10, "JSON serialisation", 401, invalidToken, serialised)
	a.token(10, "JSON serialisation in base64url", 401, invalidToken, encode([]byte(serialised)))
	a.token(10, "JSON serialisation as the payload", 401, invalidToken, a.i.Sign(text(a.header()), serialised))
	a.token(10, "a token in a token", 401, invalidToken, a.i.Sign(text(a.header()), text(a.good(nil))))
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
	header, payload := text(a.header()), a.payload() // made so long that their last letter has unused bits
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
	a.token(31, "of another payload", 401, invalidToken, strings.Join(strings.Split(a.i.Token(authtest.LocalTenant, "mallory", nil), ".")[:2], ".")+"."+parts[2])
	a.token(31, "of another header", 401, invalidToken, encode([]byte(text(a.header())+" "))+"."+parts[1]+"."+parts[2])
	a.token(31, "by the attacker", 401, invalidToken, a.attacker.Sign(text(a.header()), a.payload()))
	a.token(31, "by another tenant's key under our kid", 401, invalidToken, a.neighbour.Sign(text(a.header()), a.payload()))
	a.token(31, "by our key under another tenant's kid", 401, invalidToken,
		a.withHeader(map[string]any{"kid": a.neighbour.KeyID()}))

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
	key := a.key
	return encode(new(big.Int).Exp(new(big.Int).SetBytes(block), key.D, key.N).FillBytes(make([]byte, 256)))
}

// signText signs header and payload as they are encoded already.
func (a *attacks) signText(signed string) string {
	signature, err := jwt.SigningMethodRS256.Sign(signed, a.key)
	if err != nil {
		panic(err) // the key is ours
	}
	return signed + "." + encode(signature)
}

// nextLetter returns the letter of base64url that differs from this one in its last bit.
func nextLetter(letter byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, letter)^1])
}
