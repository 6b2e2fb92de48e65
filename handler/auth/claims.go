package auth

import "github.com/go-json-experiment/json"

// claims are the claims that are read. Others are ignored.
type claims struct {
	Ver   string   `json:"ver"`
	Iss   string   `json:"iss"`
	Aud   string   `json:"aud"` // a list is refused, even with ours in it
	Tid   string   `json:"tid"`
	Sub   string   `json:"sub"`
	Oid   string   `json:"oid"`
	Exp   int64    `json:"exp"` // seconds, as nbf and iat; a fraction is refused
	Nbf   int64    `json:"nbf"`
	Iat   int64    `json:"iat"`
	Scp   string   `json:"scp"`
	Azp   string   `json:"azp"`
	Idtyp string   `json:"idtyp"`
	Roles []string `json:"roles"`
}

// lastDate is in the year 36812. A later date is an attempt to overflow.
const lastDate = 1 << 40

// parseClaims decodes the payload of a JWT. Names are case-sensitive. A repeated name, a wrong type or invalid UTF-8 is an error. A
// missing claim is the zero value, and so is null.
func parseClaims(payload []byte) (claims, error) {
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return claims{}, refuse(ErrInvalidToken, "the claims are not an object, or one is repeated or of a wrong type")
	}
	return c, nil
}

// validSubject reports whether sub is 1 to 255 printable ASCII characters without space.
func validSubject(sub string) bool {
	for i := range len(sub) {
		if sub[i] <= ' ' || sub[i] > '~' {
			return false
		}
	}
	return sub != "" && len(sub) <= 255
}
