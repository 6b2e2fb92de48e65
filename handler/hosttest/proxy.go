package hosttest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Headers that the host passes on in neither direction.
var hopByHop = []string{
	"Connection", "Transfer-Encoding", "Keep-Alive", "Upgrade", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authentication-Info",
	"Proxy-Authorization", "Proxy-Features", "Proxy-Instruction", "Security-Scheme", "ALPN", "Close", "HTTP2-Settings",
	"Upgrade-Insecure-Requests", "TE", "Alt-Svc",
}

// Headers of a request that the host replaces or removes.
var replaced = []string{
	"Host", "Content-Length", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix",
	"X-Azure-Functions-InvocationId", "X-Azure-Functions-HostVersion", "x-ms-invocation-id",
}

// Headers that make .NET give a request content, though it has no body.
var contentHeaders = []string{
	"Allow", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Location", "Content-MD5", "Content-Range", "Content-Type",
	"Expires", "Last-Modified",
}

var errTimeout = errors.New("the call exceeded functionTimeout")

// handle answers a call: by itself, or with what the handler says.
func (h *Host) handle(ctx context.Context, c *call) {
	if h.cors != nil && h.cors.preflight(c) {
		return
	}
	script := h.loaded()
	switch {
	case !script.match(c.method, c.path) && c.path == "/":
		h.homepage(c)
	case !script.match(c.method, c.path):
		c.refuse(http.StatusNotFound)
		c.keep = c.keep && c.length <= h.bodyLimit
	case c.length > h.bodyLimit:
		c.refuse(http.StatusInternalServerError)
		c.keep = false
	default:
		h.forward(ctx, c, script.timeout)
	}
}

// homepage is what the host shows at /, in place of 150 kB.
func (h *Host) homepage(c *call) {
	if h.hidesHomepage {
		c.refuse(http.StatusNoContent)
		return
	}
	page := "Your Functions 4.0 app is up and running"
	_ = c.answer(context.Background(), http.StatusOK, "OK", header{{"Content-Type", "text/html"}}, int64(len(page)), strings.NewReader(page))
}

// forward sends a call to the handler and its answer back. A body with a length is read whole first; the call's time begins after it.
func (h *Host) forward(ctx context.Context, c *call, timeout time.Duration) {
	var whole []byte
	if c.length > 0 {
		whole = make([]byte, c.length)
		if _, err := io.ReadFull(c.body, whole); err != nil {
			c.fail(err)
			return
		}
		c.watch()
	}
	if c.body != nil {
		c.body.most = h.bodyLimit
	}
	p, err := h.await(ctx)
	if err != nil {
		c.fail(err)
		return
	}
	began := time.Now()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.longest = max(h.longest, time.Since(began))
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if timeout > 0 {
		defer time.AfterFunc(timeout+killGrace, func() {
			cancel(errTimeout)
			h.kill(p)
		}).Stop()
	}
	answer, err := p.upstream.send(ctx, newRequest(c, p.upstream.addr, whole))
	if err != nil {
		c.fail(cmp.Or(context.Cause(ctx), err))
		return
	}
	if !answer.passable() {
		c.refuse(http.StatusInternalServerError)
		return
	}
	kept := answer.header.without(hopByHop, []string{"Content-Length", "Strict-Transport-Security"})
	c.idle = h.idleLimit
	if tcp, ok := c.conn.(*net.TCPConn); ok && h.idleLimit < defaultIdleLimit {
		_ = tcp.SetWriteBuffer(impatientBuffer)
	}
	if err := c.answer(ctx, answer.status, answer.reason, kept, answer.length, answer.body); err != nil {
		c.fail(err)
	}
}

// fail ends a call that has no answer of the handler's: with 500, or, where something was sent or nobody listens, by cutting the connection.
func (c *call) fail(err error) {
	switch {
	case c.answered, errors.Is(err, errLeft), c.body != nil && errors.Is(c.body.err, errLeft):
		c.abort()
	case c.body != nil && errors.Is(c.body.err, errTooMuch):
		c.keep = false
		c.refuse(http.StatusInternalServerError)
	default:
		c.refuse(http.StatusInternalServerError)
	}
}

// passable tells whether the host's web server would send such an answer.
func (r *response) passable() bool {
	bodiless := r.status == http.StatusNoContent || r.status == http.StatusResetContent
	if r.status == http.StatusSwitchingProtocols || r.length > 0 && bodiless || r.header.count("Content-Length") > 1 {
		return false
	}
	for _, f := range r.header {
		for _, c := range []byte(f.value) {
			if c >= 0x7f || c < ' ' && c != '\t' {
				return false
			}
		}
	}
	return true
}

// newRequest makes of a call what the handler gets.
func newRequest(c *call, addr string, whole []byte) *request {
	r := &request{method: c.method, content: c.body != nil, chunked: c.length < 0}
	client, _, _ := net.SplitHostPort(c.conn.RemoteAddr().String())
	id := newGUID()
	out := header{{"Host", addr}}
	for _, f := range c.header.without(hopByHop, replaced) {
		if isToken(f.name) {
			out = out.join(f)
		}
	}
	out = append(out, field{"X-Azure-Functions-HostVersion", "4.1052.200"}, field{"X-Azure-Functions-InvocationId", id},
		field{"x-ms-invocation-id", id}, field{"X-Forwarded-For", client})
	if c.host != "" {
		out = append(out, field{"X-Forwarded-Host", c.host})
	}
	out = append(out, field{"X-Forwarded-Proto", "http"})
	if c.header.has("Upgrade", "websocket") && c.header.has("Connection", "upgrade") {
		out = append(out, field{"Connection", "Upgrade"}, field{"Upgrade", "websocket"})
	}
	for _, f := range c.header {
		r.content = r.content || listed(f.name, contentHeaders) || strings.EqualFold(f.name, "Content-Length")
	}
	switch {
	case r.chunked:
		r.body = c.body
		out = append(out, field{"Transfer-Encoding", "chunked"})
	case len(whole) > 0:
		r.body = bytes.NewReader(whole)
		out = append(out, field{"Content-Length", strconv.Itoa(len(whole))})
	case r.content, c.method == http.MethodPost, c.method == http.MethodPut, c.method == http.MethodPatch:
		out = append(out, field{"Content-Length", "0"})
	}
	r.expect = c.header.has("Expect", "100-continue")
	r.head = fmt.Sprintf("%s %s%s HTTP/1.1\r\n%s\r\n", c.method, encodePath(c.path), encodeQuery(c.query), out)
	return r
}

// join adds a line to a header, or its value to the line of that name.
func (h header) join(f field) header {
	separator := ", "
	switch strings.ToLower(f.name) {
	case "cookie":
		separator = "; "
	case "user-agent":
		separator = " "
	}
	for i := range h {
		if strings.EqualFold(h[i].name, f.name) {
			h[i].value += separator + f.value
			return h
		}
	}
	return append(h, f)
}

func newGUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:])
}
