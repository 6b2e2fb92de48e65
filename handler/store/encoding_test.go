package store

import (
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
)

func TestSimpleObjectsAreReadAsAnyOther(t *testing.T) {
	read := func(text string) (map[string]any, bool) {
		members := map[string]any{}
		isSimple := eachMember(text, func(name, value string, isString bool) bool {
			members[name] = value
			if !isString {
				var number float64
				require.NoError(t, json.Unmarshal([]byte(value), &number))
				members[name] = number
			}
			return true
		})
		return members, isSimple
	}
	for _, text := range []string{
		`{"title":"Trip to Rome","version":3,"createdAt":1764041443000,"messageCount":0}`, `{"title":"Grüße, {you}: 😀"}`, `{"":""}`, `{"a:b":"c,d}"}`,
	} {
		members, isSimple := read(text)
		require.True(t, isSimple, text)
		var want map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &want))
		require.Equal(t, want, members)
	}
	for _, text := range []string{
		``, `-`, `{}`, `[]`, `{"a":1`, `{"a":1}}`, `{"a":1,}`, `{"a":01}`, `{"a":-1}`, `{"a":1.5}`, `{"a":}`, `{"a"}`, `{"a":"b}`, `{"a" :1}`, `{"a":null}`,
		`{"a":{"b":1}}`, `{"a":[1]}`, `{"a":"\\n"}`, "{\"a\":\"\n\"}", "{\"a\":\"\xff\"}", `{a:1}`, `{"a"b":1}`, `{"a":"b"c}`, `,"a":1}`,
	} {
		_, isSimple := read(text)
		require.False(t, isSimple, text)
	}
}
