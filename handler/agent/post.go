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
	"net/url"
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
	client    *http.Client
	deadlines Deadlines
}

const (
	maxAttempts  = 3
	longestPause = 5 * time.Second        // that Retry-After is waited for
	firstPause   = 100 * time.Millisecond // after a failed connection, then longer
)

func newPoster(d Deadlines) *poster {
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		DisableCompression:  true, // a compressed stream comes in clumps
		MaxIdleConnsPerHost: 100,
		IdleConnTimeout:     d.Silence / 2,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{}, // no HTTP/2, whose streams share their silence
	}
	transport.DialContext = d.connect
	transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return d.connectTLS(ctx, network, address, transport.TLSClientConfig)
	}
	return &poster{&http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, d}
}

// connectError means that there is no connection, so nothing of a request was sent.
type connectError struct{ error }

func (e *connectError) Unwrap() error { return e.error }

func (d Deadlines) connect(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: d.Connect}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, &connectError{err}
	}
	return &impatientConn{conn, d.Silence}, nil
}

// connectTLS is connect with a TLS handshake, in the same time.
func (d Deadlines) connectTLS(ctx context.Context, network, address string, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Connect)
	defer cancel()
	conn, err := d.connect(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
		_ = conn.Close()
		return nil, &connectError{err}
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, &connectError{err}
	}
	return secure, nil
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

// do sends a request until it is answered, at most three times: again after a failed connection, and after 429 and 503 with a short Retry-After,
// while there is time for another connection, or for a first byte. The caller closes the answer's body.
func (p *poster) do(ctx context.Context, address string, header http.Header, body []byte) (*http.Response, error) {
	asked := time.Now()
	attempts, giveUp := context.WithCancel(ctx) // and so is an answer's body read, until ctx ends
	patience := time.AfterFunc(p.deadlines.FirstByte, giveUp)
	defer patience.Stop()
	failure := func(err error) error {
		if attempts.Err() != nil && ctx.Err() == nil {
			return tooLate
		}
		return p.failure(ctx, err)
	}
	for attempt := 1; ; attempt++ {
		response, err := p.post(attempts, address, header, body)
		pause := time.Duration(attempt) * firstPause
		left := p.deadlines.Connect - time.Since(asked)
		if err == nil {
			pause, left = retryAfter(response.Header), p.deadlines.FirstByte-time.Since(asked)
		}
		isAgain := attempt < maxAttempts && pause < left && (isConnectError(err) || isBusy(response) && 0 < pause && pause <= longestPause)
		switch {
		case isAgain && response != nil:
			_ = response.Body.Close()
		case isAgain:
		case err != nil:
			return nil, failure(err)
		case !patience.Stop(): // its context has ended
			_ = response.Body.Close()
			return nil, failure(attempts.Err())
		default:
			return response, nil
		}
		select {
		case <-time.After(pause):
		case <-attempts.Done():
			return nil, failure(attempts.Err())
		}
	}
}

var tooLate = &chat.Failure{Code: chat.ErrAgentTimeout.Code, Err: errors.New("the agent does not begin to answer")}

// post sends a request once.
func (p *poster) post(ctx context.Context, address string, header http.Header, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header = header
	response, err := p.client.Do(request)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err // without the URL
	}
	return response, err
}

// isConnectError reports whether a request failed before anything of it was sent.
func isConnectError(err error) bool {
	_, ok := errors.AsType[*connectError](err)
	return ok
}

func isBusy(response *http.Response) bool {
	return response != nil && (response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable)
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
