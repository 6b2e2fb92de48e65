package playground

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatkeep/handler/nodetest"

	"github.com/stretchr/testify/require"
)

// asked answers what the playground, before an API that answers "the API", answers to a request of this machine that was changed.
func asked(t *testing.T, s Settings, method, target string, change func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the API") })
	r := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:8080"+target, nil)
	r.RemoteAddr = "127.0.0.1:50000"
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	New(api, s, slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
	return w
}

func TestTokensAreForThisMachineAndThePageAlone(t *testing.T) {
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" token-of-"+r.URL.Query().Get("user")+r.Header.Get("Origin")+"\n")
	}))
	defer issuer.Close()
	s := Settings{Issuer: issuer.URL}
	w := asked(t, s, "POST", "/playground/token?user=bob", nil)
	require.Equal(t, 200, w.Code)
	require.JSONEq(t, `{"token":"POST /token token-of-bob"}`, w.Body.String())

	for name, change := range map[string]func(*http.Request){
		"another machine":                 func(r *http.Request) { r.RemoteAddr = "192.0.2.1:50000" },
		"a name that rebinds":             func(r *http.Request) { r.Host = "rebound.example:8080" },
		"this machine's other address":    func(r *http.Request) { r.Host = "192.0.2.7:8080" },
		"a page elsewhere":                func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"an old browser's page elsewhere": func(r *http.Request) { r.Header.Set("Origin", "https://elsewhere.example") },
		"another port of this machine":    func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:3000") },
	} {
		w := asked(t, s, "POST", "/playground/token?user=bob", change)
		require.Equal(t, 403, w.Code, name)
		require.NotContains(t, w.Body.String(), "token-of", name)
	}
	for _, host := range []string{"localhost:8080", "[::1]:8080", "localhost", "127.0.0.1"} {
		require.Equal(t, 200, asked(t, s, "POST", "/playground/token?user=bob", func(r *http.Request) { r.Host = host }).Code, host)
	}
	require.Equal(t, 400, asked(t, s, "POST", "/playground/token?user=mallory", nil).Code)
	require.Equal(t, 404, asked(t, s, "GET", "/playground/token?user=bob", nil).Code)
	require.Equal(t, 502, asked(t, Settings{Issuer: "http://127.0.0.1:1"}, "POST", "/playground/token?user=bob", nil).Code)
}

func TestThePageIsBesideTheAPI(t *testing.T) {
	for _, path := range []string{"/api/chat/start", "/health", "/", "/playgrounds"} {
		w := asked(t, Settings{}, "GET", path, func(r *http.Request) { r.RemoteAddr = "192.0.2.1:50000" })
		require.Equal(t, "the API", w.Body.String(), path)
		require.Empty(t, w.Header().Get("Content-Security-Policy"), path)
	}
	require.Equal(t, "/playground/", asked(t, Settings{}, "GET", "/playground", nil).Header().Get("Location"))
	w := asked(t, Settings{}, "GET", "/playground/", nil)
	require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
	require.Equal(t, policy, w.Header().Get("Content-Security-Policy"))
	require.NotContains(t, policy, "unsafe")
	require.Contains(t, policy, "require-trusted-types-for 'script'")
	require.Equal(t, 404, asked(t, Settings{}, "GET", "/playground/nothing.js", nil).Code)
}

func TestRedisIsControlledOnlyWhereItIsPrivate(t *testing.T) {
	require.Equal(t, 409, asked(t, Settings{}, "POST", "/playground/redis?do=stop", nil).Code)
	s := Settings{Redis: Redis{Config: "/nowhere/redis.conf", Socket: "/nowhere/redis"}}
	require.Equal(t, 400, asked(t, s, "POST", "/playground/redis?do=flush", nil).Code)
	w := asked(t, s, "POST", "/playground/redis?do=stop", nil)
	require.Equal(t, 500, w.Code)
	require.Contains(t, w.Body.String(), "the log says why")
}

func TestUsageIsTheCallers(t *testing.T) {
	s := Settings{Usage: func(_ context.Context, h http.Header) (Usage, error) {
		if h.Get("Authorization") != "Bearer good" {
			return Usage{}, errors.New("who?")
		}
		return Usage{Bytes: 1200, Conversations: 3}, nil
	}}
	w := asked(t, s, "GET", "/playground/usage", func(r *http.Request) { r.Header.Set("Authorization", "Bearer good") })
	require.JSONEq(t, `{"bytes":1200,"conversations":3}`, w.Body.String())
	require.Equal(t, 503, asked(t, s, "GET", "/playground/usage", nil).Code)
}

// What is not ours is what its makers publish, with their licences; what is ours names no other host.
func TestFilesAreOursOrTheirMakers(t *testing.T) {
	folder := filepath.Join("testdata", "node")
	output, err := nodetest.Command(t, folder, "--version").CombinedOutput() // installs
	require.NoError(t, err, "%s", output)
	theirs := map[string]string{
		"files/vendor/adaptivecards.min.js":             "adaptivecards/dist/adaptivecards.min.js",
		"files/vendor/adaptivecards.min.js.LICENSE.txt": "adaptivecards/dist/adaptivecards.min.js.LICENSE.txt",
		"files/vendor/adaptivecards.LICENSE.txt":        "adaptivecards/LICENSE",
		"files/vendor/swiper.LICENSE.txt":               "swiper/LICENSE",
	}
	require.NoError(t, fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := files.ReadFile(name)
		require.NoError(t, err)
		source, isTheirs := theirs[name]
		if !isTheirs {
			require.NotContains(t, strings.ReplaceAll(string(text), "http://www.w3.org/2000/svg", ""), "://", name)
			return nil
		}
		want, err := os.ReadFile(filepath.Join(folder, "node_modules", source))
		require.NoError(t, err)
		require.Equal(t, sha256.Sum256(want), sha256.Sum256(text), "%s is another", name)
		return nil
	}))
}
