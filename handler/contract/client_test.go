package contract_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
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

// What README has curl send is an example of the contract's.
func TestTheReadmeSendsExamples(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(contract.Root(), "README.md"))
	require.NoError(t, err)
	paths := contract.Load(t).Document["paths"].(map[string]any)
	sent := regexp.MustCompile(`curl -s "\$URL([^"?]*)"[^|\n]*\\\n  -d (?:'(.*?)'|"((?:[^"\\]|\\.)*)")`).FindAllStringSubmatch(string(readme), -1)
	require.Len(t, sent, 3)
	for _, line := range sent {
		body := line[2] + strings.NewReplacer(`\"`, `"`, "$ID", "01890a5d-ac96-774b-bcce-b302099a8057").Replace(line[3])
		request := paths[line[1]].(map[string]any)["post"].(map[string]any)["requestBody"].(map[string]any)
		var examples []string
		for _, example := range request["content"].(map[string]any)["application/json"].(map[string]any)["examples"].(map[string]any) {
			text, err := json.Marshal(example.(map[string]any)["value"])
			require.NoError(t, err)
			examples = append(examples, string(text))
		}
		var value any
		require.NoError(t, json.Unmarshal([]byte(body), &value), body)
		text, err := json.Marshal(value)
		require.NoError(t, err)
		require.Contains(t, examples, string(text))
	}
}
