// Package nodetest runs programs of Node in tests: real clients of other makers, pinned by a lock file.
package nodetest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Command returns a command of node in a folder with package.json and package-lock.json, whose packages it installs first unless they are
// there. Its standard output is the test's to read; what it writes to standard error belongs into the message of a failure. It is ended when
// it lasts longer than three minutes, so that a test that waits for it in vain fails.
func Command(t testing.TB, folder string, args ...string) *exec.Cmd {
	t.Helper()
	install(t, folder)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, "node", args...)
	command.Dir = folder
	command.Env = append(command.Environ(), "NO_COLOR=1", "NODE_NO_WARNINGS=1")
	return command
}

// install makes node_modules as the lock file says. Tests of several processes may call it at once.
func install(t testing.TB, folder string) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(folder, "package-lock.json"), os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { _ = lock.Close() }()
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)) // until it is closed
	wanted, err := os.ReadFile(lock.Name())
	require.NoError(t, err)
	done := filepath.Join(folder, "node_modules", ".installed") // the lock file of what is there
	if has, err := os.ReadFile(done); err == nil && bytes.Equal(has, wanted) {
		return
	}
	t.Logf("npm ci in %s", folder)
	command := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	command.Dir = folder
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.NoError(t, os.WriteFile(done, wanted, 0o600))
}
