// Package api speaks HTTP: it turns requests into calls of chat.Service, and what they return into JSON.
package api

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
)

// Server is the whole API as one http.Handler. It is safe for concurrent use.
type Server struct {
	chat    *chat.Service
	auth    *auth.Verifier
	about   About
	edge    Edge
	callers callerNames
	log     *slog.Logger
	started time.Time
	mux     *http.ServeMux
}

// About is what health tells of the program.
type About struct {
	Store   string // "redis" or "memory"
	Version string
}

// New returns the API.
func New(service *chat.Service, verifier *auth.Verifier, about About, edge Edge, log *slog.Logger) *Server {
	s := &Server{
		chat: service, auth: verifier, about: about, edge: edge, callers: newCallerNames(), log: log, started: time.Now(),
		mux: http.NewServeMux(),
	}
	byPath := make(map[string][]route)
	for _, r := range s.routes() {
		byPath[r.path] = append(byPath[r.path], r)
	}
	for pattern, routes := range byPath {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, s.dispatch(w, r, routes)) })
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, errNoRoute) })
	return s
}

// route is one function of the API. Its name is its folder in functions/ and its file here; the host's probe has neither.
type route struct {
	name    string
	methods []string
	path    string
	handle  func(http.ResponseWriter, *http.Request) error
}

// routes is the API: everything that can be called. Paths are patterns of http.ServeMux, in lower case.
func (s *Server) routes() []route {
	return []route{
		{"start", []string{"POST"}, "/api/chat/start", s.signedIn(s.start)},
		{"send", []string{"POST"}, "/api/chat/send", s.signedIn(s.send)},
		{"get", []string{"GET"}, "/api/chat/conversations/{conversationId}", s.signedIn(s.get)},
		{"list-conversations", []string{"POST"}, "/api/chat/list-conversations", s.signedIn(s.listConversations)},
		{"health", []string{"GET", "HEAD"}, "/health", s.health},
		{"", []string{"GET", "HEAD"}, "/{$}", s.probe},
	}
}

// signedIn calls handle with the user whom the bearer token names.
func (s *Server) signedIn(handle func(http.ResponseWriter, *http.Request, auth.User) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		user, err := s.auth.User(r.Context(), r.Header)
		if err != nil {
			return err
		}
		if err := handle(w, r, user); err != nil {
			return &callError{caller: user, err: err}
		}
		return nil
	}
}

// probe answers the Functions host, which asks whether the process listens.
func (s *Server) probe(w http.ResponseWriter, _ *http.Request) error {
	w.WriteHeader(http.StatusOK)
	return nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Request-Id", requestID(r))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	defer func() {
		if bug := recover(); bug != nil {
			s.answer(w, r, fmt.Errorf("panic: %v\n%s", bug, debug.Stack()))
		}
	}()
	if err := s.edge.admit(r); err != nil {
		s.answer(w, r, err)
		return
	}
	if s.edge.preflight(w, r) {
		return
	}
	if path.Clean(r.URL.Path) != r.URL.Path { // ServeMux would redirect
		s.answer(w, r, errNoRoute)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// dispatch calls the one of a path's routes that has the request's method.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, routes []route) error {
	var allowed []string
	for _, route := range routes {
		if slices.Contains(route.methods, r.Method) {
			return route.handle(w, r)
		}
		allowed = append(allowed, route.methods...)
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return errMethod
}

var (
	errNoRoute = errors.New("no such path")
	errMethod  = errors.New("method not allowed")

	plainID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)
)

// requestID is the id under which the Functions host logs the request, or without a host a random one.
func requestID(r *http.Request) string {
	if id := r.Header.Get("X-Azure-Functions-InvocationId"); plainID.MatchString(id) {
		return id
	}
	return rand.Text()
}
