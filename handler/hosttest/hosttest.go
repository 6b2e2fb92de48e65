// Package hosttest plays the Azure Functions host: it runs a packaged handler as the host does, and passes requests on to it.
//
// It follows the host's version 4 with enableProxyingHttpRequest, as measured: the loading of host.json and function.json; the start, probe, end
// and replacement of the process; the limits and refusals of its web server; routing; what it changes in a request and in an answer; how often it
// sends a request again; CORS on Flex. TestExchanges compares it with the host's own forwarding part. What it leaves out: keys, WebSockets, the scale
// controller, maxOutstandingRequests and telemetry.
package hosttest

import (
	"cmp"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	defaultBodyLimit = 104_857_600       // bytes
	defaultIdleLimit = 240 * time.Second // without a byte of a request or of an answer
	probeLimit       = 30 * time.Second  // from the start of a process to its first answer
	stopGrace        = 30 * time.Second  // for the calls that run when the host stops
	impatientBuffer  = 16 << 10          // bytes that a connection of an impatient host holds; what the system chooses would outlast its times
)

// Host is a running host with its handler. It ends with the test.
type Host struct {
	URL string

	dist          string
	env           []string
	bodyLimit     int64
	hidesHomepage bool
	cors          *cors // nil where the front end has it
	server        *server
	stopped       chan struct{} // closed when the host stops
	released      sync.Once

	probeLimit, idleLimit, stopGrace time.Duration

	mu             sync.Mutex
	script         script
	running        *process
	exits          []int         // exit codes so far; -1 for a signal
	errors         int           // exits that count
	longest        time.Duration // of the calls that have ended
	gone           bool          // no process, and none will come
	stopping       bool
	stdout, stderr []string
}

// Start loads a script root, starts its handler with exactly this environment beside the host's own variables, and serves at URL. The host itself
// reads there FUNCTIONS_REQUEST_BODY_SIZE_LIMIT and AzureWebJobsDisableHomepage.
func Start(t testing.TB, dist string, env ...string) *Host {
	t.Helper()
	return start(t, &Host{dist: dist, env: env})
}

// StartImpatient is Start of a host that gives a connection up after idle without a byte, in place of 240 s, and holds little of an answer.
func StartImpatient(t testing.TB, dist string, idle time.Duration, env ...string) *Host {
	t.Helper()
	return start(t, &Host{dist: dist, env: env, idleLimit: idle})
}

// StartFlex is Start on the Flex Consumption plan, where the host answers preflights itself and lets these origins read the answers.
func StartFlex(t testing.TB, dist string, origins []string, env ...string) *Host {
	t.Helper()
	return start(t, &Host{dist: dist, env: env, cors: &cors{origins}})
}

func start(t testing.TB, h *Host) *Host {
	t.Helper()
	open(t, h)
	_, err := h.await(t.Context())
	require.NoError(t, err, "stdout: %v\nstderr: %v", h.Stdout(), h.Stderr())
	return h
}

// open starts a host whose own fields, up to the limits, are set. A limit that is not has the host's value.
func open(t testing.TB, h *Host) {
	t.Helper()
	var err error
	h.script, err = load(h.dist)
	require.NoError(t, err)
	h.stopped = make(chan struct{})
	h.bodyLimit = defaultBodyLimit
	if limit := h.setting("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"); limit != "" {
		h.bodyLimit, err = strconv.ParseInt(limit, 10, 64)
		require.NoError(t, err)
	}
	h.hidesHomepage = strings.EqualFold(h.setting("AzureWebJobsDisableHomepage"), "true")
	h.probeLimit = cmp.Or(h.probeLimit, probeLimit)
	h.idleLimit = cmp.Or(h.idleLimit, defaultIdleLimit)
	h.stopGrace = cmp.Or(h.stopGrace, stopGrace)
	u, err := newUpstream(h.idleLimit)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h.URL = "http://" + l.Addr().String()
	h.mu.Lock()
	h.server = newServer(l, h.handle)
	h.running = h.launch(u)
	h.mu.Unlock()
	t.Cleanup(h.Stop)
}

// HandlerURL is where the handler listens.
func (h *Host) HandlerURL() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return "http://" + h.running.upstream.addr
}

// PID is the process id of the handler that runs now.
func (h *Host) PID() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running.command.Process.Pid
}

// LongestCall is how long the longest of the calls took that the handler had and that have ended: the time that functionTimeout bounds.
func (h *Host) LongestCall() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.longest
}

// setting is a variable of the environment, the last of that name.
func (h *Host) setting(name string) string {
	for _, variable := range slices.Backward(h.env) {
		if value, ok := strings.CutPrefix(variable, name+"="); ok {
			return value
		}
	}
	return ""
}

// Stop ends the host at once, and the handler as the host does: SIGKILL, without a word before.
func (h *Host) Stop() {
	h.end(0)
}

// Terminate stops the host as a SIGTERM does: no more calls are taken, those that run go on for 30 s, and then the handler is killed.
func (h *Host) Terminate() {
	h.server.drain(h.stopGrace)
	h.end(0)
}

func (h *Host) end(grace time.Duration) {
	h.mu.Lock()
	if !h.stopping {
		h.stopping = true
		close(h.stopped)
	}
	h.mu.Unlock()
	h.Signal(syscall.SIGKILL)
	h.Wait()
	h.server.drain(grace)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released.Do(h.running.upstream.release)
}

// LoseAnswers has the connections of the next n calls end when the handler answers, before the host has a byte. The host then sends again
// what it may.
func (h *Host) LoseAnswers(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running.upstream.lose.Store(int64(n))
}

// Signal sends the handler a signal.
func (h *Host) Signal(signal os.Signal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running.command.Process != nil {
		_ = h.running.command.Process.Signal(signal) // it may have ended
	}
}

// Wait returns when the process that runs now has ended.
func (h *Host) Wait() {
	h.mu.Lock()
	ended := h.running.ended
	h.mu.Unlock()
	<-ended
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

func (h *Host) loaded() script {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.script
}
