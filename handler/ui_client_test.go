package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/hosttest"
	"chatkeep/handler/nodetest"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

// The npm package ai, as three of its versions have it, converses with the packaged handler without glue, through the played host and through the
// host's own forwarding part: words, cards, failures, cancels, and the network cut.
func TestUseChat(t *testing.T) {
	model := startModel(t)
	echo := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr)
	told := deploy(t, append(echo.env, "AGENT=openai", "OPENAI_BASE_URL="+model+"/v1", "OPENAI_MODEL=m", "OPENAI_API_KEY=k")...)
	converse := func(t *testing.T, version, echoURL, modelURL string) {
		t.Helper()
		token := echo.issuer.Token(authtest.LocalTenant, "alice", nil)
		command := nodetest.Command(t, "testdata/ui", "client.mjs", version, token, echoURL, modelURL, model)
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, "all is well\n", string(out))
	}
	for _, version := range []string{"ai5", "ai6", "ai7"} {
		t.Run(version, func(t *testing.T) { converse(t, version, echo.host.URL, told.host.URL) })
		t.Run(version+" through the forwarder", func(t *testing.T) {
			forwarded := func(d *deployment) string { return hosttest.StartForwarder(t, packaged(t), d.host.HandlerURL(), nil) }
			converse(t, version, forwarded(echo), forwarded(told))
		})
	}
}

// The example of docs/usechat.md compiles, strictly, with both versions of the packages.
func TestTheExampleOfUseChat(t *testing.T) {
	text, err := os.ReadFile("../docs/usechat.md")
	require.NoError(t, err)
	example := regexp.MustCompile("(?s)```tsx\n(.*?)```").FindSubmatch(text)
	require.NotNil(t, example)
	yours, err := os.ReadFile("testdata/ui/yours.ts")
	require.NoError(t, err)
	folder, err := filepath.Abs("testdata/ui")
	require.NoError(t, err)
	for _, version := range []string{"6", "7"} {
		program := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(program, "conversation.tsx"), example[1], 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(program, "yours.ts"), yours, 0o600))
		config, err := json.Marshal(map[string]any{
			"extends": filepath.Join(folder, "tsconfig.json"), "files": []string{"conversation.tsx"},
			"compilerOptions": map[string]any{"paths": map[string][]string{
				"ai": {filepath.Join(folder, "node_modules/ai"+version)}, "@ai-sdk/react": {filepath.Join(folder, "node_modules/react"+version)},
				"react": {filepath.Join(folder, "node_modules/@types/react")}, "react/*": {filepath.Join(folder, "node_modules/@types/react/*")},
			}},
		})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(program, "tsconfig.json"), config, 0o600))
		out, err := nodetest.Command(t, folder, "node_modules/typescript/bin/tsc", "-p", program).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// startModel starts an OpenAI-compatible service of which a test has each word told: by POST /say with it, until POST /end or POST /fail.
func startModel(t *testing.T) (url string) {
	t.Helper()
	words, ends := make(chan string), make(chan bool)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /say", func(_ http.ResponseWriter, r *http.Request) {
		word, _ := io.ReadAll(r.Body)
		select {
		case words <- string(word):
		case <-r.Context().Done():
		}
	})
	for path, isWhole := range map[string]bool{"/end": true, "/fail": false} {
		mux.HandleFunc("POST "+path, func(_ http.ResponseWriter, r *http.Request) {
			select {
			case ends <- isWhole:
			case <-r.Context().Done():
			}
		})
	}
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			_ = http.NewResponseController(w).Flush()
			select {
			case word := <-words:
				_, _ = fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":%s}}]}\n\n", word)
			case isWhole := <-ends:
				if isWhole {
					_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
				}
				return
			case <-r.Context().Done():
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}
