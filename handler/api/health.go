package api

import (
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
)

type healthResponse struct {
	Status         string   `json:"status"`      // healthy, degraded, unhealthy; of ?live=1: alive
	Store          string   `json:"store"`       // redis, memory
	RedisStatus    string   `json:"redisStatus"` // connected, unavailable, not configured, not asked
	RedisLatencyMs *float64 `json:"redisLatencyMs"`
	Version        string   `json:"version"`
	UptimeSeconds  int64    `json:"uptimeSeconds"`
	Warning        string   `json:"warning,omitzero"` // what makes it degraded
}

// health says whether the service can keep conversations now, or with ?live=1 only that it runs. It tells nothing about anyone,
// for anyone may ask. A degraded service answers 200: it works, and someone should look.
func (s *Server) health(w *response, r *http.Request) error {
	body := healthResponse{
		Status: "healthy", Store: s.about.Store, RedisStatus: "not configured",
		Version: s.about.Version, UptimeSeconds: int64(time.Since(s.started).Seconds()),
	}
	if r.URL.Query().Get("live") == "1" {
		body.Status, body.RedisStatus = "alive", "not asked"
		return body.respond(w, http.StatusOK)
	}
	health, err := s.chat.Health(r.Context())
	if err != nil {
		body.Status, body.RedisStatus = "unhealthy", "unavailable"
		s.outages.health.failed(r.Context(), err)
		return body.respond(w, http.StatusServiceUnavailable)
	}
	s.outages.health.succeeded()
	if s.about.Store == "redis" {
		latency := float64(health.Latency.Microseconds()) / 1000
		body.RedisStatus, body.RedisLatencyMs = "connected", &latency
	}
	if health.Warning != "" {
		body.Status, body.Warning = "degraded", health.Warning
	}
	return body.respond(w, http.StatusOK)
}

func (body healthResponse) respond(w *response, status int) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return respond(w, status, append(text, '\n'))
}
