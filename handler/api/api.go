// Package api speaks HTTP: it turns requests into calls of chat.Service, and what they return into JSON.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
	"chatkeep/handler/logs"
	"chatkeep/handler/panics"
	"chatkeep/handler/telemetry"
)

// Server is the whole API as one http.Handler. It is safe for concurrent use.
type Server struct {
	chat     *chat.Service
	auth     *auth.Verifier
	about    About
	edge     Edge
	limits   Limits
	callers  callerNames
	recorder *telemetry.Recorder
	log      *slog.Logger
	started  time.Time
	mux      *http.ServeMux

	requests  *places         // of owners
	functions map[string]bool // the paths at which a host that is too old calls them
	oldHost   sync.Once       // logs it
	outages   *outages

	bodyTime time.Duration
	takeTime time.Duration
	maxQuiet time.Duration
}

// About is what health tells of the program.
type About struct {
	Store   string // "redis" or "memory"
	Version string
}

// Edge is what stands between callers and this program.
type Edge struct {
	FrontDoorID string   // admit only what came through this Front Door; empty: whatever the platform lets through
	Origins     []string // whose pages may call from a browser, where no platform answers for CORS
}

// Limits are what callers may use of this process.
type Limits struct {
	Requests int           // of one owner in progress at once
	UIBody   int           // bytes of a body of ui, for by default useChat sends a whole history; that of other functions has at most 256 KiB
	Call     time.Duration // from the headers of a request to the last byte of its answer
	Stream   time.Duration // for a stream that does not end with its turn
}

// New returns the API.
func New(
	service *chat.Service, verifier *auth.Verifier, about About, edge Edge, limits Limits, recorder *telemetry.Recorder, log *slog.Logger,
) *Server {
	s := &Server{
		chat: service, auth: verifier, about: about, edge: edge, limits: limits, callers: newCallerNames(), recorder: recorder, log: log, started: time.Now(),
		mux: http.NewServeMux(), requests: newPlaces(limits.Requests), functions: make(map[string]bool), outages: newOutages(log),
		bodyTime: maxBodyTime, takeTime: maxTakeTime, maxQuiet: maxQuiet,
	}
	for _, route := range s.routes() {
		if route.name != "" {
			s.functions["/"+route.name] = true
		}
	}
	for pattern, resource := range resources(s.routes()) {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer := w.(*response) // ServeHTTP made it
			s.end(answer, r, s.dispatch(answer, r, resource))
		})
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.end(w.(*response), r, errNoRoute) })
	return s
}

// route is one function of the API. Its name is its folder in functions/ and its file here; the host's probe has neither.
type route struct {
	name    string
	method  string
	path    string   // a pattern of http.ServeMux, in lower case
	headers []string // that it reads beside corsHeaders
	handle  handler
}

type handler func(*response, *http.Request) error

// routes is the API: everything that can be called. Whatever takes GET takes HEAD too.
func (s *Server) routes() []route {
	return []route{
		{"start", http.MethodPost, "/api/chat/start", []string{"Idempotency-Key"}, s.signedIn(s.start)},
		{"send", http.MethodPost, "/api/chat/send", []string{"Idempotency-Key"}, s.signedIn(s.send)},
		{"get", http.MethodGet, "/api/chat/conversations/{conversationId}", []string{"If-None-Match"}, s.signedIn(s.get)},
		{"update", http.MethodPatch, "/api/chat/conversations/{conversationId}", []string{"If-Match", "Idempotency-Key"}, s.signedIn(s.update)},
		{"delete", http.MethodDelete, "/api/chat/conversations/{conversationId}", []string{"Idempotency-Key"}, s.signedIn(s.delete)},
		{"erase", http.MethodDelete, "/api/chat/conversations", []string{"Idempotency-Key"}, s.signedIn(s.erase)},
		{"stream", http.MethodGet, "/api/chat/conversations/{conversationId}/stream", nil, s.signedIn(s.stream)},
		{"cancel", http.MethodPost, "/api/chat/conversations/{conversationId}/cancel", []string{"Idempotency-Key"}, s.signedIn(s.cancel)},
		{"ui", http.MethodPost, "/api/chat/ui", nil, s.signedIn(s.ui)},
		{"ui-history", http.MethodGet, "/api/chat/ui/{conversationId}", nil, s.signedIn(s.uiHistory)},
		{"ui-stream", http.MethodGet, "/api/chat/ui/{conversationId}/stream", nil, s.signedIn(s.uiStream)},
		{"list-conversations", http.MethodPost, "/api/chat/list-conversations", nil, s.signedIn(s.listConversations)},
		{"export", http.MethodGet, "/api/chat/export", nil, s.signedIn(s.export)},
		{"openapi", http.MethodGet, "/api/openapi.json", []string{"If-None-Match"}, s.openapi},
		{"health", http.MethodGet, "/health", nil, s.health},
		{"", http.MethodGet, "/{$}", nil, s.probe},
	}
}

func (r route) methods() []string {
	if r.method == http.MethodGet {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{r.method}
}

// resource is what can be done at one path.
type resource struct {
	handlers map[string]handler // by method
	methods  []string           // of Allow and CORS
	headers  []string           // of CORS
}

// resources gathers the routes of each path.
func resources(routes []route) map[string]*resource {
	all := make(map[string]*resource)
	for _, r := range routes {
		if all[r.path] == nil {
			all[r.path] = &resource{handlers: make(map[string]handler), headers: slices.Clone(corsHeaders)}
		}
		at := all[r.path]
		at.methods = append(at.methods, r.methods()...)
		for _, header := range r.headers {
			if !slices.Contains(at.headers, header) {
				at.headers = append(at.headers, header)
			}
		}
		for _, method := range r.methods() {
			at.handlers[method] = r.handle
		}
	}
	return all
}

// signedIn calls handle with the caller whom the bearer token names, unless that one has too many requests in progress.
func (s *Server) signedIn(handle func(*response, *http.Request, chat.Caller) error) handler {
	return func(w *response, r *http.Request) error {
		user, err := s.verify(r)
		if err != nil {
			return err
		}
		s.outages.identity.succeeded()
		caller := callerOf(user)
		w.owner = caller.Owner
		if w.place = s.requests.enter(caller.Owner); !w.place {
			return errTooManyAtOnce
		}
		err = handle(w, r, caller)
		if err == nil || errors.Is(err, chat.ErrNotFound) { // which is an answer of the store
			s.outages.store.succeeded()
		}
		return err
	}
}

// probe answers the Functions host, which asks whether the process listens.
func (s *Server) probe(w *response, _ *http.Request) error {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	began := time.Now()
	w := &response{ResponseWriter: out, bodyTime: s.bodyTime, takeTime: s.takeTime, end: began.Add(s.limits.Call)}
	ctx, span := s.trace(r)
	ctx, cancel := context.WithDeadlineCause(ctx, w.end.Add(-answerTime), errTimeout)
	defer cancel()
	id := requestID(r)
	r = r.WithContext(logs.With(ctx, logs.Request{ID: id, TraceID: traceID(r)}))
	w.request = r
	defer func() { s.record(w, r, span, time.Since(began)) }()
	defer func() {
		if w.place {
			s.requests.leave(w.owner)
		}
	}()
	header := w.Header()
	header.Set("X-Request-Id", id)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	defer func() {
		bug := recover()
		switch {
		case bug == nil:
		case bug == http.ErrAbortHandler && w.begun: //nolint:errorlint // net/http compares it so
			panic(bug)
		default:
			s.end(w, r, fmt.Errorf("%w\n%s", panics.Of(bug), panics.Stack()))
		}
	}()
	if r.Method == http.MethodPost && s.functions[r.URL.Path] && isInvocation(w, r) {
		s.end(w, r, errOldHost)
		return
	}
	if !s.edge.admits(r) {
		s.end(w, r, errForbidden)
		return
	}
	s.edge.allowOrigin(w, r)
	if r.URL.Path == "*" || path.Clean(r.URL.Path) != r.URL.Path { // ServeMux would answer by itself
		s.end(w, r, errNoRoute)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// dispatch calls the route of a path that has the request's method.
func (s *Server) dispatch(w *response, r *http.Request, at *resource) error {
	if s.edge.isPreflight(r) {
		at.allow(w)
		return nil
	}
	handle, ok := at.handlers[r.Method]
	if !ok {
		w.Header().Set("Allow", strings.Join(at.methods, ", "))
		return errMethod
	}
	if err := checkQuery(r.URL.RawQuery); err != nil {
		return err
	}
	return handle(w, r)
}
