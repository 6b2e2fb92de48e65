// Package playground is a page on which the service can be tried in a browser. It is a part of what make run builds, and of nothing that
// is deployed: it gives a token to whoever asks on this machine.
package playground

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"
)

//go:embed files
var files embed.FS

// Users are who can sign in with a click.
var Users = []string{"alice", "bob", "carol"}

// Settings are what the page is told of the program, and what it may do beside calling the API.
type Settings struct {
	Issuer string // of devissuer, which gives tokens at /token
	Agent  string // as AGENT names it
	Redis  Redis
	Limits Limits
	// Usage returns what the caller whom the headers name has. Its error is a caller without a token that is good, or a store that cannot
	// be reached.
	Usage func(context.Context, http.Header) (Usage, error)
}

// Redis is a server on this machine that the page may stop and start again; without a Config there is none.
type Redis struct {
	Config string // its file of settings, with which it becomes a daemon
	Socket string
}

// Limits are what a user may have.
type Limits struct {
	Bytes          int64 `json:"bytes"`
	Conversations  int64 `json:"conversations"`
	TurnsPerMinute int64 `json:"turnsPerMinute"`
}

// Usage is what a user has.
type Usage struct {
	Bytes         int64 `json:"bytes"`
	Conversations int64 `json:"conversations"`
}

// policy has a browser load nothing from elsewhere, run no script that is not a file of the page, and take no text for HTML but from the
// library that draws cards.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; " +
	"trusted-types adaptivecards#deprecatedExportedFunctionPolicy adaptivecards#markdownPassthroughPolicy adaptivecards#restoreContentsPolicy"

// errElsewhere means that a request does not come from this machine, or not from the page.
var errElsewhere = errors.New("this is for a browser on the machine that runs Chatkeep, at 127.0.0.1 or localhost")

// New returns the API with the page at /playground/ beside it.
func New(api http.Handler, s Settings, log *slog.Logger) http.Handler {
	page, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // the folder is embedded
	}
	p := &playground{Settings: s, log: log, client: &http.Client{Timeout: 5 * time.Second}}
	own := http.NewServeMux()
	own.Handle("GET /playground/", http.StripPrefix("/playground/", http.FileServerFS(page)))
	own.HandleFunc("GET /playground/about", p.about)
	own.HandleFunc("GET /playground/usage", p.usage)
	own.HandleFunc("POST /playground/token", p.token)
	own.HandleFunc("POST /playground/redis", p.redis)
	sameOrigin := http.NewCrossOriginProtection().Handler(own)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/playground" && !strings.HasPrefix(r.URL.Path, "/playground/") {
			api.ServeHTTP(w, r)
			return
		}
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-store")
		if !isLocal(r) {
			http.Error(w, errElsewhere.Error(), http.StatusForbidden)
			return
		}
		sameOrigin.ServeHTTP(w, r)
	})
}

// isLocal reports whether a request comes from this machine, by a name that only this machine has: a page elsewhere can give itself another
// name for 127.0.0.1.
func isLocal(r *http.Request) bool {
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || !isLoopback(from) {
		return false
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || isLoopback(strings.Trim(host, "[]"))
}

func isLoopback(address string) bool {
	ip := net.ParseIP(address)
	return ip != nil && ip.IsLoopback()
}

type playground struct {
	Settings
	log    *slog.Logger
	client *http.Client
}

// about tells what the page cannot learn from the API.
func (p *playground) about(w http.ResponseWriter, _ *http.Request) {
	p.answer(w, map[string]any{"users": Users, "agent": p.Agent, "controlsRedis": p.Redis.Config != "", "limits": p.Limits})
}

func (p *playground) usage(w http.ResponseWriter, r *http.Request) {
	u, err := p.Usage(r.Context(), r.Header)
	if err != nil {
		http.Error(w, "usage is not known now", http.StatusServiceUnavailable)
		return
	}
	p.answer(w, u)
}

// token answers with a token of the local issuer for one of Users.
func (p *playground) token(w http.ResponseWriter, r *http.Request) {
	user := r.URL.Query().Get("user")
	if !slices.Contains(Users, user) {
		http.Error(w, "user must be one of "+strings.Join(Users, ", "), http.StatusBadRequest)
		return
	}
	token, err := p.fetch(r.Context(), p.Issuer+"/token?user="+user)
	if err != nil {
		p.log.ErrorContext(r.Context(), "no token from the local issuer", "err", err)
		http.Error(w, "the local issuer gives no token: is devissuer running?", http.StatusBadGateway)
		return
	}
	p.answer(w, map[string]string{"token": token})
}

func (p *playground) fetch(ctx context.Context, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := p.client.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", answer.StatusCode)
	}
	return strings.TrimSpace(string(text)), err
}

// redis stops the server, or starts it.
func (p *playground) redis(w http.ResponseWriter, r *http.Request) {
	if p.Redis.Config == "" {
		http.Error(w, "start with: make run REDIS=1", http.StatusConflict)
		return
	}
	var command *exec.Cmd
	switch r.URL.Query().Get("do") {
	case "stop":
		command = exec.CommandContext(r.Context(), "redis-cli", "-s", p.Redis.Socket, "shutdown")
	case "start":
		command = exec.CommandContext(r.Context(), "redis-server", p.Redis.Config)
	default:
		http.Error(w, "do must be stop or start", http.StatusBadRequest)
		return
	}
	if output, err := command.CombinedOutput(); err != nil {
		p.log.ErrorContext(r.Context(), "cannot control Redis", "err", err, "output", string(output))
		http.Error(w, "that did not work; the log says why", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (p *playground) answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		p.log.Debug("nobody takes the answer", "err", err)
	}
}
