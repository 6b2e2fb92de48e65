package auth

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
)

// base64url is unpadded and strict (RFC 7515 §2): a byte string has one encoding only.
var base64url = base64.RawURLEncoding.Strict()

const (
	longestHeader = 1 << 10 // in base64url
	longestKid    = 128
)

// header has the only members that are accepted. Any other could change how the token is read, or name a key that the sender chose.
type header struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	Typ string `json:"typ"`
	X5t string `json:"x5t"` // not used; Entra's v1.0 tokens have it
}

// verifyJWS checks the signature of a JWS in compact form (RFC 7515 §5.2). It returns the payload, unread, and the key that signed it.
func (v *Verifier) verifyJWS(ctx context.Context, token string) ([]byte, heldKey, error) {
	segments := strings.SplitN(token, ".", 4)
	if len(segments) != 3 {
		return nil, heldKey{}, refuse(ErrInvalidToken, "not three segments")
	}
	head, body, tail := segments[0], segments[1], segments[2]
	h, err := parseHeader(head)
	if err != nil {
		return nil, heldKey{}, err
	}
	payload, err := base64url.DecodeString(body)
	if err != nil {
		return nil, heldKey{}, refuse(ErrInvalidToken, "the payload is not base64url")
	}
	signature, err := base64url.DecodeString(tail)
	if err != nil {
		return nil, heldKey{}, refuse(ErrInvalidToken, "the signature is not base64url")
	}
	signer, err := v.keys.get(ctx, h.Kid)
	if err != nil {
		return nil, heldKey{}, err
	}
	if err := jwt.SigningMethodRS256.Verify(token[:len(head)+1+len(body)], signature, signer.public); err != nil {
		return nil, heldKey{}, refuse(ErrInvalidToken, "the signature is wrong")
	}
	return payload, signer, nil
}

// parseHeader decodes and checks a header. Names are case-sensitive, and a repeated name is an error (RFC 7515 §4).
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
