package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/logs"
)

// Deadlines bound the waits for an agent.
type Deadlines struct {
	Connect   time.Duration // to it
	FirstByte time.Duration // of its answer
	Silence   time.Duration // within its answer
}

// poster sends POSTs, each with a connection of its own. A request is sent again only where the agent cannot have taken it.
type poster struct {
	client *http.Client
}

const (
	maxAttempts  = 3
	longestPause = 5 * time.Second        // that Retry-After is waited for
	firstPause   = 100 * time.Millisecond // after a failed connection, then longer
)

func newPoster(d Deadlines) *poster {
	dialer := &net.Dialer{Timeout: d.Connect}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &impatientConn{conn, d.Silence}, nil
		},
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   d.Connect,
		ResponseHeaderTimeout: d.FirstByte,
		DisableCompression:    true, // a compressed stream comes in clumps
		MaxIdleConnsPerHost:   100,
		IdleConnTimeout:       d.Silence / 2,
		TLSNextProto:          map[string]func(string, *tls.Conn) http.RoundTripper{}, // no HTTP/2, whose streams share their silence
	}
	return &poster{&http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// impatientConn is a connection of which a read fails when nothing has come, and nothing was sent, for a while.
type impatientConn struct {
	net.Conn
	silence time.Duration
}

func (c *impatientConn) Read(b []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(c.silence))
	return c.Conn.Read(b)
}

func (c *impatientConn) Write(b []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(c.silence)) // of a read that waits since the last answer
	return c.Conn.Write(b)
}

// do sends a request until it is answered, at most three times: again after a failed connection, and after 429 and 503 with a short Retry-After.
// The caller closes the answer's body.
func (p *poster) do(ctx context.Context, url string, header http.Header, body []byte) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return nil, p.failure(ctx, err)
		}
		request.Header = header
		response, err := p.client.Do(request)
		pause := time.Duration(attempt) * firstPause
		switch {
		case attempt == maxAttempts, err != nil && !isConnectError(err):
			return response, p.failure(ctx, err)
		case err == nil:
			pause = retryAfter(response.Header)
			isBusy := response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable
			if !isBusy || pause <= 0 || pause > longestPause {
				return response, nil
			}
			_ = response.Body.Close()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// isConnectError reports whether a request failed before anything of it was sent.
func isConnectError(err error) bool {
	failed, ok := errors.AsType[*net.OpError](err)
	return ok && failed.Op == "dial"
}

// failure says what a broken exchange means. Its cause does not quote the URL.
func (p *poster) failure(ctx context.Context, err error) error {
	timeout, isTimeout := errors.AsType[net.Error](err)
	failure, isFailure := errors.AsType[*chat.Failure](err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case isFailure:
		return failure
	case isTimeout && timeout.Timeout():
		return &chat.Failure{Code: chat.ErrAgentTimeout.Code, Err: errors.New("the agent is silent")}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return failed("agent", logs.Because(logs.Broken, errors.New("the connection broke")))
	}
	if opError, ok := errors.AsType[*net.OpError](err); ok {
		return failed("agent", opError)
	}
	return failed("agent", rootOf(err))
}

func rootOf(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

func failed(what string, err error) error {
	return &chat.Failure{Code: chat.ErrAgentFailed.Code, Err: fmt.Errorf("%s: %w", what, err)}
}

// retryAfter reads Retry-After in seconds; 0: none.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(n) * time.Second
}
