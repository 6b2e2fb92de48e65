// Devissuer is the token issuer of make run: the same tokens as in production, signed by a key that only this machine knows.
//
//	devissuer serve                              serves the key set until Ctrl-C
//	devissuer token -user alice -tenant <guid>   prints a token
package main

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"chatkeep/handler/auth/authtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "devissuer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	usage := errors.New("say what to do: devissuer serve, or devissuer token -user NAME")
	if len(args) == 0 {
		return usage
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := flags.String("dir", ".local", "folder of the key pair, made when it is not there")
	addr := flags.String("addr", "127.0.0.1:7072", "loopback address to serve the key set at")
	user := flags.String("user", "alice", "the token's user (sub)")
	tenant := flags.String("tenant", authtest.LocalTenant, "the token's tenant (tid)")
	life := flags.Duration("ttl", 8*time.Hour, "how long the token is good")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	issuer, err := open(*dir)
	if err != nil {
		return err
	}
	switch args[0] {
	case "serve":
		return serve(ctx, issuer, *addr)
	case "token":
		_, err := fmt.Fprintln(stdout, issuer.Token(*tenant, *user, map[string]any{"exp": time.Now().Add(*life).Unix()}))
		return err
	default:
		return usage
	}
}

// open returns the issuer with the folder's key, which only its owner can read.
func open(dir string) (*authtest.Issuer, error) {
	path := filepath.Join(dir, "issuer.pem")
	issuer := authtest.New()
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		der, err := x509.MarshalPKCS8PrivateKey(issuer.Key)
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		return issuer, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key: delete it, and a new one is made", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s holds no key: delete it, and a new one is made", path)
	}
	var ok bool
	if issuer.Key, ok = key.(*rsa.PrivateKey); !ok {
		return nil, fmt.Errorf("%s holds another kind of key: delete it, and a new one is made", path)
	}
	return issuer, nil
}

func serve(ctx context.Context, issuer *authtest.Issuer, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return errors.New("-addr must be a loopback address, such as 127.0.0.1:7072: these tokens are for this machine")
	}
	server := &http.Server{Addr: addr, Handler: issuer, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
