package main

import (
	"strings"
	"testing"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/nodetest"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

// The npm package ai, as two of its versions have it, converses with the packaged handler behind the host without glue.
func TestUseChat(t *testing.T) {
	d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr)
	for _, version := range []string{"ai6", "ai7"} {
		id := d.start("alice")
		command := nodetest.Command(t, "testdata/ui", "client.mjs", version, d.host.URL, d.issuer.Token(authtest.LocalTenant, "alice", nil), id)
		var problems strings.Builder
		command.Stderr = &problems
		out, err := command.Output()
		require.NoError(t, err, "%s: %s", version, &problems)
		require.JSONEq(t, `{"status":"ready","texts":["Hello","Hello"],"roles":["user","assistant"],"card":"{\"nights\":3}","resumed":"ready",
			"history":["user","assistant","user","assistant"],"sameId":true,"again":"turn_complete","edit":"idempotency_key_reused"}`, string(out), version)
	}
}
