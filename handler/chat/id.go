package chat

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"strings"
	"time"
)

var canonicalID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// IsID reports whether a text is a UUID as ids are written here: in lower case.
func IsID(text string) bool { return canonicalID.MatchString(text) }

// newID returns a UUID of version 7 (RFC 9562): 48 bits of milliseconds, then 74 random bits.
func newID() string {
	return format(newUUID())
}

// NewMessageID returns an id for a message whose seq is known before it is stored: a UUID of version 7 whose last 24 bits are the seq.
// So a store needs one look to tell whether such an id is taken.
func NewMessageID(seq int64) string {
	return format(withSeq(newUUID(), seq))
}

// replyID is the id of a turn's reply with the index: known before there is one, to everybody who knows the turn's token, which it does not
// tell. Like those of NewMessageID it ends in its seq.
func replyID(token string, questionSeq int64, index int) string {
	sum := sha256.Sum256([]byte("replies of " + token))
	u := [16]byte(sum[:16])
	if id, err := hex.DecodeString(strings.ReplaceAll(token, "-", "")); err == nil && len(id) == len(u) {
		copy(u[:6], id[:6]) // a token is a UUID of version 7 too, and begins with the time
	}
	return format(withSeq(u, questionSeq+1+int64(index)))
}

// withSeq makes a UUID one of version 7 whose last 24 bits are the seq.
func withSeq(u [16]byte, seq int64) [16]byte {
	u[6] = 0x70 | u[6]&0x0f
	u[8] = 0x80 | u[8]&0x3f
	u[13], u[14], u[15] = byte(seq>>16), byte(seq>>8), byte(seq)
	return u
}

func newUUID() (u [16]byte) {
	_, _ = rand.Read(u[:]) // never fails, by its documentation
	ms := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint16(u[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(u[2:], uint32(ms))
	u[6] = 0x70 | u[6]&0x0f
	u[8] = 0x80 | u[8]&0x3f
	return u
}

func format(u [16]byte) string {
	text := make([]byte, 0, 36)
	for i, b := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text = append(text, '-')
		}
		text = hex.AppendEncode(text, []byte{b})
	}
	return string(text)
}
