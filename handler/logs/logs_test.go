package logs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"

	"chatkeep/handler/logs"
	"chatkeep/handler/panics"

	"github.com/stretchr/testify/require"
)

// said is an error that says its cause.
type said logs.Cause

func (s said) Error() string     { return "it is " + string(s) }
func (s said) Cause() logs.Cause { return logs.Cause(s) }

func TestALineHasTheShapeOfAllLines(t *testing.T) {
	var out bytes.Buffer
	log := logs.New(&out, slog.LevelInfo)
	of := logs.With(t.Context(), logs.Request{ID: "r1", TraceID: "0af7651916cd43dd8448eb211c80319c"})
	for want, write := range map[string]func(){
		`"msg":"m","requestId":"r1","traceId":"0af7651916cd43dd8448eb211c80319c","n":1}`: func() { log.InfoContext(of, "m", "n", 1) },
		`"msg":"m","requestId":"r2"}`: func() { log.InfoContext(logs.With(of, logs.Request{ID: "r2"}), "m") },
		`"msg":"m","requestId":"r1","traceId":"0af7651916cd43dd8448eb211c80319c"}`: func() { log.InfoContext(context.WithoutCancel(of), "m") },
		`"msg":"m"}`: func() { log.InfoContext(t.Context(), "m") },
		`"msg":"m","err":"it is full","cause":"full"}`:  func() { log.Info("m", "err", said("full")) },
		`"msg":"m","err":"EOF"}`:                        func() { log.Info("m", "err", "EOF") }, // a text
		`"msg":"m","err":null}`:                         func() { log.Info("m", "err", nil) },
		`"msg":"m","a":1,"requestId":"r1","n":2}`:       func() { log.With("a", 1).InfoContext(logs.With(t.Context(), logs.Request{ID: "r1"}), "m", "n", 2) },
		`"msg":"m","g":{"err":"EOF","cause":"broken"}}`: func() { log.WithGroup("g").Info("m", "err", io.EOF) },
	} {
		write()
		require.Contains(t, out.String(), want)
		out.Reset()
	}
	log.Debug("m")
	require.Empty(t, out.String())
}

func TestWhatACauseIs(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	_, refused := net.Dial("tcp", gone.Addr().String())
	require.Error(t, refused)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = plain.Close() }()
	var serving sync.WaitGroup
	serving.Go(func() { _ = http.Serve(plain, http.NotFoundHandler()) })
	defer serving.Wait()
	defer func() { _ = plain.Close() }()
	_, noTLS := tls.Dial("tcp", plain.Addr().String(), nil)
	require.Error(t, noTLS)
	bug := panics.Recover(t.Context(), slog.New(slog.DiscardHandler), func() error { panic("x") })
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()

	for want, all := range map[logs.Cause][]error{
		"timeout": {late.Err(), os.ErrDeadlineExceeded, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, &net.DNSError{IsTimeout: true}},
		"refused": {refused, &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, syscall.ECONNREFUSED},
		"broken":  {io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, &net.OpError{Op: "read", Err: syscall.ECONNRESET}},
		"dns":     {&net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}},
		"tls": {
			noTLS, x509.UnknownAuthorityError{}, &tls.CertificateVerificationError{Err: errors.New("expired")}, tls.AlertError(42),
			&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")},
		},
		"panic": {bug},
		"full":  {said("full"), logs.Because("full", io.EOF), logs.Because("full", said("empty")), logs.Because("", said("full")), errors.Join(io.EOF, said("full")), fmt.Errorf("%w: %w", io.EOF, said("full")), fmt.Errorf("%w: %w", said(""), said("full"))},
		"other": {errors.New("x"), said(""), context.Canceled},
	} {
		for _, err := range all {
			require.Equal(t, want, logs.CauseOf(err), "%T: %v", err, err)
			require.Equal(t, want, logs.CauseOf(fmt.Errorf("redis: start: %w", err)))
		}
	}
}
