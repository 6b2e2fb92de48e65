// Handler is the chat service as one program, which Azure Functions runs as a custom handler.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"chatkeep/handler/admin"
	"chatkeep/handler/agent"
	"chatkeep/handler/api"
	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
	"chatkeep/handler/logs"
	"chatkeep/handler/otlp"
	"chatkeep/handler/panics"
	"chatkeep/handler/store"
	"chatkeep/handler/telemetry"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/redis/go-redis/v9"
)

// version is set by the build.
var version = "dev"

func main() {
	if len(os.Args) > 1 {
		info, err := os.Stdin.Stat()
		isInteractive := err == nil && info.Mode()&os.ModeCharDevice != 0
		os.Exit(command(context.Background(), os.Args[1:], os.Getenv, admin.Terminal{In: os.Stdin, IsInteractive: isInteractive, Out: os.Stdout, Err: os.Stderr}))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var untilSignal sync.WaitGroup
	panics.Go(&untilSignal, logs.New(os.Stdout, slog.LevelInfo), func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	})
	err := run(ctx, os.Getenv, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chatkeep:", err) // the host shows the last words
	}
	os.Exit(exitCode(err, os.Getenv))
}

// exitCode is 1 after an error. After a signal it is 0 by hand, and under the Functions host 200: that restarts the process without
// counting an error, while 0 would leave the host without a handler.
func exitCode(err error, getenv func(string) string) int {
	switch {
	case err != nil:
		return 1
	case getenv("FUNCTIONS_CUSTOMHANDLER_PORT") != "":
		return 200
	default:
		return 0
	}
}

// run serves until ctx ends, then lets running turns finish. It logs JSON lines to stdout and nothing elsewhere.
func run(ctx context.Context, getenv func(string) string, stdout io.Writer) error {
	level := new(slog.LevelVar)
	log := logs.New(stdout, level)
	cfg, err := readConfig(getenv)
	if err != nil {
		log.ErrorContext(ctx, "bad settings", "err", err)
		return err
	}
	level.Set(cfg.logLevel)
	for _, warning := range cfg.warnings {
		log.WarnContext(ctx, "doubtful setting", "warning", warning)
	}

	recorder := &telemetry.Recorder{}
	cfg.chat.Recorder = recorder
	limitMemory(os.DirFS("/"), getenv, cfg.underHost, log)
	about := api.About{Store: "memory", Version: version}
	var conversations chat.Store = store.NewMemory(cfg.limits)
	if cfg.redis != nil {
		if getenv("GOGC") == "" && getenv("GOMEMLIMIT") == "" {
			collectSeldom()
		}
		kept, closeRedis, err := openRedis(cfg, recorder, log)
		if err != nil {
			return err
		}
		defer closeRedis()
		about.Store = "redis"
		conversations, recorder.Client = kept, kept.State
	} else {
		log.WarnContext(ctx, "REDIS_URL not set. Using in-memory store. Data will be lost on restart.")
	}
	if cfg.telemetry.IsOn() {
		export := otlp.Start(cfg.telemetry, recorder, log)
		defer flush(ctx, export)
	}
	verifier := auth.New(cfg.auth, log)
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	panics.Go(&background, log, func() { verifier.Run(ctx) })
	defer background.Wait()
	defer cancel()
	untilEnd, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	panics.Go(&background, log, func() { recorder.Run(untilEnd, log) })
	answers, err := cfg.answers(log)
	if err != nil {
		log.ErrorContext(ctx, "no credential for the agent", "err", err)
		return err
	}
	service := chat.NewService(conversations, answers, cfg.chat, log)

	server := &http.Server{
		Handler: withPlayground(
			api.New(service, verifier, about, cfg.edge, cfg.apiLimits, recorder, log), cfg, conversations, verifier, getenv, log,
		),
		ReadHeaderTimeout:            10 * time.Second,
		IdleTimeout:                  120 * time.Second, // longer than the host keeps its connections
		MaxHeaderBytes:               32 << 10,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnState:                    holdLittle,
	}
	server.RegisterOnShutdown(service.EndStreams)
	listener, err := net.Listen("tcp", cfg.address)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) && !cfg.underHost {
			err = fmt.Errorf("%w: end what listens there, or choose another PORT", err)
		}
		log.ErrorContext(ctx, "cannot listen", "err", err)
		service.Close(ctx)
		return err
	}
	log.InfoContext(ctx, "started", "version", version, "address", listener.Addr().String(), "store", about.Store, "agent", cfg.agent)
	return serve(ctx, server, listener, service, cfg.grace, log)
}

// answers returns the agent. Only a model looks at earlier messages.
func (c *config) answers(log *slog.Logger) (chat.Agent, error) {
	if c.openAI != nil {
		return c.openAI.agent(c.deadlines)
	}
	c.chat.Context = 0
	if c.copilotStudio != nil {
		return c.copilotStudio.agent(c.deadlines, log)
	}
	return c.echo, nil
}

// unsent is how many bytes of an answer a connection may hold that the other side has not taken; the system keeps as much again for itself.
// Its own choice grows to megabytes, which stay when the call has ended, for as long as a slow reader takes.
const unsent = 64 << 10

// holdLittle bounds what a new connection holds. It is the ConnState of an http.Server.
func holdLittle(conn net.Conn, state http.ConnState) {
	if tcp, ok := conn.(*net.TCPConn); ok && state == http.StateNew {
		_ = tcp.SetWriteBuffer(unsent) // a connection that is gone already
	}
}

// openRedis returns the store in Redis, which connects when it is first used, and what closes it.
func openRedis(cfg config, recorder *telemetry.Recorder, log *slog.Logger) (*store.Redis, func(), error) {
	redis.SetLogger(quiet{log})
	if cfg.entra != nil {
		credential, err := cfg.entra.credential()
		if err != nil {
			log.Error("no credential for Redis", "err", err)
			return nil, nil, err
		}
		cfg.redis.Credentials = store.EntraCredentials(credential, cfg.entra.username)
	}
	client, health := store.NewClient(*cfg.redis), store.NewClient(cfg.redis.ForHealth())
	if cfg.telemetry.Traces != "" {
		store.CountTrips(client)
	}
	kept := store.NewRedis(client, health, store.Options{
		Limits: cfg.limits, Timeout: cfg.timeout, Replicas: cfg.replicas, Share: max(1, cfg.redis.PoolSize/4), Recorder: recorder,
	}, log)
	return kept, func() {
		kept.Close()
		_, _ = client.Close(), health.Close()
	}, nil
}

// command carries out what the program's arguments say, and returns the exit code. Without arguments it serves.
func command(ctx context.Context, args []string, getenv func(string) string, t admin.Terminal) int {
	if args[0] != "admin" {
		_, _ = fmt.Fprintln(t.Err, "The service takes no arguments: its settings are environment variables. For operators: handler admin help")
		return admin.Refused
	}
	if admin.IsHelp(args[1:]) {
		return admin.Help(t)
	}
	cfg, err := readStoreConfig(getenv)
	if err == nil && cfg.redis == nil {
		err = errors.New("REDIS_URL or REDIS_HOSTNAME must name the Redis of the service: in memory nothing is kept")
	}
	if err != nil {
		_, _ = fmt.Fprintln(t.Err, err)
		return admin.Refused
	}
	log := logs.New(t.Err, slog.LevelInfo)
	kept, closeRedis, err := openRedis(cfg, nil, log)
	if err != nil {
		return admin.Failed // the log says why
	}
	defer closeRedis()
	service := chat.NewService(kept, agent.Echo{}, chat.Settings{TurnLease: time.Minute}, log)
	defer service.Close(ctx)
	return admin.Run(ctx, args[1:], kept, service, t, log)
}

// collectSeldom has garbage collected at five times what lives, not at twice: with the conversations in Redis little lives but what
// requests need, and collecting at twice takes a tenth of the processor. Beyond the limit it is collected as often as need be, so that
// much at once costs time and not memory. A container that is smaller has its own limit by then.
func collectSeldom() {
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(min(512<<20, debug.SetMemoryLimit(-1)))
}

// credential is who we are to Entra ID. Its own retries are off: the store asks again, and callers do not wait that long.
func (e *entra) credential() (azcore.TokenCredential, error) {
	if !e.inAzure {
		return azidentity.NewAzureCLICredential(nil)
	}
	options := &azidentity.ManagedIdentityCredentialOptions{
		ClientOptions: azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}},
	}
	if e.clientID != "" {
		options.ID = azidentity.ClientID(e.clientID)
	}
	return azidentity.NewManagedIdentityCredential(options)
}

// serve ends when ctx does: it takes no new requests, and gives requests and turns that run the grace to finish. Then it ends the turns,
// and their requests have a moment to say so.
func serve(ctx context.Context, server *http.Server, listener net.Listener, service *chat.Service, grace time.Duration, log *slog.Logger) error {
	failed := make(chan error, 1)
	var serving sync.WaitGroup
	panics.Go(&serving, log, func() {
		err := errors.New("the server panicked")
		defer func() { failed <- err }()
		err = server.Serve(listener)
	})
	var err error
	select {
	case err = <-failed:
		log.ErrorContext(ctx, "stopped serving", "err", err)
		grace = 0
	case <-ctx.Done():
		log.InfoContext(ctx, "stopping", "grace", grace.String())
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	late := server.Shutdown(drain)
	serving.Wait() // the listener is closed
	service.Close(drain)
	if late != nil {
		log.WarnContext(ctx, "stopped with requests still running; their turns are ended")
		moment, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastMoment)
		defer cancel()
		_ = server.Shutdown(moment)
	}
	return err
}

// flush sends what telemetry is left, to a collector that takes it in time.
func flush(ctx context.Context, export *otlp.Export) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
	defer cancel()
	export.Close(ctx)
}

const flushTime = 2 * time.Second

// lastMoment is for requests whose turn was ended.
const lastMoment = time.Second

// quiet keeps go-redis from writing to stderr. What it would say of a failed connection is in the error of the request too.
type quiet struct{ log *slog.Logger }

// Printf implements go-redis' logger.
func (q quiet) Printf(ctx context.Context, format string, v ...any) {
	q.log.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, v...))
}
