package hosttest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const copyBuffer = 64 << 10 // bytes, read and passed on at once

// refuse answers with a status of the host's own, and nothing else.
func (c *call) refuse(status int, more ...field) {
	reason := http.StatusText(status)
	switch status {
	case http.StatusMethodNotAllowed:
		more = append(more, field{"Allow", "OPTIONS"})
	case http.StatusRequestURITooLong:
		reason = "URI Too Long"
	}
	_ = c.answer(context.Background(), status, reason, more, 0, nil)
}

// abort cuts the connection where the answer stands.
func (c *call) abort() {
	c.broken = true
	if tcp, ok := c.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.conn.Close()
}

// answer sends an answer, each piece as it comes. The length is that of the body, -1 when it is not known. An error of the body before its first
// byte leaves the caller without an answer; after it, answered is set and the rest is missing. Ctx ends the sending, also to one who reads nothing.
func (c *call) answer(ctx context.Context, status int, reason string, h header, length int64, from io.Reader) error {
	bodiless := c.method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified
	var piece []byte
	n, err := 0, io.EOF
	if from != nil && length != 0 && !bodiless {
		piece = make([]byte, copyBuffer)
		if n, err = io.ReadAtLeast(from, piece, 1); err != nil && (length > 0 || !errors.Is(err, io.EOF)) {
			return fmt.Errorf("no body: %w", err)
		}
		if n == 0 {
			length = 0
		}
	}
	c.answered = true
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
	chunked := length < 0 && !bodiless && !c.http10
	out := []byte(c.head(status, reason, h, length, bodiless))
	for {
		switch {
		case n > 0 && chunked:
			out = fmt.Appendf(out, "%x\r\n%s\r\n", n, piece[:n])
		case n > 0:
			out = append(out, piece[:n]...)
		}
		if chunked && errors.Is(err, io.EOF) {
			out = append(out, "0\r\n\r\n"...)
		}
		_ = c.conn.SetWriteDeadline(time.Now().Add(cmp.Or(c.idle, defaultIdleLimit)))
		if _, err := c.conn.Write(out); err != nil {
			return errLeft
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err = from.Read(piece)
		out = out[:0]
	}
}

// head is what comes before the body of an answer.
func (c *call) head(status int, reason string, h header, length int64, bodiless bool) string {
	var out strings.Builder
	fmt.Fprintf(&out, "HTTP/1.1 %d %s\r\n", status, reason)
	switch {
	case status == http.StatusNoContent:
	case length > 0, length == 0 && c.method != http.MethodHead:
		fmt.Fprintf(&out, "Content-Length: %d\r\n", length)
	case length < 0 && c.http10:
		c.keep = false
	case length < 0 && !bodiless:
		out.WriteString("Transfer-Encoding: chunked\r\n")
	}
	switch {
	case !c.keep:
		out.WriteString("Connection: close\r\n")
	case c.http10:
		out.WriteString("Connection: keep-alive\r\n")
	}
	h = append(h, c.extra...)
	out.WriteString(h.String())
	if _, ok := h.get("Date"); !ok {
		out.WriteString("Date: " + time.Now().UTC().Format(http.TimeFormat) + "\r\n")
	}
	if _, ok := h.get("Server"); !ok {
		out.WriteString("Server: Kestrel\r\n")
	}
	return out.String() + "\r\n"
}
