package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"chatkeep/handler/chat"
)

// A cursor is 8 bytes of milliseconds, 16 of the conversation's id, and 16 of a digest that ties them to the owner and the
// filter, in base64url. The digest keeps mistakes and other people's cursors out; it guards no secret, for a cursor only says
// where in the caller's own list to go on.

var cursorEncoding = base64.RawURLEncoding.Strict()

func encodeCursor(c chat.Cursor, owner chat.Owner, status chat.Status) string {
	place := binary.BigEndian.AppendUint64(nil, uint64(c.UpdatedAt.UnixMilli()))
	id, err := hex.DecodeString(strings.ReplaceAll(c.ID, "-", ""))
	if err != nil {
		panic(err) // a stored id is a UUID
	}
	place = append(place, id...)
	return cursorEncoding.EncodeToString(append(place, cursorDigest(place, owner, status)...))
}

func decodeCursor(text string, owner chat.Owner, status chat.Status) (*chat.Cursor, error) {
	raw, err := cursorEncoding.DecodeString(text)
	if err != nil || len(raw) != 40 || strings.ContainsAny(text, "\r\n") || !bytes.Equal(raw[24:], cursorDigest(raw[:24], owner, status)) {
		return nil, refuse("cursor", "must be a nextCursor of your own list with the same status; start again without one")
	}
	u := raw[8:24]
	return &chat.Cursor{
		UpdatedAt: time.UnixMilli(int64(binary.BigEndian.Uint64(raw))).UTC(),
		ID:        fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:]),
	}, nil
}

func cursorDigest(place []byte, owner chat.Owner, status chat.Status) []byte {
	h := sha256.New()
	for _, part := range []string{"chatkeep cursor", string(place), owner.TenantID, owner.UserID, string(status)} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write([]byte(part))
	}
	return h.Sum(nil)[:16]
}
