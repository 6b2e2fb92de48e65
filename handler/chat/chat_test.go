package chat_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

func TestASecretIsNeverPrinted(t *testing.T) {
	caller := chat.Caller{Owner: chat.Owner{UserID: "u"}, Token: "the-token"}
	var log buffer
	for _, l := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(l).Info("call", "caller", caller, "pointer", &caller, "token", caller.Token, "of", map[string]chat.Secret{"a": caller.Token})
	}
	texts := map[string]string{"the log": log.String(), "println": fmt.Sprintln(caller, caller.Token), "error": fmt.Errorf("%w %v", nil, caller.Token).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%+q", "%10.3s", "%T", "%!"} {
		texts[verb] = fmt.Sprintf(verb, caller.Token)
		texts[verb+" of the caller"] = fmt.Sprintf(verb+" "+verb, caller, &caller)
	}
	encoded, err := json.Marshal([]any{caller, &caller, caller.Token})
	require.NoError(t, err)
	texts["JSON"] = string(encoded)
	for name, text := range texts {
		require.NotContains(t, text, "the-token", name)
		require.NotContains(t, text, "7468652d746f6b656e", name)
	}
	require.Contains(t, texts["%v"], "redacted")
	require.Equal(t, "the-token", string(caller.Token))
}
