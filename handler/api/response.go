package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json"
)

// response is the answer to one request.
type response struct {
	http.ResponseWriter
	request  *http.Request
	bodyTime time.Duration // for the request's body to arrive
	takeTime time.Duration // for the client to take a piece of the answer
	end      time.Time     // of the call, whatever the client does
	bodyRead bool          // to its end
	owner    chat.Owner    // who asks; empty until that is known
	place    bool          // the request has one of the owner's
	begun    bool          // the status is out, and cannot be taken back
	status   int           // once begun
	code     string        // of the problem, if any
}

const (
	maxTakeTime = 30 * time.Second
	answerTime  = time.Second // of a call's: what is left for the answer when handling takes too long
	maxPiece    = 64 << 10    // bytes of an answer that are written at once
)

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if !w.begun {
		w.leaveBody()
		if least := time.Now().Add(answerTime); w.end.Before(least) { // the host re-sends a GET of which no header came
			w.end = least
		}
		w.status = status
	}
	w.begun = true
	w.awaitClient()
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter. A client that does not take a piece in takeTime is cut, and so is any at the call's end.
func (w *response) Write(b []byte) (n int, err error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	for first := true; err == nil && (first || len(b) > 0); first = false {
		piece := b[:min(len(b), maxPiece)]
		w.awaitClient()
		var written int
		written, err = w.ResponseWriter.Write(piece)
		n, b = n+written, b[written:]
	}
	return n, err
}

// awaitClient has the client take what is written next in takeTime, or until the call's end. net/http forgets it with the request.
func (w *response) awaitClient() {
	deadline := time.Now().Add(w.takeTime)
	if w.end.Before(deadline) {
		deadline = w.end
	}
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(deadline) // not supported by a recorder in a test
}

// leaveBody drops what is unread of the request's body. What does not come soon is not waited for: the connection is closed after
// the answer. net/http alone would wait for it before and after the answer, for as long as the client likes.
func (w *response) leaveBody() {
	if w.bodyRead || w.request.Body == http.NoBody {
		return
	}
	deadline := http.NewResponseController(w.ResponseWriter)
	if w.request.Header.Get("Expect") == "" { // a client that waits to be asked for its body is not asked
		_ = deadline.SetReadDeadline(time.Now().Add(drainTime))
		if _, err := io.CopyN(io.Discard, w.request.Body, maxDrain); errors.Is(err, io.EOF) {
			_ = deadline.SetReadDeadline(time.Time{})
			return
		}
	}
	w.Header().Set("Connection", "close")
	_ = deadline.SetReadDeadline(time.Unix(1, 0))
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// respond answers with JSON.
func respond(w *response, status int, body []byte) error {
	write(w, status, "application/json", body)
	return nil
}

// write sends a body, which HEAD only measures. A client that does not take it is nobody's error.
func write(w *response, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if w.request.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// end ends a request: it writes the error, if any. Of an answer that has begun nothing can be taken back, so the connection is cut: it panics
// with http.ErrAbortHandler.
func (s *Server) end(w *response, r *http.Request, err error) {
	if err == nil || errors.Is(err, context.Canceled) && r.Context().Err() != nil { // nobody is there to read it
		return
	}
	p := s.outcome(w, r, err)
	if w.begun {
		panic(http.ErrAbortHandler)
	}
	if p.challenge == "" {
		p.challenge = s.auth.Challenge(err)
	}
	setUnlessEmpty(w.Header(), "WWW-Authenticate", p.challenge)
	setUnlessEmpty(w.Header(), "Retry-After", p.retryAfter)
	if p.quota > 0 { // draft-ietf-httpapi-ratelimit-headers
		w.Header().Set("RateLimit-Policy", `"turns";q=`+strconv.FormatInt(p.quota, 10)+`;w=60`)
		w.Header().Set("RateLimit", `"turns";r=0;t=`+p.retryAfter)
	}
	_, replayed := errors.AsType[*chat.ReplayedError](err)
	markReplayed(w, replayed)
	write(w, p.Status, "application/problem+json", append(p.encode(), '\n'))
}

// problem is an error as a request's caller sees it.
func (s *Server) problem(w *response, err error) problem {
	p := problemOf(err)
	p.Type, p.Title, p.RequestID = "urn:chatkeep:problem:"+p.Code, http.StatusText(p.Status), w.Header().Get("X-Request-Id")
	return p
}

// encode returns the problem's body.
func (p problem) encode() []byte {
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // all of its text is valid UTF-8
	}
	return body
}

// outcome is problem, and alone logs the errors that someone should look at.
func (s *Server) outcome(w *response, r *http.Request, err error) problem {
	p := s.problem(w, err)
	w.code = p.Code
	_, replayed := errors.AsType[*chat.ReplayedError](err)
	outage := s.outages.of(p.Code)
	switch {
	case errors.Is(err, errOldHost):
		s.oldHost.Do(func() { s.log.ErrorContext(r.Context(), "the Functions host is too old", "code", p.Code, "err", err) })
	case outage != nil:
		outage.failed(r.Context(), err)
	case p.Status >= 500 && !replayed:
		s.log.ErrorContext(r.Context(), "request failed",
			"method", r.Method, "route", r.Pattern, "status", p.Status, "code", p.Code,
			"caller", s.callers.of(w.owner), "err", err)
	}
	if p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden { // why is for operators, who ask for it; it quotes nothing
		s.log.DebugContext(r.Context(), "request refused",
			"route", r.Pattern, "status", p.Status, "code", p.Code, "err", err)
	}
	return p
}

func setUnlessEmpty(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}
