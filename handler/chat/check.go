package chat

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of what an owner sends.
const (
	maxTextBytes       = 32_768
	maxTitleCharacters = 200
	maxMetadataPairs   = 16
	maxMetadataKey     = 64       // characters
	maxMetadataValue   = 512      // characters
	maxMetadataBytes   = 10 << 10 // of all pairs: names and values

	// MaxValueBytes is for a submitted value, without spaces between its tokens.
	MaxValueBytes = 32 << 10
)

// Bounds of what an owner asks for.
const (
	maxPage = 1000    // messages
	maxList = 100     // conversations
	maxSeq  = 1 << 53 // what every JSON reader takes for a whole number
)

// invalid returns an *InvalidError about all that is wrong, or nil.
func invalid(checks ...[]FieldError) error {
	if wrong := slices.Concat(checks...); len(wrong) > 0 {
		return &InvalidError{Fields: wrong}
	}
	return nil
}

func checkID(field Field, id string) []FieldError {
	if !IsID(id) {
		return []FieldError{{field, "", "must be a UUID in lower case, such as 01890a5d-ac96-774b-bcce-b302099a8057"}}
	}
	return nil
}

func (o Opening) check() []FieldError {
	fields := checkWords(TitleField, "", o.Title, maxTitleCharacters)
	if len(o.Metadata) > maxMetadataPairs {
		fields = append(fields, FieldError{MetadataField, "", fmt.Sprintf("must have at most %d pairs", maxMetadataPairs)})
	}
	size := 0
	for _, key := range slices.Sorted(maps.Keys(o.Metadata)) {
		size += len(key) + len(o.Metadata[key])
		if key == "" {
			fields = append(fields, FieldError{MetadataField, "", "must have no empty key"})
			continue
		}
		if bad := checkPlain(MetadataField, "", key, maxMetadataKey); bad != nil {
			fields = append(fields, FieldError{MetadataField, "", "has a key that " + bad[0].Message})
			continue
		}
		fields = append(fields, checkPlain(MetadataField, key, o.Metadata[key], maxMetadataValue)...)
	}
	if size > maxMetadataBytes {
		fields = append(fields, FieldError{MetadataField, "", fmt.Sprintf("must have at most %d bytes in all", maxMetadataBytes)})
	}
	return fields
}

func (in Input) check() []FieldError {
	var fields []FieldError
	switch {
	case in.Text == nil && in.Value == nil:
		fields = append(fields, FieldError{TextField, "", "is missing: give text, or value"})
	case in.Text == nil:
	case *in.Text == "" || len(*in.Text) > maxTextBytes:
		fields = append(fields, FieldError{TextField, "", fmt.Sprintf("must be 1 to %d bytes long", maxTextBytes)})
	case !storable(*in.Text):
		fields = append(fields, FieldError{TextField, "", "must be valid UTF-8 without NUL"})
	}
	if in.Value != nil && (!isObject(in.Value) || len(compact(in.Value)) > MaxValueBytes) {
		fields = append(fields, FieldError{ValueField, "", fmt.Sprintf("must be a JSON object of at most %d bytes", MaxValueBytes)})
	}
	if in.MessageID != nil {
		fields = append(fields, checkID(MessageIDField, *in.MessageID)...)
	}
	return fields
}

func (p Page) check() []FieldError {
	return slices.Concat(checkNumber(LimitField, int64(p.Limit), 1, maxPage), checkNumber(BeforeField, p.Before, 0, maxSeq))
}

// checkNumber checks a number that is at least 1 when it is given; least is 0 when it need not be.
func checkNumber(field Field, n, least, most int64) []FieldError {
	if n < least || n > most {
		return []FieldError{{field, "", fmt.Sprintf("must be one whole number from 1 to %d", most)}}
	}
	return nil
}

func (l List) check() []FieldError {
	var fields []FieldError
	if l.Limit < 1 || l.Limit > maxList {
		fields = append(fields, FieldError{LimitField, "", fmt.Sprintf("must be from 1 to %d", maxList)})
	}
	if l.Status != "" && !slices.Contains(Statuses, l.Status) {
		fields = append(fields, FieldError{StatusField, "", "must be active, completed or archived"})
	}
	return fields
}

func (in Input) text() string {
	if in.Text == nil {
		return ""
	}
	return *in.Text
}

func checkWords(field Field, key, words string, most int) []FieldError {
	switch {
	case utf8.RuneCountInString(words) > most:
		return []FieldError{{field, key, fmt.Sprintf("must be at most %d characters long", most)}}
	case !storable(words):
		return []FieldError{{field, key, "must be valid UTF-8 without NUL"}}
	}
	return nil
}

// checkPlain is checkWords for words without control characters.
func checkPlain(field Field, key, words string, most int) []FieldError {
	if strings.ContainsFunc(words, func(r rune) bool { return r < ' ' || r == '\x7f' }) {
		return []FieldError{{field, key, "must have no control characters"}}
	}
	return checkWords(field, key, words, most)
}

// compact returns JSON without spaces between its tokens.
func compact(text []byte) []byte {
	value := jsontext.Value(slices.Clone(text))
	if value.Compact() != nil {
		return text
	}
	return value
}

func storable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}
