package contract_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/contract"
	"chatkeep/handler/hosttest"
	"chatkeep/handler/nodetest"

	"github.com/stretchr/testify/require"
)

const node = "testdata/node"

// run runs a program of a package of Node, and returns what it prints.
func run(t *testing.T, args ...string) string {
	t.Helper()
	command := nodetest.Command(t, node, args...)
	command.Env = append(command.Env, "REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true")
	var problems strings.Builder
	command.Stderr = &problems
	out, err := command.Output()
	require.NoError(t, err, "%s\n%s", out, &problems)
	return string(out) + problems.String()
}

// Redocly's recommended rules find nothing.
func TestTheContractFollowsTheRules(t *testing.T) {
	said := run(t, "node_modules/@redocly/cli/bin/cli.js", "lint", "--extends", "recommended", "--format", "json", "../../../../openapi.yaml")
	require.Contains(t, said, `"errors": 0`)
	require.Contains(t, said, `"warnings": 0`, said)
}

// A client that a public generator makes of the contract compiles, strictly, and works against the packaged handler behind the host.
func TestAGeneratedClient(t *testing.T) {
	run(t, "node_modules/openapi-typescript/bin/cli.js", "../../../api/openapi.json", "-o", "openapi.ts")
	run(t, "node_modules/typescript/bin/tsc", "-p", ".")

	issuer := authtest.New()
	keys := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(keys, issuer.KeySet(), 0o600))
	dist := hosttest.Package(t)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(dist)) })
	host := hosttest.Start(t, dist, "AUTH_ISSUER="+issuer.Name, "AUTH_AUDIENCE="+issuer.Audience, "AUTH_JWKS_URL="+keys)
	said := run(t, "dist/client.js", host.URL, issuer.Token(authtest.LocalTenant, "alice", nil))
	require.JSONEq(t, `{"answer":"Hello","listed":"Hello","messages":2,"status":"completed","metadata":0,"refused":"conversation_closed",
		"exported":4,"deleted":204,"gone":"not_found"}`, said)
}

// README shows what the contract has.
func TestTheReadmeHasEveryFunction(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(contract.Root(), "README.md"))
	require.NoError(t, err)
	for path, item := range contract.Load(t).Document["paths"].(map[string]any) {
		for method, operation := range item.(map[string]any) {
			if operation, ok := operation.(map[string]any); ok && method != "parameters" {
				row := regexpOf(operation["operationId"].(string), strings.ToUpper(method), path)
				require.Regexp(t, row, string(readme), "%s has no row in README", operation["operationId"])
			}
		}
	}
}

// regexpOf matches the row of a function in README's table.
func regexpOf(name, method, path string) string {
	return `(?m)^\| ` + name + " \\| `" + method + "`?.*`?" + strings.NewReplacer("{", `\{`, "}", `\}`, ".", `\.`).Replace(path) + "[`?]"
}
