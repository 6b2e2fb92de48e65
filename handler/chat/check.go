package chat

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// What an owner may say.
const (
	maxTextBytes       = 32_768
	maxTitleCharacters = 200
	maxMetadataPairs   = 16
	maxMetadataKey     = 64  // characters
	maxMetadataValue   = 512 // characters
)

var canonicalID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// invalid returns an *InvalidError about all that is wrong, or nil.
func invalid(checks ...[]FieldError) error {
	if wrong := slices.Concat(checks...); len(wrong) > 0 {
		return &InvalidError{Fields: wrong}
	}
	return nil
}

func checkID(path, id string) []FieldError {
	if !canonicalID.MatchString(id) {
		return []FieldError{{path, "must be a UUID in lower case, such as 01890a5d-ac96-774b-bcce-b302099a8057"}}
	}
	return nil
}

func (o Opening) check() []FieldError {
	fields := checkWords("title", o.Title, maxTitleCharacters)
	if len(o.Metadata) > maxMetadataPairs {
		fields = append(fields, FieldError{"metadata", fmt.Sprintf("must have at most %d pairs", maxMetadataPairs)})
	}
	for _, key := range slices.Sorted(maps.Keys(o.Metadata)) {
		if key == "" {
			fields = append(fields, FieldError{"metadata", "must have no empty key"})
			continue
		}
		if bad := checkWords("metadata", key, maxMetadataKey); bad != nil {
			fields = append(fields, FieldError{"metadata", "has a key that " + bad[0].Message})
			continue
		}
		fields = append(fields, checkWords("metadata."+key, o.Metadata[key], maxMetadataValue)...)
	}
	return fields
}

func (s Said) check() []FieldError {
	var fields []FieldError
	switch {
	case s.Text == nil && s.Value == nil:
		fields = append(fields, FieldError{"text", "is missing: give text, or value"})
	case s.Text == nil:
	case *s.Text == "" || len(*s.Text) > maxTextBytes:
		fields = append(fields, FieldError{"text", fmt.Sprintf("must be 1 to %d bytes long", maxTextBytes)})
	case !storable(*s.Text):
		fields = append(fields, FieldError{"text", "must be valid UTF-8 without NUL"})
	}
	if s.MessageID != nil {
		fields = append(fields, checkID("messageId", *s.MessageID)...)
	}
	return fields
}

func (s Said) text() string {
	if s.Text == nil {
		return ""
	}
	return *s.Text
}

func checkWords(path, words string, most int) []FieldError {
	switch {
	case utf8.RuneCountInString(words) > most:
		return []FieldError{{path, fmt.Sprintf("must be at most %d characters long", most)}}
	case !storable(words):
		return []FieldError{{path, "must be valid UTF-8 without NUL"}}
	}
	return nil
}

func storable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}

// newID returns a UUID of version 7 (RFC 9562): 48 bits of milliseconds, then 74 random bits.
func newID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails, by its documentation
	ms := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint16(u[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(u[2:], uint32(ms))
	u[6] = 0x70 | u[6]&0x0f
	u[8] = 0x80 | u[8]&0x3f
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:])
}
