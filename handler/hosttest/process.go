package hosttest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	probeEvery  = 25 * time.Millisecond
	errorLimit  = 3                      // exits that count, before the host stops
	killGrace   = 2 * time.Second        // after functionTimeout
	replaceHold = 400 * time.Millisecond // from a new process to the end of the old one
)

// process is a run of the handler.
type process struct {
	upstream *upstream // the same after an exit, another after a restart of the host
	command  *exec.Cmd
	started  time.Time
	ready    chan struct{} // closed when the probe is answered
	ended    chan struct{} // closed when the end was dealt with
	meant    bool          // the host ends it itself
	replaced bool          // another runs already
}

// launch starts a process; watch waits for it. The host's own variables win over the environment. The caller holds mu.
func (h *Host) launch(u *upstream) *process {
	executable := filepath.Join(h.dist, h.script.executable)
	_, port, _ := net.SplitHostPort(u.addr)
	worker := newGUID()
	p := &process{
		upstream: u, command: exec.Command(executable), started: time.Now(), ready: make(chan struct{}), ended: make(chan struct{}),
	}
	p.command.Dir = h.dist
	p.command.Env = append(slices.Clone(h.env),
		"FUNCTIONS_CUSTOMHANDLER_PORT="+port, "FUNCTIONS_HTTPWORKER_PORT="+port,
		"FUNCTIONS_CUSTOMHANDLER_WORKER_ID="+worker, "FUNCTIONS_HTTPWORKER_ID="+worker, "FUNCTIONS_APP_ROOT_PATH="+h.dist)
	var lines sync.WaitGroup
	out, errOut := h.collect(&lines, &h.stdout), h.collect(&lines, &h.stderr)
	p.command.Stdout, p.command.Stderr = out, errOut
	err := p.command.Start()
	_ = out.Close()
	_ = errOut.Close()
	if err != nil {
		h.gone = true
		h.stderr = append(h.stderr, "Failed to start Worker Channel. Process fileName: "+executable)
		close(p.ended)
		return p
	}
	go h.watch(p, &lines)
	return p
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
func (p *process) probe(ctx context.Context) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.upstream.addr+"/", nil)
		response, err := client.Do(request)
		if err == nil {
			_ = response.Body.Close()
			close(p.ready)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(probeEvery):
		}
	}
}

// watch probes the process, waits for its end, and follows it by the host's rules: nothing after exit 0, another process after 200 and after an
// end that the host meant; after anything else too, until errorLimit. One that does not answer in time is killed. One that ends with 0 before it
// answers is missed only then.
func (h *Host) watch(p *process, lines *sync.WaitGroup) {
	defer close(p.ended)
	probing, stop := context.WithTimeout(context.Background(), h.probeLimit)
	var probe sync.WaitGroup
	probe.Go(func() {
		p.probe(probing)
		if errors.Is(probing.Err(), context.DeadlineExceeded) && !p.answered() {
			_ = p.command.Process.Kill() // it may have ended
		}
	})
	_ = p.command.Wait() // the exit code says it
	lines.Wait()
	p.upstream.close()
	code := p.command.ProcessState.ExitCode()
	h.mu.Lock()
	h.exits = append(h.exits, code)
	h.gone = h.gone || h.stopping
	over := h.stopping || p.replaced || code == 0 && p.answered()
	h.mu.Unlock()
	missed := code == 0 && !over
	if missed {
		select {
		case <-probing.Done():
		case <-h.stopped:
		}
	}
	stop()
	probe.Wait()
	if !over {
		h.follow(p, missed || code != 0 && code != 200)
	}
}

// answered tells whether the probe was answered.
func (p *process) answered() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// follow starts the next process, unless the host stops.
func (h *Host) follow(p *process, counts bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping {
		h.gone = true
		return
	}
	if counts && !p.meant {
		h.errors++
	}
	if h.errors >= errorLimit {
		h.gone = true
		h.server.close()
		return
	}
	h.running = h.launch(p.upstream)
}

// await returns the process that answers.
func (h *Host) await(ctx context.Context) (*process, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 4*h.probeLimit, errors.New("the handler does not answer"))
	defer cancel()
	for {
		h.mu.Lock()
		p, gone := h.running, h.gone
		h.mu.Unlock()
		if gone {
			return nil, errors.New("the handler has ended")
		}
		select {
		case <-p.ready:
			return p, nil
		default:
		}
		select {
		case <-p.ready:
		case <-p.ended:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// kill ends a process that runs too long. It is started again, and the end does not count.
func (h *Host) kill(p *process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.meant = true
	_ = p.command.Process.Signal(syscall.SIGKILL) // it may have ended
}

// Restart plays what follows a change of host.json or of a function.json: both are read again, a new process starts, on a port of its own, and only
// when it answers the old one is killed, its calls cut. When the new one ends before it answers, the old one goes too, and that is an error.
func (h *Host) Restart() error {
	script, err := load(h.dist)
	if err != nil {
		return err
	}
	u, err := newUpstream(h.idleLimit)
	if err != nil {
		return err
	}
	h.mu.Lock()
	old := h.running
	h.script, h.errors = script, 0
	fresh := h.launch(u)
	h.mu.Unlock()
	var failed error
	select {
	case <-fresh.ready:
	case <-fresh.ended:
		failed = errors.New("the new process has ended")
	}
	h.mu.Lock()
	if failed == nil {
		old, h.running = h.running, fresh // the old one may have been started again
	}
	old.replaced = true
	h.mu.Unlock()
	time.Sleep(replaceHold)
	h.kill(old)
	<-old.ended
	old.upstream.release()
	return failed
}

// newUpstream picks a port for the handler. Unlike the host, which may lose it to somebody else, it keeps a socket bound there: nobody is given a
// port that is bound, while the handler can bind it too and listen.
func newUpstream(idleLimit time.Duration) (*upstream, error) {
	syscall.ForkLock.RLock() // no child may have it
	hold, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	syscall.CloseOnExec(hold)
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("no socket for the handler's port: %w", err)
	}
	u := &upstream{idleLimit: idleLimit, hold: hold}
	err = errors.Join(syscall.SetsockoptInt(hold, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(hold, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	at, nerr := syscall.Getsockname(hold)
	inet, ok := at.(*syscall.SockaddrInet4)
	if err = errors.Join(err, nerr); err != nil || !ok {
		u.release()
		return nil, fmt.Errorf("no port for the handler: %w", err)
	}
	u.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(inet.Port))
	return u, nil
}
