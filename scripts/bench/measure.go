package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// measurement is how figures come about.
type measurement struct {
	figures []string
	slice   func(s *server, ctx context.Context, callers []*caller, t *tally) error // adds to t
	values  func(tally) []float64                                                   // one for each figure
}

// tally is what has been measured of a server in a round.
type tally struct {
	latencies           []time.Duration // of all calls
	inTime              int             // calls that ended within their slices
	length              time.Duration   // of all slices
	serverCPU, redisCPU time.Duration
	spent               counters
}

// Figures under load.
const (
	throughput = "requests/s"
	p50        = "p50, ms"
	p99        = "p99, ms"
	serverCPU  = "CPU of the server, µs"
	redisCPU   = "CPU of Redis, µs"
)

var underLoad = measurement{[]string{throughput, p50, p99, serverCPU, redisCPU}, (*server).load, func(t tally) []float64 {
	slices.Sort(t.latencies)
	n := len(t.latencies)
	return []float64{
		float64(t.inTime) / t.length.Seconds(),
		1000 * t.latencies[n/2].Seconds(),
		1000 * t.latencies[n*99/100].Seconds(),
		1e6 * t.serverCPU.Seconds() / float64(n),
		1e6 * t.redisCPU.Seconds() / float64(n),
	}
}}

// load has all callers call at the same time.
func (s *server) load(_ context.Context, callers []*caller, t *tally) error {
	serverBefore, redisBefore, err := s.cpu()
	if err != nil {
		return err
	}
	latencies, inTime, err := callFor(callers, sliceLength)
	if err != nil {
		return err
	}
	serverAfter, redisAfter, err := s.cpu()
	if err != nil {
		return err
	}
	t.latencies, t.inTime, t.length = append(t.latencies, latencies...), t.inTime+inTime, t.length+sliceLength
	t.serverCPU, t.redisCPU = t.serverCPU+serverAfter-serverBefore, t.redisCPU+redisAfter-redisBefore
	return nil
}

// cpu returns the processor time of the server and of its Redis.
func (s *server) cpu() (own, redis time.Duration, err error) {
	own, ownErr := cpu(s.process.command.Process.Pid)
	redis, redisErr := cpu(s.redis.command.Process.Pid)
	return own, redis, errors.Join(ownErr, redisErr)
}

// Figures of one request after another, each per request.
const (
	commands  = "commands, EVALSHA aside"
	scripts   = "scripts (EVALSHA)"
	redisTime = "time in Redis, µs"
	aofBytes  = "append-only file, bytes"
)

var oneByOne = measurement{[]string{commands, scripts, redisTime, aofBytes}, (*server).cost, func(t tally) []float64 {
	calls := float64(perRound * sliceCalls)
	return []float64{
		float64(t.spent.commands) / calls, float64(t.spent.scripts) / calls, float64(t.spent.micros()) / calls, float64(t.spent.aof) / calls,
	}
}}

// cost has one caller call again and again.
func (s *server) cost(ctx context.Context, callers []*caller, t *tally) error {
	before, err := s.counters(ctx)
	if err != nil {
		return err
	}
	_ = callers[0].conn.tcp.SetDeadline(time.Now().Add(time.Minute))
	for range sliceCalls {
		if err := callers[0].call(); err != nil {
			return err
		}
	}
	after, err := s.counters(ctx)
	t.spent = t.spent.plus(after.minus(before))
	return err
}

// counters is what a Redis server has done since it started.
type counters struct {
	commands      int64 // within scripts and outside
	commandMicros int64
	scripts       int64
	scriptMicros  int64 // with their commands
	aof           int64 // bytes of the append-only file
}

func (c counters) minus(earlier counters) counters {
	return counters{
		c.commands - earlier.commands, c.commandMicros - earlier.commandMicros,
		c.scripts - earlier.scripts, c.scriptMicros - earlier.scriptMicros, c.aof - earlier.aof,
	}
}

func (c counters) plus(more counters) counters {
	return c.minus(counters{}.minus(more))
}

// micros is the time in commands. Of a server that uses scripts it is theirs, which holds that of their commands.
func (c counters) micros() int64 {
	if c.scripts > 0 {
		return c.scriptMicros
	}
	return c.commandMicros
}

func (s *server) counters(ctx context.Context) (counters, error) {
	stats, err := s.client.Info(ctx, "commandstats").Result()
	if err != nil {
		return counters{}, err
	}
	persistence, err := s.client.Info(ctx, "persistence").Result() // Redis 6.0 takes one section at a time
	if err != nil {
		return counters{}, err
	}
	return parseInfo(stats + persistence)
}

// Commands that are no part of a request: ours, those of new connections, and of health checks.
var aside = []string{"info", "ping", "hello", "auth", "select", "client", "config", "script", "flushall"}

// parseInfo reads INFO: a line such as cmdstat_hset:calls=3,usec=21,usec_per_call=7.00, of a subcommand cmdstat_client|list:….
func parseInfo(info string) (counters, error) {
	var c counters
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "aof_current_size" {
			var err error
			if c.aof, err = strconv.ParseInt(value, 10, 64); err != nil {
				return counters{}, err
			}
		}
		command, isCommand := strings.CutPrefix(name, "cmdstat_")
		command, _, _ = strings.Cut(command, "|")
		if !isCommand || slices.Contains(aside, command) {
			continue
		}
		var calls, micros int64
		if _, err := fmt.Sscanf(value, "calls=%d,usec=%d,", &calls, &micros); err != nil {
			return counters{}, fmt.Errorf("INFO: %q: %w", line, err)
		}
		if command == "evalsha" || command == "eval" {
			c.scripts, c.scriptMicros = c.scripts+calls, c.scriptMicros+micros
		} else {
			c.commands, c.commandMicros = c.commands+calls, c.commandMicros+micros
		}
	}
	return c, nil
}
