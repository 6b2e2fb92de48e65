package api

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

// Whatever a body holds, decode gives a refusal that may be shown, or fields that hold what JSON can mean.
func FuzzDecode(f *testing.F) {
	for _, body := range []string{
		"", "null", "{}", "[]", `{"conversationId":"x","text":"y"}`, `{"text":null}`, `{"text":"a","text":"b"}`, `{"TEXT":"a"}`,
		`{"value":{"a":[{}]}}`, `{"value":[]}`, `{"":1}`, "{\"text\":\"\xff\"}", `{"text":"\ud800"}`, `{"a":{"b":1}}`, `{} {}`,
		strings.Repeat(`{"value":`, 70) + "{}" + strings.Repeat("}", 70),
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		request := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		got, err := decode[sendRequest](&response{ResponseWriter: httptest.NewRecorder(), request: request}, request, false)
		if err != nil {
			refused, shown := errors.AsType[*refusal](err)
			require.True(t, shown || errors.Is(err, errTooLarge), "%v", err)
			if shown {
				require.NotEmpty(t, refused.Path)
				require.LessOrEqual(t, len(refused.Path), 200)
				require.True(t, utf8.ValidString(refused.Path))
			}
			return
		}
		require.Equal(t, jsontext.KindBeginObject, jsontext.Value(strings.TrimPrefix(body, "\uFEFF")).Kind())
		require.True(t, got.Text == nil || utf8.ValidString(*got.Text))
		require.True(t, got.Value == nil || jsontext.Value(got.Value).IsValid())
	})
}

// A cursor is one that we made for this owner and filter, to the letter, or is refused.
func FuzzCursor(f *testing.F) {
	owner := chat.Owner{TenantID: "t", UserID: "u"}
	good := encodeCursor(chat.Cursor{ID: "01890a5d-ac96-774b-bcce-b302099a8057"}, owner, chat.Active)
	for _, text := range []string{good, good[1:], good + "=", "", "\n", strings.ToLower(good)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cursor, err := decodeCursor(text, owner, chat.Active)
		if err != nil {
			_, shown := errors.AsType[*refusal](err)
			require.True(t, shown)
			return
		}
		require.Equal(t, text, encodeCursor(*cursor, owner, chat.Active))
		_, err = decodeCursor(text, chat.Owner{TenantID: "t", UserID: "v"}, chat.Active)
		require.Error(t, err)
	})
}
