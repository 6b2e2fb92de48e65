package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/api"
	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
	"chatkeep/handler/otlp"
	"chatkeep/handler/store"
)

// config is everything that can be set. config_*.go read it, area by area.
type config struct {
	auth          auth.Config
	edge          api.Edge
	redis         *store.Connection // nil: in memory
	entra         *entra            // nil: Redis knows us by a password, or not at all
	timeout       time.Duration     // of one call of the store
	replicas      int               // that must have a write before it is acknowledged
	limits        chat.Limits
	agent         string // who answers
	deadlines     agent.Deadlines
	copilotStudio *copilotStudio // nil: another agent answers
	openAI        *openAI        // likewise
	echo          agent.Echo
	chat          chat.Settings

	apiLimits api.Limits
	telemetry otlp.Config
	address   string        // to listen at
	underHost bool          // the Functions host started us, and decides about a restart by the exit code
	grace     time.Duration // for running turns at the end
	logLevel  slog.Level
	warnings  []string // what was read is taken, but hardly meant
}

// readConfig reads all settings. Its error names every variable that is wrong.
func readConfig(getenv func(string) string) (config, error) {
	env := &environment{getenv: getenv}
	c := env.config()
	return c, errors.Join(env.errs...)
}

// readStoreConfig reads the settings of Redis and of what it holds.
func readStoreConfig(getenv func(string) string) (config, error) {
	env := &environment{getenv: getenv}
	var c config
	env.redis(&c)
	env.limits(&c)
	return c, errors.Join(env.errs...)
}

func (e *environment) config() config {
	var c config
	e.callers(&c)
	e.edge(&c)
	e.redis(&c)
	e.limits(&c)
	e.turns(&c)
	e.openAI(&c)
	e.copilotStudio(&c)
	e.process(&c)
	e.telemetry(&c)
	e.relations(&c)
	c.warnings = e.warnings
	return c
}

// longestCall leaves a few seconds before Azure's front end gives up.
const longestCall = 225 * time.Second

// relations checks what must hold between settings of several areas.
func (e *environment) relations(c *config) {
	ttl := c.limits.TTL
	if c.chat.AgentTimeout > ttl {
		e.giveWay("AGENT_TIMEOUT", &c.chat.AgentTimeout, ttl,
			"must be at most REDIS_TTL, or a conversation could end under its turn: shorten it, or lengthen REDIS_TTL")
	}
	if c.chat.IdempotencyTTL > ttl {
		e.giveWay("IDEMPOTENCY_TTL", &c.chat.IdempotencyTTL, ttl,
			"must be at most REDIS_TTL, for nothing outlives its conversation: shorten it, or lengthen REDIS_TTL")
	}
	if c.chat.TurnLease < 3*c.timeout {
		e.giveWay("TURN_LEASE", &c.chat.TurnLease, 3*c.timeout,
			"must be at least 3 × REDIS_TIMEOUT, or a slow call could end a turn that runs: lengthen it, or shorten REDIS_TIMEOUT")
	}
	if c.apiLimits.Stream > c.apiLimits.Call {
		e.giveWay("STREAM_MAX", &c.apiLimits.Stream, c.apiLimits.Call,
			"must be at most CALL_MAX, or a stream would be cut before it ends: shorten it, or lengthen CALL_MAX")
	}
	if c.chat.AgentTimeout+c.chat.TurnWait > c.apiLimits.Call {
		e.refuse("AGENT_TIMEOUT", fmt.Sprintf("and TURN_WAIT must be at most %s together, which is CALL_MAX", short(c.apiLimits.Call)))
	}
}
