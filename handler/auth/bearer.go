package auth

import (
	"net/http"
	"strings"
)

// longestToken is far above Entra's tokens, which have 1 to 2 KiB.
const longestToken = 8 << 10

// bearer returns the one token that the request brings (RFC 6750 §2.1), in the characters of a JWS but otherwise unread.
func bearer(h http.Header) (string, error) {
	values := h.Values("Authorization")
	switch {
	case len(values) == 0:
		return "", ErrNoToken
	case len(values) > 1:
		return "", refuse(ErrBadRequest, "more than one Authorization header")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", refuse(ErrNoToken, "another scheme than Bearer")
	}
	token = strings.TrimLeft(token, " ")
	switch {
	case token == "":
		return "", refuse(ErrBadRequest, "Bearer without a token")
	case len(token) > longestToken:
		return "", refuse(ErrBadRequest, "the token is longer than 8 KiB")
	}
	for i := range len(token) {
		// A comma is how proxies join two headers.
		if !inJWS(token[i]) {
			return "", refuse(ErrBadRequest, "the token has characters that no JWT has")
		}
	}
	return token, nil
}

// inJWS reports whether c is base64url (RFC 4648 §5) or the dot between segments.
func inJWS(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}
