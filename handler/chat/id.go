package chat

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"time"
)

var canonicalID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// newID returns a UUID of version 7 (RFC 9562): 48 bits of milliseconds, then 74 random bits.
func newID() string {
	return format(newUUID())
}

// NewMessageID returns an id for a message whose seq is known before it is stored: a UUID of version 7 whose last 24 bits are the seq.
// So a store needs one look to tell whether such an id is taken.
func NewMessageID(seq int64) string {
	u := newUUID()
	u[13], u[14], u[15] = byte(seq>>16), byte(seq>>8), byte(seq)
	return format(u)
}

// WithSeq returns an id of NewMessageID for another seq: all replies of a turn have ids of one making, so that the first is known before there
// is any.
func WithSeq(id string, seq int64) string {
	const digits = 6 // 24 bits
	return fmt.Sprintf("%s%06x", id[:len(id)-digits], seq&(1<<(4*digits)-1))
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
