package contract

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write handler/api/openapi.json")

// The service answers with JSON, and the contract is written in YAML.
func TestContractAsJSON(t *testing.T) {
	document, err := read()
	require.NoError(t, err)
	want, err := json.Marshal(document)
	require.NoError(t, err)
	want = append(want, '\n')
	path := filepath.Join(Root(), "handler/api/openapi.json")
	if *update {
		require.NoError(t, os.WriteFile(path, want, 0o644))
	}
	has, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(has), "go test ./handler/contract -run TestContractAsJSON -update")
}
