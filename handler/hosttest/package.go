package hosttest

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Edit changes a file below handler/: the old text, which must be there once, becomes the new one.
type Edit struct{ File, Old, New string }

// Package packages this module's handler with scripts/package and returns the script root. The caller removes the folder around it.
func Package(t testing.TB) string {
	t.Helper()
	return PackageEdited(t, nil)
}

// PackageEdited is Package of a handler with other texts in place of some files below handler/, and with edits.
func PackageEdited(t testing.TB, texts map[string]string, edits ...Edit) string {
	t.Helper()
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	require.NoError(t, err)
	root := strings.TrimSpace(string(module))
	folder, err := os.MkdirTemp("", "hosttest")
	require.NoError(t, err)
	dist := filepath.Join(folder, "dist")
	command := exec.Command("go", "run", "./scripts/package", "-to", dist, "-version", "test")
	command.Dir = root
	command.Env = append(command.Environ(), "GOFLAGS="+overlay(t, filepath.Join(root, "handler"), texts, edits))
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dist
}

// overlay returns the flag by which go build takes the texts and the edits for the files.
func overlay(t testing.TB, root string, texts map[string]string, edits []Edit) string {
	t.Helper()
	if len(texts)+len(edits) == 0 {
		return os.Getenv("GOFLAGS")
	}
	all := make(map[string]string)
	maps.Copy(all, texts)
	for _, e := range edits {
		text, ok := all[e.File]
		if !ok {
			content, err := os.ReadFile(filepath.Join(root, e.File))
			require.NoError(t, err)
			text = string(content)
		}
		require.Equal(t, 1, strings.Count(text, e.Old), "%s: %s", e.File, e.Old)
		all[e.File] = strings.Replace(text, e.Old, e.New, 1)
	}
	replaced := make(map[string]string)
	folder := t.TempDir()
	for file, text := range all {
		replacement := filepath.Join(folder, strings.ReplaceAll(file, "/", "-"))
		require.NoError(t, os.WriteFile(replacement, []byte(text), 0o600))
		replaced[filepath.Join(root, file)] = replacement
	}
	list, err := json.Marshal(map[string]any{"Replace": replaced})
	require.NoError(t, err)
	path := filepath.Join(folder, "overlay.json")
	require.NoError(t, os.WriteFile(path, list, 0o600))
	return "-overlay=" + path
}
