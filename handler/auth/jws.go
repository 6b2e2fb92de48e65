package auth

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
)

// base64url is RFC 7515's: without padding, and with one way only to write a byte string.
var base64url = base64.RawURLEncoding.Strict()

const (
	longestHeader = 1 << 10 // in base64url
	longestKid    = 128
)

// header is all that a token's header may hold. Every other member would change how the token is to be read, or say where to find
// its key, which is not for a token to say.
type header struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	Typ string `json:"typ"`
	X5t string `json:"x5t"` // another name for kid in Entra's older tokens; not used
}

// verify checks the signature of a JWS in compact form (RFC 7515 §5.2), and returns the payload with the key that signed it.
// The payload is not looked at.
func (v *Verifier) verify(ctx context.Context, token string) ([]byte, key, error) {
	segments := strings.SplitN(token, ".", 4)
	if len(segments) != 3 {
		return nil, key{}, refuse(ErrInvalidToken, "not three segments")
	}
	head, body, tail := segments[0], segments[1], segments[2]
	h, err := parseHeader(head)
	if err != nil {
		return nil, key{}, err
	}
	payload, err := base64url.DecodeString(body)
	if err != nil {
		return nil, key{}, refuse(ErrInvalidToken, "the payload is not base64url")
	}
	signature, err := base64url.DecodeString(tail)
	if err != nil {
		return nil, key{}, refuse(ErrInvalidToken, "the signature is not base64url")
	}
	signer, err := v.keys.get(ctx, h.Kid)
	if err != nil {
		return nil, key{}, err
	}
	if err := jwt.SigningMethodRS256.Verify(token[:len(head)+1+len(body)], signature, signer.public); err != nil {
		return nil, key{}, refuse(ErrInvalidToken, "the signature is wrong")
	}
	return payload, signer, nil
}

// parseHeader reads the header before anything else is believed. Names are exact, and repeated ones refused (RFC 7515 §4).
func parseHeader(segment string) (header, error) {
	if len(segment) > longestHeader {
		return header{}, refuse(ErrInvalidToken, "the header is longer than 1 KiB")
	}
	text, err := base64url.DecodeString(segment)
	if err != nil {
		return header{}, refuse(ErrInvalidToken, "the header is not base64url")
	}
	var h header
	if err := json.Unmarshal(text, &h, json.RejectUnknownMembers(true)); err != nil {
		return header{}, refuse(ErrInvalidToken, "the header is not an object of alg, kid, typ and x5t")
	}
	switch {
	case h.Alg != "RS256":
		return header{}, refuse(ErrInvalidToken, "alg is not RS256")
	case h.Kid == "" || len(h.Kid) > longestKid:
		return header{}, refuse(ErrInvalidToken, "kid is missing or longer than 128 bytes")
	case h.Typ != "" && !strings.EqualFold(h.Typ, "JWT") && !strings.EqualFold(h.Typ, "at+jwt"):
		return header{}, refuse(ErrInvalidToken, "typ is not JWT or at+jwt")
	}
	return h, nil
}
