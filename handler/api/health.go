package api

import (
	"net/http"
	"time"
)

type healthResponse struct {
	Status         string   `json:"status"`      // healthy, unhealthy
	Store          string   `json:"store"`       // redis, memory
	RedisStatus    string   `json:"redisStatus"` // connected, unavailable, not configured
	RedisLatencyMs *float64 `json:"redisLatencyMs"`
	Version        string   `json:"version"`
	UptimeSeconds  int64    `json:"uptimeSeconds"`
}

// health says whether the service can keep conversations now. It tells nothing about anyone, for anyone may ask.
func (s *Server) health(w http.ResponseWriter, r *http.Request) error {
	body := healthResponse{
		Status: "healthy", Store: s.about.Store, RedisStatus: "not configured",
		Version: s.about.Version, UptimeSeconds: int64(time.Since(s.started).Seconds()),
	}
	status := http.StatusOK
	asked := time.Now()
	err := s.chat.Health(r.Context())
	switch {
	case err != nil:
		body.Status, body.RedisStatus, status = "unhealthy", "unavailable", http.StatusServiceUnavailable
		s.log.ErrorContext(r.Context(), "store unhealthy", "err", err)
	case s.about.Store == "redis":
		latency := float64(time.Since(asked).Microseconds()) / 1000
		body.RedisStatus, body.RedisLatencyMs = "connected", &latency
	}
	return respond(w, status, body)
}
