package hosttest

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// The limits of Kestrel, the host's web server.
const (
	maxLine        = 8 << 10  // bytes, of the request line
	maxHead        = 32 << 10 // bytes, of all header lines
	maxHeaderLines = 100
)

// call is a request and the way back to its caller.
type call struct {
	method, path, query string // the path decoded, the query as it came, with its question mark
	host                string
	header              header
	length              int64 // of the body; -1 for a chunked one
	body                *body // nil without one

	conn     net.Conn
	in       *bufio.Reader
	http10   bool
	keep     bool                    // the connection is used again
	answered bool                    // its first byte may have been sent
	broken   bool                    // the connection is of no use any more
	extra    header                  // of every answer
	idle     time.Duration           // for a piece of the answer to be taken; 0 for the host's own
	left     context.CancelCauseFunc // the caller has hung up
	watched  chan struct{}           // closed when nobody watches for that any more; nil before
}

// readCall reads a request up to its body. It returns the status with which the host refuses what is no request, before anything else is asked.
func readCall(conn net.Conn, in *bufio.Reader) (*call, int, error) {
	c := &call{conn: conn, in: in, keep: true}
	line, err := readLine(in, maxLine)
	for err == nil && line == "" {
		line, err = readLine(in, maxLine)
	}
	switch {
	case errors.Is(err, errTooLong):
		return c, http.StatusRequestURITooLong, nil
	case err != nil:
		return c, 0, err
	}
	if c.header, err = readHeader(in); err != nil {
		switch {
		case errors.Is(err, errTooLong):
			return c, http.StatusRequestHeaderFieldsTooLarge, nil
		case errors.Is(err, errMalformed):
			return c, http.StatusBadRequest, nil
		}
		return c, 0, err
	}
	return c, c.parse(line), nil
}

var errMalformed = errors.New("malformed header")

// readHeader reads a request's header lines.
func readHeader(in *bufio.Reader) (header, error) {
	var h header
	for left := maxHead; ; {
		line, err := readLine(in, left)
		if err != nil || line == "" {
			return h, err
		}
		if left -= len(line) + 2; len(h) == maxHeaderLines {
			return h, errTooLong
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") || !isASCII(name) || !utf8.ValidString(value) || strings.ContainsAny(value, "\x00\r") {
			return h, errMalformed
		}
		h = append(h, field{name, strings.Trim(value, " \t")})
	}
}

var hostHeader = regexp.MustCompile(`^([a-zA-Z0-9._~!$&'()*+;=%-]*|\[[0-9a-fA-F:.]+\])(:[0-9]*)?$`)

// parse reads the request line and the header, and returns the status of a refusal, or 0.
func (c *call) parse(line string) int {
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[1] == "" || !isASCII(parts[1]) {
		return http.StatusBadRequest
	}
	c.method = parts[0]
	switch version := parts[2]; {
	case version == "HTTP/1.1":
	case version == "HTTP/1.0":
		c.http10 = true
	case strings.HasPrefix(strings.ToUpper(version), "HTTP/"):
		return http.StatusHTTPVersionNotSupported
	default:
		return http.StatusBadRequest
	}
	c.keep = !c.http10 || c.header.has("Connection", "keep-alive")
	if c.header.has("Connection", "close") {
		c.keep = false
	}
	var hasHost bool
	c.host, hasHost = c.header.get("Host")
	if !hasHost && !c.http10 || c.header.count("Host") > 1 || !hostHeader.MatchString(c.host) {
		return http.StatusBadRequest
	}
	if status := c.parseTarget(parts[1]); status != 0 {
		return status
	}
	return c.parseLength()
}

func (c *call) parseTarget(target string) int {
	if target == "*" {
		c.path = target
		if c.method != http.MethodOptions {
			return http.StatusMethodNotAllowed
		}
		return 0
	}
	if scheme, rest, ok := strings.Cut(target, "://"); ok && !strings.Contains(scheme, "/") { // it must name the host that the header names
		authority, _, _ := strings.Cut(rest, "/")
		port := map[string]string{"http": ":80", "https": ":443"}[scheme]
		if authority != c.host && authority != c.host+port {
			return http.StatusBadRequest
		}
		target = strings.TrimPrefix(rest, authority)
	}
	if !strings.HasPrefix(target, "/") {
		return http.StatusBadRequest
	}
	path, query, hasQuery := strings.Cut(target, "?")
	if hasQuery {
		c.query = "?" + query
	}
	var ok bool
	if c.path, ok = decodePath(path); !ok {
		return http.StatusBadRequest
	}
	return 0
}

func (c *call) parseLength() int {
	length, err := c.header.length()
	if err != nil {
		return http.StatusBadRequest
	}
	c.length = max(length, 0)
	if codings, ok := c.header.get("Transfer-Encoding"); ok {
		if !strings.HasSuffix(strings.ToLower(codings), "chunked") {
			return http.StatusBadRequest
		}
		c.length = -1
		for i, f := range c.header { // both are an attempt at smuggling
			if strings.EqualFold(f.name, "Content-Length") {
				c.header[i].name, c.keep = "X-Content-Length", false
			}
		}
	} else if length < 0 && c.http10 && (c.method == http.MethodPost || c.method == http.MethodPut) {
		return http.StatusBadRequest
	}
	if c.length != 0 {
		c.body = newBody(c)
	}
	return 0
}

// watch notices when the caller hangs up. It reads ahead, so that it can begin only where the body ends.
func (c *call) watch() {
	if c.watched != nil {
		return
	}
	_ = c.conn.SetReadDeadline(time.Time{})
	c.watched = make(chan struct{})
	go func() {
		defer close(c.watched)
		if _, err := c.in.Peek(1); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			c.left(errLeft)
		}
	}()
}

// unwatch ends watch, or keeps it from beginning.
func (c *call) unwatch() {
	if c.watched == nil {
		c.watched = make(chan struct{})
		close(c.watched)
	}
	_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	<-c.watched
	_ = c.conn.SetReadDeadline(time.Time{})
}
