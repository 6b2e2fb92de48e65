package hosttest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	attempts     = 10
	firstPause   = 50 * time.Millisecond
	longestPause = 250 * time.Millisecond
	sendings     = 4               // in one attempt, of a request without content
	sendBuffer   = 4 << 10         // bytes
	keepIdle     = time.Minute     // a connection without a request
	expectLimit  = 1 * time.Second // for the handler to ask for a body
)

var (
	errNoAnswer = errors.New("the connection ended before an answer")
	errSent     = errors.New("the body was sent already")
	errNotASCII = errors.New("a header is not ASCII")
)

// upstream is the side that the handler sees: its address, and the connections to it that wait for a request.
type upstream struct {
	addr      string
	idleLimit time.Duration // without a byte
	hold      int           // a socket that keeps the port
	lose      atomic.Int64  // answers that do not arrive

	mu   sync.Mutex
	idle []*link
}

// link is a connection to the handler.
type link struct {
	*net.TCPConn
	in    *bufio.Reader
	limit time.Duration
	since time.Time // idle
}

// request is what the handler gets. Content is what .NET calls so: there is a body, of no bytes perhaps, that can be sent once.
type request struct {
	method  string
	head    string
	body    io.Reader
	content bool
	chunked bool
	expect  bool
	sent    bool
}

// response is what the handler answers. Its body must be read to the end for the connection to be used again.
type response struct {
	status int
	reason string
	header header
	length int64 // -1 when it is not known
	body   io.Reader
}

// Read implements io.Reader: no byte may be longer than the limit in coming.
func (l *link) Read(p []byte) (int, error) {
	_ = l.SetReadDeadline(time.Now().Add(l.limit))
	return l.TCPConn.Read(p)
}

// Write implements io.Writer.
func (l *link) Write(p []byte) (int, error) {
	_ = l.SetWriteDeadline(time.Now().Add(l.limit))
	return l.TCPConn.Write(p)
}

// get returns a connection that the handler has not closed.
func (u *upstream) get(ctx context.Context) (*link, error) {
	for {
		u.mu.Lock()
		if len(u.idle) == 0 {
			u.mu.Unlock()
			break
		}
		l := u.idle[len(u.idle)-1]
		u.idle = u.idle[:len(u.idle)-1]
		u.mu.Unlock()
		if time.Since(l.since) < keepIdle && l.open() {
			return l, nil
		}
		_ = l.Close()
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", u.addr)
	if err != nil {
		return nil, err
	}
	l := &link{TCPConn: conn.(*net.TCPConn), limit: u.idleLimit}
	if u.idleLimit < defaultIdleLimit {
		_ = l.SetReadBuffer(impatientBuffer)
	}
	l.in = bufio.NewReader(l)
	return l, nil
}

// open tells whether nothing has come since the last answer, not even the end.
func (l *link) open() bool {
	raw, err := l.SyscallConn()
	if err != nil || l.in.Buffered() > 0 {
		return false
	}
	quiet := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err == nil && quiet
}

func (u *upstream) put(l *link) {
	l.since = time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.idle = append(u.idle, l)
}

// release gives the port up.
func (u *upstream) release() { _ = syscall.Close(u.hold) }

// close closes the connections that wait.
func (u *upstream) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, l := range u.idle {
		_ = l.Close()
	}
	u.idle = nil
}

// send sends a request until an answer begins, as often as the host does: ten attempts, within each four sendings of what has no content, when
// the connection ends without a byte of an answer. What has a body is sent once, and what came to no end in time is not sent again. The connection
// ends with ctx.
func (u *upstream) send(ctx context.Context, r *request) (*response, error) {
	pause := firstPause
	for n := 1; ; n++ {
		answer, err := u.attempt(ctx, r)
		if err == nil || n == attempts || errors.Is(err, os.ErrDeadlineExceeded) {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

func (u *upstream) attempt(ctx context.Context, r *request) (*response, error) {
	if !isASCII(r.head) {
		return nil, errNotASCII
	}
	for range sendings {
		if r.body != nil && r.sent {
			return nil, errSent
		}
		l, err := u.get(ctx)
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { _ = l.Close() })
		answer, err := u.exchange(l, r, stop)
		if err == nil {
			return answer, nil
		}
		stop()
		_ = l.Close()
		if !errors.Is(err, errNoAnswer) || r.content || ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, errNoAnswer
}

// exchange sends a request, whole, and only then reads the head of the answer: one that comes early waits.
func (u *upstream) exchange(l *link, r *request, stop func() bool) (*response, error) {
	if _, err := io.WriteString(l, r.head); err != nil {
		return nil, err
	}
	if r.body != nil {
		r.sent = true
		if !r.expect || !l.answersEarly() {
			if err := l.copy(r); err != nil {
				return nil, err
			}
		}
	}
	if _, err := l.in.Peek(1); errors.Is(err, io.EOF) {
		return nil, errNoAnswer
	}
	if u.lose.Load() > 0 && u.lose.Add(-1) >= 0 {
		return nil, errNoAnswer
	}
	answer, reusable, err := readResponse(l.in, r.method)
	if err != nil {
		return nil, err
	}
	done := func() {
		if stop() && reusable && l.in.Buffered() == 0 {
			u.put(l)
			return
		}
		_ = l.Close()
	}
	if answer.body == nil {
		done()
	} else {
		answer.body = &closing{answer.body, done}
	}
	return answer, nil
}

// answersEarly waits for the handler to ask for the body, or to refuse it; but not for long.
func (l *link) answersEarly() bool {
	limit := l.limit
	defer func() { l.limit = limit }()
	l.limit = expectLimit
	start, err := l.in.Peek(len("HTTP/1.1 1"))
	return err == nil && start[len(start)-1] != '1'
}

// copy sends the body. What is less than a buffer waits for more.
func (l *link) copy(r *request) error {
	buffer := bufio.NewWriterSize(l, sendBuffer)
	var to io.Writer = buffer
	if r.chunked {
		to = chunkWriter{buffer}
	}
	if _, err := io.CopyBuffer(to, struct{ io.Reader }{r.body}, make([]byte, copyBuffer)); err != nil {
		return err
	}
	if r.chunked {
		_, _ = buffer.WriteString("0\r\n\r\n")
	}
	return buffer.Flush()
}

// chunkWriter writes each piece as a chunk.
type chunkWriter struct{ to *bufio.Writer }

// Write implements io.Writer.
func (w chunkWriter) Write(p []byte) (int, error) {
	_, _ = fmt.Fprintf(w.to, "%x\r\n", len(p))
	n, _ := w.to.Write(p)
	_, err := w.to.WriteString("\r\n") // it has the errors before it too
	return n, err
}

// closing calls done at the end of a body, whichever it is.
type closing struct {
	io.Reader
	done func()
}

// Read implements io.Reader.
func (c *closing) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err != nil && c.done != nil {
		c.done()
		c.done = nil
	}
	return n, err
}

// readResponse reads the head of an answer, and tells whether the connection can be used after its body. Answers of 1xx are passed over.
func readResponse(in *bufio.Reader, method string) (*response, bool, error) {
	for {
		r, version, err := readResponseHead(in)
		if err != nil {
			return nil, false, err
		}
		if r.status == http.StatusSwitchingProtocols || r.status >= 200 {
			return r, r.frame(in, method, version), nil
		}
	}
}

func readResponseHead(in *bufio.Reader) (*response, string, error) {
	line, err := readLine(in, maxHead)
	if err != nil {
		return nil, "", err
	}
	version, rest, _ := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(rest, " ")
	r := &response{reason: reason}
	if r.status, err = strconv.Atoi(code); err != nil || len(code) != 3 || !strings.HasPrefix(version, "HTTP/1.") {
		return nil, "", fmt.Errorf("not an answer: %q", line)
	}
	if r.reason == "" {
		r.reason = http.StatusText(r.status)
	}
	for left := 64 << 10; ; {
		line, err := readLine(in, left)
		if err != nil {
			return nil, "", err
		}
		if line == "" {
			return r, version, nil
		}
		left -= len(line)
		if last := len(r.header) - 1; strings.HasPrefix(line, " ") && last >= 0 { // a folded line
			r.header[last].value += "  " + line
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimRight(name, " "); !ok || !isToken(name) {
			return nil, "", fmt.Errorf("not a header: %q", line)
		}
		r.header = append(r.header, field{name, strings.Trim(value, " \t")})
	}
}

// frame finds the body, and tells whether the connection can be used after it.
func (r *response) frame(in *bufio.Reader, method, version string) bool {
	r.length, _ = r.header.length() // two are not passed on
	_, coded := r.header.get("Transfer-Encoding")
	reusable := version == "HTTP/1.1" && !r.header.has("Connection", "close")
	switch {
	case coded:
		r.length = -1
		r.body = httputil.NewChunkedReader(in)
		r.body = &trailing{r.body, in}
	case r.length > 0:
		r.body = &exact{in, r.length}
	case r.length < 0:
		r.body = in
		reusable = false
	}
	if method == http.MethodHead || r.status == http.StatusNoContent || r.status == http.StatusNotModified {
		reusable = reusable && (coded || r.length >= 0 || method != http.MethodHead)
		r.body = nil
	}
	return reusable
}

// trailing is a chunked body with the lines behind it.
type trailing struct {
	io.Reader
	in *bufio.Reader
}

// Read implements io.Reader.
func (t *trailing) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if errors.Is(err, io.EOF) && t.in != nil {
		in := t.in
		t.in = nil
		if terr := skipTrailers(in); terr != nil {
			err = terr
		}
	}
	return n, err
}

// exact is a body of so many bytes, no less.
type exact struct {
	in   io.Reader
	left int64
}

// Read implements io.Reader.
func (e *exact) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.in.Read(p[:min(int64(len(p)), e.left)])
	if e.left -= int64(n); errors.Is(err, io.EOF) && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
