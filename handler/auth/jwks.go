package auth

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// key verifies the signatures of an issuer.
type key struct {
	public *rsa.PublicKey
	issuer string // whose tokens it signs, with {tenantid} for any tenant of the set; empty if the set does not say
}

// jwk is a published key (RFC 7517). The members after Issuer are those of private and symmetric keys.
type jwk struct {
	Kty    string   `json:"kty"`
	Kid    string   `json:"kid"`
	Use    string   `json:"use"`
	KeyOps []string `json:"key_ops"`
	Alg    string   `json:"alg"`
	N      string   `json:"n"`
	E      string   `json:"e"`
	Issuer string   `json:"issuer"`

	D   jsontext.Value `json:"d"`
	P   jsontext.Value `json:"p"`
	Q   jsontext.Value `json:"q"`
	DP  jsontext.Value `json:"dp"`
	DQ  jsontext.Value `json:"dq"`
	QI  jsontext.Value `json:"qi"`
	Oth jsontext.Value `json:"oth"`
	K   jsontext.Value `json:"k"`
}

// parseKeys returns the usable keys of a key set by kid. It skips keys of other kinds. A set without a usable key is an error, which
// says why the first key was skipped.
func parseKeys(document []byte, needIssuer bool) (map[string]key, error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, errors.New("not a JSON key set")
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("the key set is empty")
	}
	keys := make(map[string]key)
	seen := make(map[string]bool)
	var refused []error
	for _, text := range set.Keys {
		var published jwk
		if err := json.Unmarshal(text, &published); err != nil {
			refused = append(refused, errors.New("a member has a wrong type"))
			continue
		}
		if seen[published.Kid] { // a token could mean either
			delete(keys, published.Kid)
			refused = append(refused, errors.New("kid is repeated"))
			continue
		}
		seen[published.Kid] = true
		k, err := published.key()
		if err == nil && needIssuer && k.issuer == "" {
			err = errors.New("issuer is missing, which an issuer with " + tenantID + " needs")
		}
		if err != nil {
			refused = append(refused, err)
			continue
		}
		keys[published.Kid] = k
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("no usable key among %d: %w", len(set.Keys), refused[0])
	}
	return keys, nil
}

// key returns the key for RS256, or why the key is not usable.
func (j jwk) key() (key, error) {
	private := []jsontext.Value{j.D, j.P, j.Q, j.DP, j.DQ, j.QI, j.Oth, j.K}
	switch {
	case j.Kty != "RSA":
		return key{}, errors.New("kty is not RSA")
	case j.Kid == "":
		return key{}, errors.New("kid is missing")
	case j.Use != "" && j.Use != "sig":
		return key{}, errors.New("use is not sig")
	case j.KeyOps != nil && !slices.Contains(j.KeyOps, "verify"):
		return key{}, errors.New("key_ops lacks verify")
	case j.Alg != "" && j.Alg != "RS256":
		return key{}, errors.New("alg is not RS256")
	case slices.ContainsFunc(private, func(v jsontext.Value) bool { return v != nil }):
		return key{}, errors.New("a private key is published")
	}
	n, err := base64url.DecodeString(j.N)
	if err != nil {
		return key{}, errors.New("n is not base64url")
	}
	e, err := base64url.DecodeString(j.E)
	if err != nil {
		return key{}, errors.New("e is not base64url")
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	switch {
	case modulus.BitLen() < 2048:
		return key{}, errors.New("n has fewer than 2048 bits")
	case exponent.BitLen() > 31, exponent.Int64() < 65537: // the limit of crypto/rsa
		return key{}, fmt.Errorf("e is not from 65537 to %d", math.MaxInt32)
	}
	return key{public: &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, issuer: j.Issuer}, nil
}
