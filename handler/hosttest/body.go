package hosttest

import (
	"errors"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"strings"
	"time"
)

const (
	leastRate  = 240 // bytes a second of a request's body, after rateGrace
	rateGrace  = 5 * time.Second
	drainLimit = 5 * time.Second // for what is left of a body after the answer
)

var (
	errLeft    = errors.New("the caller has left")
	errSlow    = errors.New("the body comes too slowly")
	errTooMuch = errors.New("the body is too large")
)

// body reads a request's body, and measures how fast it comes.
type body struct {
	c      *call
	in     io.Reader
	expect bool  // the caller waits for 100 Continue
	most   int64 // bytes of a chunked one
	read   int64
	waited time.Duration
	err    error
}

func newBody(c *call) *body {
	b := &body{c: c, in: io.LimitReader(c.in, c.length), most: defaultBodyLimit}
	if c.length < 0 {
		b.in = httputil.NewChunkedReader(c.in)
	}
	expect, _ := c.header.get("Expect")
	b.expect = strings.EqualFold(expect, "100-continue") && !c.http10
	return b
}

// Read implements io.Reader. Its errors are errLeft, errSlow, errTooMuch, or of a malformed chunk.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.expect {
		b.expect = false
		if b.c.in.Buffered() == 0 { // it did not wait
			_, _ = io.WriteString(b.c.conn, "HTTP/1.1 100 Continue\r\n\r\n")
		}
	}
	begun := time.Now()
	allowed := max(rateGrace, time.Duration(b.read)*time.Second/leastRate)
	_ = b.c.conn.SetReadDeadline(begun.Add(allowed - b.waited))
	n, err := b.in.Read(p)
	b.waited += time.Since(begun)
	b.read += int64(n)
	if b.c.length < 0 && b.read > b.most {
		b.err = errTooMuch
		return 0, b.err
	}
	if b.err = b.judge(err); errors.Is(b.err, io.EOF) {
		b.c.watch()
	}
	return n, b.err
}

func (b *body) judge(err error) error {
	switch {
	case errors.Is(err, io.EOF) && b.c.length < 0:
		if err := skipTrailers(b.c.in); err != nil {
			return errLeft
		}
	case errors.Is(err, io.EOF) && b.read < b.c.length, errors.Is(err, io.ErrUnexpectedEOF):
		return errLeft
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSlow
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return errLeft
	}
	return err
}

// drained reads what is left of the body, for as long as the host would.
func (c *call) drained() bool {
	if c.body == nil || errors.Is(c.body.err, io.EOF) {
		return true
	}
	if c.body.err != nil || c.body.expect || !c.keep {
		linger(c.conn, c.in)
		return false
	}
	end := time.AfterFunc(drainLimit, func() { _ = c.conn.Close() })
	defer end.Stop()
	_, err := io.Copy(io.Discard, c.body)
	return err == nil
}
