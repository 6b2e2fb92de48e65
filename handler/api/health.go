package api

import (
	"net/http"
	"time"
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
func (s *Server) health(w http.ResponseWriter, r *http.Request) error {
	body := healthResponse{
		Status: "healthy", Store: s.about.Store, RedisStatus: "not configured",
		Version: s.about.Version, UptimeSeconds: int64(time.Since(s.started).Seconds()),
	}
	if r.URL.Query().Get("live") == "1" {
		body.Status, body.RedisStatus = "alive", "not asked"
		return respond(w, http.StatusOK, body)
	}
	vitals, err := s.chat.Health(r.Context())
	if err != nil {
		body.Status, body.RedisStatus = "unhealthy", "unavailable"
		s.log.ErrorContext(r.Context(), "store unhealthy", "err", err)
		return respond(w, http.StatusServiceUnavailable, body)
	}
	if s.about.Store == "redis" {
		latency := float64(vitals.Latency.Microseconds()) / 1000
		body.RedisStatus, body.RedisLatencyMs = "connected", &latency
	}
	if vitals.Warning != "" {
		body.Status, body.Warning = "degraded", vitals.Warning
	}
	return respond(w, http.StatusOK, body)
}
