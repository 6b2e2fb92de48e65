// Package hosttest plays the Azure Functions host: it runs a packaged handler as the host does, and proxies requests to it.
//
// It follows the host's version 4 with enableProxyingHttpRequest: loading of function.json, the start and probe of the process, routing,
// header rewriting, and the restart rules. What it leaves out: keys, CORS, WebSockets and the scale controller.
package hosttest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	probeEvery = 25 * time.Millisecond
	probeLimit = 30 * time.Second
	maxBody    = 104_857_600 // bytes
	idleLimit  = 240 * time.Second
	errorLimit = 3 // exits that count, before the host stops
)

// Host is a running host with its handler. It ends with the test.
type Host struct {
	URL string

	functions []function
	dist      string
	env       []string
	addr      string // of the handler; the same after a restart
	proxy     *httputil.ReverseProxy

	mu             sync.Mutex
	command        *exec.Cmd
	ready          chan struct{} // closed when the running process answers the probe
	exits          []int         // exit codes so far; -1 for a signal
	errors         int           // exits that count
	gone           bool          // no process, and none will come
	stopping       bool
	stdout, stderr []string
	watched        chan struct{} // closed when the last process was waited for
}

// function is a function.json that the host serves.
type function struct {
	name    string
	methods []string
	route   *regexp.Regexp
}

// Package packages this module's handler with scripts/package.sh and returns the script root. The caller removes the folder around it.
func Package(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "hosttest")
	require.NoError(t, err)
	dist := filepath.Join(folder, "dist")
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	require.NoError(t, err)
	command := exec.Command(filepath.Join(strings.TrimSpace(string(root)), "scripts", "package.sh"))
	command.Env = append(os.Environ(), "DIST="+dist, "VERSION=test")
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dist
}

// Start loads a script root, starts its handler with exactly this environment beside the host's own variables, and serves at URL.
func Start(t testing.TB, dist string, env ...string) *Host {
	t.Helper()
	functions, executable, err := load(dist)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	h := &Host{functions: functions, dist: dist, addr: addr, env: env}
	h.proxy = h.newProxy()
	h.launch(filepath.Join(dist, executable))
	server := httptest.NewServer(h)
	h.URL = server.URL
	t.Cleanup(func() {
		h.Stop()
		server.Close()
	})
	require.NoError(t, h.await(t.Context()), "stdout: %v\nstderr: %v", h.Stdout(), h.Stderr())
	return h
}

var functionName = regexp.MustCompile(`^(?i)[a-z][a-z0-9_-]{0,127}$`)

// load reads host.json and the function.json of every direct child of the script root, sorted by name.
func load(dist string) ([]function, string, error) {
	var host struct {
		Version       string
		CustomHandler struct {
			Description               struct{ DefaultExecutablePath string }
			EnableProxyingHTTPRequest bool `json:"enableProxyingHttpRequest"`
		}
		Extensions struct{ HTTP struct{ RoutePrefix *string } }
	}
	if err := readJSON(filepath.Join(dist, "host.json"), &host); err != nil {
		return nil, "", err
	}
	executable := host.CustomHandler.Description.DefaultExecutablePath
	if host.Version != "2.0" || executable == "" || !host.CustomHandler.EnableProxyingHTTPRequest {
		return nil, "", errors.New("host.json: not a proxied custom handler of version 2.0")
	}
	prefix := "api"
	if p := host.Extensions.HTTP.RoutePrefix; p != nil {
		prefix = *p
	}
	files, err := filepath.Glob(filepath.Join(dist, "*", "function.json"))
	if err != nil || len(files) == 0 {
		return nil, "", errors.New("no functions: the process would never be started")
	}
	var functions []function
	taken := make(map[string]string)
	for _, file := range files {
		f, template, err := loadFunction(file, prefix)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", file, err)
		}
		for _, method := range f.methods {
			key := method + " " + strings.ToLower(template)
			if other := taken[key]; other != "" {
				return nil, "", fmt.Errorf("%s and %s both have %s", other, f.name, key)
			}
			taken[key] = f.name
		}
		functions = append(functions, f)
	}
	slices.SortFunc(functions, func(a, b function) int { return strings.Compare(a.name, b.name) })
	return functions, executable, nil
}

var parameter = regexp.MustCompile(`\\\{[a-zA-Z]+\\\}`)

func loadFunction(file, prefix string) (function, string, error) {
	var config struct {
		Bindings []struct {
			Type, Direction, Name, AuthLevel string
			Methods                          []string
			Route                            *string
		}
	}
	if err := readJSON(file, &config); err != nil {
		return function{}, "", err
	}
	f := function{name: filepath.Base(filepath.Dir(file))}
	if !functionName.MatchString(f.name) || strings.EqualFold(f.name, "host") {
		return function{}, "", errors.New("bad function name")
	}
	if len(config.Bindings) != 2 || config.Bindings[0].Type != "httpTrigger" || config.Bindings[0].Direction != "in" ||
		config.Bindings[1].Type != "http" || config.Bindings[1].Direction != "out" {
		return function{}, "", errors.New("proxying needs one httpTrigger and one http output")
	}
	trigger := config.Bindings[0]
	if trigger.AuthLevel != "anonymous" {
		return function{}, "", errors.New("authLevel is not anonymous: the host would ask for a key")
	}
	template := f.name
	if trigger.Route != nil && *trigger.Route != "" {
		template = *trigger.Route
	}
	for _, reserved := range []string{"admin", "runtime"} {
		if strings.HasPrefix(strings.ToLower(template), reserved) {
			return function{}, "", fmt.Errorf("a route must not begin with %s", reserved)
		}
	}
	template = strings.Trim(path.Join(prefix, template), "/")
	f.route = regexp.MustCompile(`^(?i)/` + parameter.ReplaceAllString(regexp.QuoteMeta(template), `[^/]+`) + `/?$`)
	for _, method := range trigger.Methods {
		f.methods = append(f.methods, strings.ToUpper(method))
	}
	return f, template, nil
}

func readJSON(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// launch starts the process; watch waits for it. The host's own variables win over the environment.
func (h *Host) launch(executable string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, port, _ := net.SplitHostPort(h.addr)
	worker := newGUID()
	h.command = exec.Command(executable)
	h.command.Dir = h.dist
	h.command.Env = append(slices.Clone(h.env),
		"FUNCTIONS_CUSTOMHANDLER_PORT="+port, "FUNCTIONS_HTTPWORKER_PORT="+port,
		"FUNCTIONS_CUSTOMHANDLER_WORKER_ID="+worker, "FUNCTIONS_HTTPWORKER_ID="+worker, "FUNCTIONS_APP_ROOT_PATH="+h.dist)
	var lines sync.WaitGroup
	out, errOut := h.collect(&lines, &h.stdout), h.collect(&lines, &h.stderr)
	h.command.Stdout, h.command.Stderr = out, errOut
	h.ready, h.watched = make(chan struct{}), make(chan struct{})
	if err := h.command.Start(); err != nil {
		h.gone = true
		h.stderr = append(h.stderr, "Failed to start Worker Channel. Process fileName: "+executable)
		close(h.watched)
		return
	}
	_ = out.Close()
	_ = errOut.Close()
	probing, stop := context.WithCancel(context.Background())
	go h.probe(probing, h.ready)
	go h.watch(h.command, executable, h.watched, &lines, stop)
}

// collect returns the end of a pipe whose lines are kept.
func (h *Host) collect(lines *sync.WaitGroup, into *[]string) *os.File {
	read, write, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	lines.Go(func() {
		defer func() { _ = read.Close() }()
		scanner := bufio.NewScanner(read)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			h.mu.Lock()
			*into = append(*into, scanner.Text())
			h.mu.Unlock()
		}
	})
	return write
}

// probe asks GET / until any HTTP answer comes.
func (h *Host) probe(ctx context.Context, ready chan struct{}) {
	for end := time.Now().Add(probeLimit); time.Now().Before(end); {
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.addr+"/", nil)
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = response.Body.Close()
			close(ready)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(probeEvery):
		}
	}
}

// watch waits for the process, and starts it again by the host's rules: never after exit 0, always after 200, and after anything else
// until errorLimit.
func (h *Host) watch(command *exec.Cmd, executable string, watched chan struct{}, lines *sync.WaitGroup, stop func()) {
	_ = command.Wait() // the exit code says it
	stop()
	lines.Wait()
	defer close(watched)
	code := command.ProcessState.ExitCode()
	h.mu.Lock()
	h.exits = append(h.exits, code)
	if code != 0 && code != 200 {
		h.errors++
	}
	h.gone = h.stopping || code == 0 || h.errors >= errorLimit
	again := !h.gone
	h.mu.Unlock()
	if again {
		h.launch(executable)
	}
}

// await returns when the handler answers.
func (h *Host) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	for {
		h.mu.Lock()
		ready, gone, watched := h.ready, h.gone, h.watched
		h.mu.Unlock()
		if gone {
			return errors.New("the handler has ended")
		}
		select {
		case <-ready:
			return nil
		case <-watched:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Stop ends the handler as the host does: SIGKILL, without a word before.
func (h *Host) Stop() {
	h.mu.Lock()
	h.stopping = true
	h.mu.Unlock()
	h.Signal(syscall.SIGKILL)
	h.Wait()
}

// Signal sends the handler a signal.
func (h *Host) Signal(signal os.Signal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.command.Process != nil {
		_ = h.command.Process.Signal(signal) // it may have ended
	}
}

// Wait returns when the process that runs now has ended.
func (h *Host) Wait() {
	h.mu.Lock()
	watched := h.watched
	h.mu.Unlock()
	<-watched
}

// Exits are the exit codes of the processes that have ended, -1 for a signal.
func (h *Host) Exits() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.exits)
}

// Stdout returns the lines that the host would log as information.
func (h *Host) Stdout() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.stdout)
}

// Stderr returns the lines that the host would log as errors.
func (h *Host) Stderr() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.stderr)
}

// ServeHTTP routes as the host does: case is ignored, the first function by name wins, a wrong method is a 404 from the host itself.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.URL.Path = resolve(r.URL.EscapedPath())
	r.URL.RawPath = ""
	for _, f := range h.functions {
		if f.route.MatchString(r.URL.Path) && slices.Contains(f.methods, r.Method) {
			if r.ContentLength > maxBody {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return
			}
			if err := h.await(r.Context()); err != nil {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			h.proxy.ServeHTTP(w, r)
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
}

// resolve unescapes a path but for the slash, whose escape is escaped again on the way out, and resolves its dot segments.
func resolve(escaped string) string {
	kept := strings.NewReplacer("%2F", "%252F", "%2f", "%252f").Replace(escaped)
	raw, err := url.PathUnescape(kept)
	if err != nil {
		return escaped
	}
	var out []string
	for segment := range strings.SplitSeq(raw, "/") {
		switch segment {
		case ".":
		case "..":
			if len(out) > 1 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, segment)
		}
	}
	return strings.Join(out, "/")
}

// Headers that the host does not pass on, in either direction, beside those that HTTP itself keeps to one hop.
var dropped = []string{
	"Forwarded", "Proxy-Connection", "Proxy-Authentication-Info", "Proxy-Features", "Proxy-Instruction", "Security-Scheme", "Alpn",
	"Close", "Http2-Settings", "Upgrade-Insecure-Requests", "Alt-Svc", "Strict-Transport-Security",
}

func (h *Host) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			client, _, _ := net.SplitHostPort(p.In.RemoteAddr)
			id := newGUID()
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", h.addr, h.addr
			p.Out.URL.RawQuery = p.In.URL.RawQuery
			for _, name := range dropped {
				p.Out.Header.Del(name)
			}
			p.Out.Header.Set("X-Forwarded-For", client)
			p.Out.Header.Set("X-Forwarded-Host", p.In.Host)
			p.Out.Header.Set("X-Forwarded-Proto", "http")
			p.Out.Header.Set("X-Azure-Functions-InvocationId", id)
			p.Out.Header.Set("X-Azure-Functions-HostVersion", "4.1052.200")
			p.Out.Header.Set("X-Ms-Invocation-Id", id)
			if tokens := p.In.Header.Values("Authorization"); len(tokens) > 1 {
				p.Out.Header.Set("Authorization", strings.Join(tokens, ", "))
			}
		},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // a client that left is no news
		Transport:     &retrying{&http.Transport{DisableCompression: true, ResponseHeaderTimeout: idleLimit, IdleConnTimeout: time.Minute}},
		ModifyResponse: func(r *http.Response) error {
			for _, name := range dropped {
				r.Header.Del(name)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusInternalServerError) },
	}
}

// retrying tries a connection that is refused ten times, as the host does; nothing was sent then.
type retrying struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t *retrying) RoundTrip(r *http.Request) (response *http.Response, err error) {
	body := r.Body
	r.Body = io.NopCloser(body) // a refused connection must not close it
	if body == nil || r.ContentLength == 0 {
		r.Body = http.NoBody
	}
	for _, pause := range []int{50, 100, 200, 250, 250, 250, 250, 250, 250, 0} {
		response, err = t.RoundTripper.RoundTrip(r)
		if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" {
			return response, err
		}
		time.Sleep(time.Duration(pause) * time.Millisecond)
	}
	return response, err
}

func newGUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:])
}
