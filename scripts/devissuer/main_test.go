package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/auth"
	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/require"
)

// TestMain lets the tests start this program: a copy of the test that is told so is devissuer itself.
func TestMain(m *testing.M) {
	if os.Getenv("DEVISSUER") == "run" {
		main()
		return
	}
	os.Exit(m.Run())
}

// devissuer returns the program with these arguments, in a folder and an environment of its own.
func devissuer(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute) // beyond the test's end, for its cleanup
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, []string{"DEVISSUER=run"}
	return cmd
}

// served starts devissuer serve, and returns where its keys are. The test ends it with Ctrl-C, which must be an orderly end.
func served(t *testing.T, dir string, args ...string) (keysURL string) {
	t.Helper()
	cmd := devissuer(t, dir, append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	for keysURL == "" && lines.Scan() {
		if found := regexp.MustCompile(`AUTH_JWKS_URL=(\S+)`).FindStringSubmatch(lines.Text()); found != nil {
			keysURL = found[1]
		}
	}
	require.NotEmpty(t, keysURL)
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		for lines.Scan() { // until it has ended
		}
		require.NoError(t, cmd.Wait(), "Ctrl-C ends it with 0")
		require.Empty(t, stderr.String())
	})
	return keysURL
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

func TestTokensAreGoodForTheServedKeys(t *testing.T) {
	dir := t.TempDir()
	first := output(t, devissuer(t, dir, "token")) // makes the key
	keysURL := served(t, dir)
	v := auth.New(auth.Config{
		Issuer: authtest.LocalIssuer, Audiences: []string{authtest.LocalAudience}, KeysURL: keysURL, Scope: authtest.Scope,
	}, slog.New(slog.DiscardHandler))

	user, err := v.User(t.Context(), http.Header{"Authorization": {"Bearer " + first}})
	require.NoError(t, err)
	require.Equal(t, "alice", user.ID)
	require.Equal(t, authtest.LocalTenant, user.TenantID)

	const tenant = "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee"
	second := output(t, devissuer(t, dir, "token", "--user", "bob", "--tenant", tenant))
	user, err = v.User(t.Context(), http.Header{"Authorization": {"Bearer " + second}})
	require.NoError(t, err)
	require.Equal(t, "bob", user.ID)
	require.Equal(t, tenant, user.TenantID)

	for want, args := range map[error][]string{
		auth.ErrExpired:           {"--ttl", "-2m"},
		auth.ErrInsufficientScope: {"--scope", "User.Read"},
		auth.ErrInvalidToken:      {"--audience", "another"},
	} {
		_, err := v.User(t.Context(), http.Header{"Authorization": {"Bearer " + output(t, devissuer(t, dir, append([]string{"token"}, args...)...))}})
		require.ErrorIs(t, err, want)
	}
}

// Programs of this machine get a token with a request; no page does.
func TestTokensAreServedToPrograms(t *testing.T) {
	keysURL := served(t, t.TempDir())
	address := strings.TrimSuffix(keysURL, authtest.KeysPath)
	ask := func(change func(*http.Request)) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/token?user=bob", nil)
		require.NoError(t, err)
		change(r)
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer.StatusCode, strings.TrimSpace(string(text))
	}
	status, token := ask(func(*http.Request) {})
	require.Equal(t, http.StatusOK, status)
	v := auth.New(auth.Config{
		Issuer: authtest.LocalIssuer, Audiences: []string{authtest.LocalAudience}, KeysURL: keysURL, Scope: authtest.Scope,
	}, slog.New(slog.DiscardHandler))
	user, err := v.User(t.Context(), http.Header{"Authorization": {"Bearer " + token}})
	require.NoError(t, err)
	require.Equal(t, "bob", user.ID)
	for name, change := range map[string]func(*http.Request){
		"a page":                   func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:8080") },
		"a page that goes by name": func(r *http.Request) { r.Host = "rebound.example" },
	} {
		status, text := ask(change)
		require.Equal(t, http.StatusForbidden, status, name)
		require.NotContains(t, text, "eyJ", name)
	}
}

func TestIssuerOfSeveralTenants(t *testing.T) {
	const template = "http://127.0.0.1:7072/{tenantid}/v2.0"
	dir := t.TempDir()
	keysURL := served(t, dir, "--dir", "keys", "--issuer", template)
	v := auth.New(auth.Config{
		Issuer: template, Audiences: []string{authtest.LocalAudience}, KeysURL: keysURL, Scope: authtest.Scope,
		Tenants: []string{authtest.LocalTenant},
	}, slog.New(slog.DiscardHandler))
	token := output(t, devissuer(t, dir, "token", "--dir", "keys", "--issuer", template))
	_, err := v.User(t.Context(), http.Header{"Authorization": {"Bearer " + token}})
	require.NoError(t, err)

	response, err := http.Get(strings.TrimSuffix(keysURL, authtest.KeysPath) + "/" + authtest.LocalTenant + "/v2.0/.well-known/openid-configuration")
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	var metadata struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&metadata))
	require.Equal(t, "http://127.0.0.1:7072/"+authtest.LocalTenant+"/v2.0", metadata.Issuer)
	require.Equal(t, keysURL, metadata.Keys)
}

// TestLinksNoAttack keeps what forges tokens out of the program that make run starts.
func TestLinksNoAttack(t *testing.T) {
	linked := output(t, exec.CommandContext(t.Context(), "go", "list", "-deps", "."))
	require.Contains(t, linked, "chatkeep/handler/auth/authtest")
	require.NotContains(t, linked, "authtest/attack")
}

func TestKeyIsPrivateAndKept(t *testing.T) {
	dir := t.TempDir()
	output(t, devissuer(t, dir, "token"))
	path := filepath.Join(dir, ".local", "issuer.pem")
	file, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), file.Mode().Perm())
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	served(t, dir)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestMistakesSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	require.NoError(t, os.Mkdir(broken, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(broken, "issuer.pem"), []byte("no key"), 0o600))
	taken := strings.TrimSuffix(strings.TrimPrefix(served(t, dir), "http://"), authtest.KeysPath)

	for args, want := range map[string]string{
		"":                              "devissuer serve, or devissuer token",
		"server":                        "devissuer serve, or devissuer token",
		"serve --addr 0.0.0.0:7072":     "--addr must be a loopback address",
		"serve --addr [::]:7072":        "--addr must be a loopback address",
		"serve --addr :7072":            "--addr must be a loopback address",
		"serve --addr 192.0.2.1:7072":   "--addr must be a loopback address",
		"serve --addr example.com:80":   "--addr must be a loopback address",
		"serve --addr 127.0.0.1":        "--addr must be a loopback address",
		"serve --addr " + taken:         "choose another --addr",
		"token --tenant contoso.com":    "--tenant must be a GUID",
		"token --dir broken":            "delete it, and a new one is made",
		"token --life 1h":               "flag provided but not defined",
		"token --dir broken/issuer.pem": "not a directory",
	} {
		cmd := devissuer(t, dir, strings.Fields(args)...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		require.Error(t, cmd.Run(), args)
		require.Equal(t, 1, cmd.ProcessState.ExitCode(), args)
		require.Contains(t, stderr.String(), want, args)
	}
}
