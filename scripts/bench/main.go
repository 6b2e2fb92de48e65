// Bench prints what a request costs, for the handler and for a yardstick server side by side: the same operations, on Redis servers of
// its own, in short alternating slices, so that whatever else the machine does hurts both. It needs Linux and redis-server.
//
//	go run ./scripts/bench                           everything, in 75 seconds
//	go run ./scripts/bench -ops start,send -rounds 3
//	go run ./scripts/bench -ops send OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318    the handler with a setting more
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	connections = 32
	perRound    = 5                      // slices, the two servers' in turn
	sliceLength = 100 * time.Millisecond // under load
	sliceCalls  = 40                     // on one connection
	warmUp      = 100 * time.Millisecond
)

func main() {
	names := flag.String("ops", operationNames(), "`operations` to measure, separated by commas")
	rounds := flag.Int("rounds", 5, "how often to measure each server; the ratios are medians")
	yardstickAddr := flag.String("yardstick", "", "be the yardstick server at this `address`; the program starts itself so")
	redisAddr := flag.String("redis", "", "`address` of the yardstick's Redis")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *yardstickAddr != "" {
		err = serveYardstick(ctx, *yardstickAddr, *redisAddr)
	} else {
		err = run(ctx, strings.Split(*names, ","), *rounds, flag.Args(), os.Stdout, os.Stderr)
	}
	if ctx.Err() != nil {
		err = ctx.Err() // the rest follows from it
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string, rounds int, settings []string, stdout, stderr io.Writer) error {
	began := time.Now()
	progress := func(what string) {
		_, _ = fmt.Fprintf(stderr, "%4.0fs  %s\n", time.Since(began).Seconds(), what)
	}
	operations, err := selectOperations(names)
	if err != nil {
		return err
	}
	if rounds < 1 {
		return errors.New("-rounds must be at least 1")
	}

	dir, err := os.MkdirTemp("", "chatkeep-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	progress("building the handler and starting servers")
	p, err := startPair(ctx, dir, settings)
	defer p.stop()
	if err != nil {
		return err
	}

	before, err := p.readOthers()
	if err != nil {
		return err
	}
	var loaded, alone []row
	for _, o := range operations {
		progress(fmt.Sprintf("%s: %d connections, %d rounds", o.name, connections, rounds))
		rows, err := p.compare(ctx, o.loaded, connections, rounds, underLoad)
		if err != nil {
			return err
		}
		loaded = append(loaded, rows...)
	}
	if err := p.appendOnly(ctx); err != nil {
		return err
	}
	for _, o := range operations {
		progress(o.name + ": one connection, append-only file")
		for _, request := range o.alone {
			rows, err := p.compare(ctx, request, 1, rounds, oneByOne)
			if err != nil {
				return err
			}
			alone = append(alone, rows...)
		}
	}
	after, err := p.readOthers()
	if err != nil {
		return err
	}
	progress("done")
	return printTable(stdout, rounds, after.since(before), loaded, alone)
}

// compare measures both servers with one request, and returns a row for each figure.
func (p *pair) compare(ctx context.Context, r request, callers, rounds int, m measurement) ([]row, error) {
	rows := make([]row, len(m.figures))
	for i, figure := range m.figures {
		rows[i] = row{request: r.name, figure: figure, aim: r.aims[figure]}
	}
	for range rounds {
		handler, yardstick, err := p.round(ctx, r, p.tokens[:callers], m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		for i := range rows {
			rows[i].handler = append(rows[i].handler, handler[i])
			rows[i].yardstick = append(rows[i].yardstick, yardstick[i])
		}
	}
	return rows, nil
}

// round measures both servers once, each beginning with an empty Redis, in slices that alternate.
func (p *pair) round(ctx context.Context, r request, tokens []string, m measurement) (handler, yardstick []float64, err error) {
	servers := [2]*server{p.handler, p.yardstick}
	var callers [2][]*caller
	var tallies [2]tally
	for i, s := range servers {
		callers[i], err = s.prepare(ctx, r, tokens)
		defer hangUp(callers[i])
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for range perRound {
		for i, s := range servers {
			if err := m.slice(s, ctx, callers[i], &tallies[i]); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return m.values(tallies[0]), m.values(tallies[1]), nil
}
