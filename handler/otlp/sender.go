package otlp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
)

// sender posts one signal to its URL.
type sender struct {
	client  *http.Client
	url     string
	headers map[string]string
	timeout time.Duration
	signal  string
	log     *slog.Logger

	failing atomic.Bool // the last was not taken
}

func newSender(c Config, url, signal string, log *slog.Logger) *sender {
	transport := c.transport
	if transport == nil {
		transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
			MaxIdleConns: 1, IdleConnTimeout: 90 * time.Second,
		}
	}
	return &sender{
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the headers are for one server
		},
		url: url, headers: c.Headers, timeout: c.Timeout, signal: signal, log: log,
	}
}

// send posts a request until it is taken, at most maxAttempts times and within the timeout. It logs the first of those that are not taken, and
// the next that is.
func (s *sender) send(ctx context.Context, request any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	err = s.sendUntilTaken(ctx, body)
	if err != nil {
		s.lost(ctx, err)
	} else if s.failing.Swap(false) {
		s.log.InfoContext(ctx, "the collector takes telemetry again", "signal", s.signal)
	}
	return err
}

// lost logs a loss, unless the one before it was.
func (s *sender) lost(ctx context.Context, why error) {
	if !s.failing.Swap(true) {
		s.log.WarnContext(ctx, "the collector does not take telemetry, which is lost", "signal", s.signal, "err", why)
	}
}

const (
	maxAttempts = 3
	firstPause  = time.Second // before a second attempt, then twice as long
	maxAnswer   = 64 << 10    // bytes of an answer that are read
)

func (s *sender) sendUntilTaken(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		pause, err := s.post(ctx, body)
		if err == nil || pause == never || attempt == maxAttempts {
			return err
		}
		if pause == 0 {
			pause = firstPause << (attempt - 1)
		}
		if end, _ := ctx.Deadline(); time.Until(end) <= pause {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// never is a pause after which nothing is worth another attempt.
const never = time.Duration(-1)

// post makes one attempt. With an error it returns the pause that the collector asks for: 0 says nothing, and never that it will not take it.
func (s *sender) post(ctx context.Context, body []byte) (time.Duration, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return never, err
	}
	for name, value := range s.headers {
		request.Header.Set(name, value)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := s.client.Do(request)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return 0, failed.Err // without the URL, which the settings have
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After")) // a date is as good as none
		return time.Duration(max(0, seconds)) * time.Second, fmt.Errorf("status %d", answer.StatusCode)
	}
	if answer.StatusCode/100 != 2 {
		return never, fmt.Errorf("status %d", answer.StatusCode)
	}
	if err != nil {
		return 0, err
	}
	return never, rejected(text)
}

// rejected is an error when a collector has taken only a part.
func rejected(answer []byte) error {
	var taken struct {
		PartialSuccess struct {
			Spans  count `json:"rejectedSpans"`
			Points count `json:"rejectedDataPoints"`
		} `json:"partialSuccess"`
	}
	_ = json.Unmarshal(answer, &taken) // or it answers in another form
	if n := taken.PartialSuccess.Spans + taken.PartialSuccess.Points; n > 0 {
		return fmt.Errorf("%d rejected", n)
	}
	return nil
}

// count is a number, which JSON may have as a string.
type count int64

// UnmarshalJSON implements json.Unmarshaler.
func (c *count) UnmarshalJSON(text []byte) error {
	n, err := strconv.ParseInt(string(bytes.Trim(text, `"`)), 10, 64)
	*c = count(n)
	return err
}
