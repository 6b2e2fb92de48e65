package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/require"
)

func TestUserBringsTheVerifiedToken(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	v := New(accepts(issuer, keyFile(t, issuer)), quiet())
	token := issuer.Token(tenant, "alice", nil)
	for range 2 {
		user, err := v.User(t.Context(), bearerOf(token))
		require.NoError(t, err)
		require.Equal(t, token, user.Token)
	}
	user, err := v.User(t.Context(), map[string][]string{"Authorization": {"bearer   " + token}})
	require.NoError(t, err)
	require.Equal(t, token, user.Token, "without what is around it")
}

func TestUserNeverShows(t *testing.T) {
	user := User{ID: "secret-sub", TenantID: "secret-tid", ObjectID: "secret-oid", Token: "secret.to.ken"}
	type request struct {
		Caller User
		Next   *User
		Others []User
		Named  map[string]User
	}
	values := map[string]any{
		"a user": user, "a pointer": &user, "a slice": []User{user}, "a map": map[string]User{"a": user}, "an array": [1]User{user},
		"within": request{user, &user, []User{user}, map[string]User{"a": user}}, "within a pointer": &request{Caller: user},
		"an error": fmt.Errorf("of %v: %w", user, errors.New("failed")),
	}
	for name, value := range values {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3v", "%t", "%U"} {
				fmt.Fprintf(&out, verb+"\n", value)
			}
			fmt.Fprintln(&out, value)
			for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
				log := slog.New(handler).With("with", value)
				log.Info("one", "value", value, slog.Group("group", "value", value))
				log.Info(fmt.Sprint(value))
			}
			text, err := json.MarshalIndent(value, "", " ")
			require.NoError(t, err)
			out.Write(text)
			require.NotContains(t, out.String(), "secret")
			if name != "an error" {
				require.Contains(t, out.String(), redacted)
			}
		})
	}
	require.Equal(t, redacted, user.String())
	require.Equal(t, slog.StringValue(redacted), slog.AnyValue(user).Resolve(), "for handlers of other formats")
}
