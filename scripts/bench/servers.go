package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"chatkeep/handler/auth/authtest"

	"github.com/redis/go-redis/v9"
)

// server is the handler or the yardstick, with a Redis server of its own.
type server struct {
	name    string
	process *process
	redis   *process
	client  *redis.Client // for its Redis' settings and counters
}

// pair is the two servers, and tokens of different users for both.
type pair struct {
	handler, yardstick *server
	tokens             []string
	running            []*process
}

// startPair builds and starts everything, the handler with some settings (NAME=value) more. What it returns is to be stopped, after an error too.
func startPair(ctx context.Context, dir string, settings []string) (*pair, error) {
	p := &pair{handler: &server{name: "handler"}, yardstick: &server{name: "yardstick"}}
	issuer, keys := authtest.New(), filepath.Join(dir, "keys.json")
	if err := os.WriteFile(keys, issuer.KeySet(), 0o600); err != nil {
		return p, err
	}
	for i := range connections {
		p.tokens = append(p.tokens, issuer.Token(authtest.LocalTenant, fmt.Sprintf("user-%d", i), nil))
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "handler"), "chatkeep/handler")
	if output, err := build.CombinedOutput(); err != nil {
		return p, fmt.Errorf("build: %w\n%s", err, output)
	}
	for _, s := range []*server{p.handler, p.yardstick} {
		addr, err := freeAddr()
		if err != nil {
			return p, err
		}
		data := filepath.Join(dir, s.name+"-redis")
		if err := os.Mkdir(data, 0o700); err != nil {
			return p, err
		}
		_, port, _ := net.SplitHostPort(addr)
		s.redis, err = p.start(ctx, addr, exec.CommandContext(ctx, "redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", data,
			"--save", "", "--appendonly", "no", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0"))
		if err != nil {
			return p, err
		}
		s.client = redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, DisableIdentity: true})
	}

	addr, err := freeAddr()
	if err != nil {
		return p, err
	}
	_, port, _ := net.SplitHostPort(addr)
	handler := exec.CommandContext(ctx, filepath.Join(dir, "handler"))
	handler.Env = append([]string{
		"FUNCTIONS_CUSTOMHANDLER_PORT=" + port, "REDIS_URL=redis://" + p.handler.redis.addr, "AGENT=echo", fmt.Sprintf("AGENT_CONTEXT_MESSAGES=%d", history),
		"AUTH_ISSUER=" + issuer.Name, "AUTH_AUDIENCE=" + issuer.Audience, "AUTH_JWKS_URL=" + keys, "MAX_TURNS_PER_MINUTE=1000000", "MAX_CONCURRENT_REQUESTS_PER_USER=10000", "MAX_BYTES_PER_USER=17179869184",
		"MAX_CONVERSATIONS_PER_USER=1000000", "MAX_MESSAGES_PER_CONVERSATION=1000000",
	}, settings...)
	if p.handler.process, err = p.start(ctx, addr, handler); err != nil {
		return p, err
	}

	if addr, err = freeAddr(); err != nil {
		return p, err
	}
	program, err := os.Executable()
	if err != nil {
		return p, err
	}
	yardstick := exec.CommandContext(ctx, program, "-yardstick", addr, "-redis", p.yardstick.redis.addr)
	yardstick.Env = []string{} // as the handler, without what this environment may say to Go
	p.yardstick.process, err = p.start(ctx, addr, yardstick)
	return p, err
}

// appendOnly empties both Redis servers and has them keep an append-only file from now on.
func (p *pair) appendOnly(ctx context.Context) error {
	for _, s := range []*server{p.handler, p.yardstick} {
		if err := s.client.FlushAll(ctx).Err(); err != nil {
			return err
		}
		if err := s.client.ConfigSet(ctx, "appendonly", "yes").Err(); err != nil {
			return err
		}
		for {
			info, err := s.client.Info(ctx, "persistence").Result()
			if err != nil {
				return err
			}
			if strings.Contains(info, "aof_enabled:1\r") && strings.Contains(info, "aof_rewrite_in_progress:0\r") &&
				strings.Contains(info, "aof_rewrite_scheduled:0\r") {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

func (p *pair) stop() {
	for _, s := range []*server{p.handler, p.yardstick} {
		if s.client != nil {
			_ = s.client.Close()
		}
	}
	for _, running := range p.running {
		_ = running.command.Process.Kill() // it may have ended already
		<-running.ended
	}
}

// prepare connects one caller for each token, with nothing stored but what the requests need, and warms up. What it returns is to be
// hung up, after an error too.
func (s *server) prepare(ctx context.Context, r request, tokens []string) ([]*caller, error) {
	if err := s.client.FlushAll(ctx).Err(); err != nil {
		return nil, err
	}
	callers := make([]*caller, 0, len(tokens))
	for range tokens {
		c, err := dial(s.process.addr)
		if err != nil {
			return callers, err
		}
		callers = append(callers, &caller{conn: c, status: r.status})
	}
	prepared := make(chan error)
	for i, c := range callers {
		_ = c.conn.tcp.SetDeadline(time.Now().Add(time.Minute))
		go func() {
			var err error
			c.requests, err = r.prepare(c.conn, tokens[i])
			prepared <- err
		}()
	}
	var err error
	for range callers {
		err = cmp.Or(<-prepared, err) // one of them says enough
	}
	if err == nil {
		_, _, err = callFor(callers, warmUp)
	}
	return callers, err
}

// process is a program that we started.
type process struct {
	command *exec.Cmd
	addr    string
	ended   chan struct{}
}

// start starts a program and waits until something listens at addr.
func (p *pair) start(ctx context.Context, addr string, command *exec.Cmd) (*process, error) {
	var output strings.Builder
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		return nil, err
	}
	started := &process{command: command, addr: addr, ended: make(chan struct{})}
	p.running = append(p.running, started)
	go func() {
		_ = command.Wait()
		close(started.ended)
	}()
	for {
		select {
		case <-started.ended:
			return nil, fmt.Errorf("%s does not start: %s", filepath.Base(command.Path), output.String())
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if c, err := net.Dial("tcp", addr); err == nil {
			return started, c.Close()
		}
	}
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
