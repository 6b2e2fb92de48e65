package auth

import (
	"net/http"
	"strings"
)

// longestToken is in bytes. Entra's tokens have 1 to 2 KiB.
const longestToken = 8 << 10

// bearer returns the token that the request brings (RFC 6750 §2.1), in the characters of a JWS but otherwise unread.
func bearer(h http.Header) (string, error) {
	values := h.Values("Authorization")
	if len(values) == 0 {
		return "", ErrNoToken
	}
	// The Functions host joins header lines in this way (RFC 9110 §5.3). Two lines get the same answer with and without it.
	scheme, token, _ := strings.Cut(strings.Join(values, ", "), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", refuse(ErrNoToken, "another scheme than Bearer")
	}
	token = strings.TrimLeft(token, " ")
	switch {
	case token == "":
		return "", refuse(ErrBadRequest, "Bearer without a token")
	case strings.Contains(token, ","):
		return "", refuse(ErrInvalidToken, "more than one credential")
	case len(token) > longestToken:
		return "", refuse(ErrBadRequest, "the token is longer than 8 KiB")
	}
	if strings.TrimLeft(token, jwsCharacters) != "" {
		return "", refuse(ErrBadRequest, "the token has characters that no JWT has")
	}
	return token, nil
}

// jwsCharacters are those of base64url (RFC 4648 §5), and the dot between segments.
const jwsCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
