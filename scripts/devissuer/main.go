// Devissuer is the token issuer of make run: the same tokens as in production, signed with a key that only this machine knows.
//
//	devissuer serve                              serves the key set until Ctrl-C, and to programs tokens, at POST /token?user=alice
//	devissuer token --user alice --tenant GUID   prints a token
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
	"regexp"
	"syscall"
	"time"

	"chatkeep/handler/auth/authtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "devissuer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "serve":
			return serve(ctx, args[1:], stdout)
		case "token":
			return token(args[1:], stdout)
		}
	}
	return errors.New("say what to do: devissuer serve, or devissuer token --user NAME; --help after either shows its flags")
}

// serve publishes the key until ctx ends.
func serve(ctx context.Context, args []string, stdout io.Writer) error {
	flags, dir, name := newFlags("serve")
	addr := flags.String("addr", "127.0.0.1:7072", "loopback `address` to serve the key set at")
	if err := flags.Parse(args); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(*addr)
	if ip := net.ParseIP(host); err != nil || !ip.IsLoopback() {
		return errors.New("--addr must be a loopback address with a port, such as 127.0.0.1:7072: these tokens are for this machine alone")
	}
	issuer, err := open(*dir)
	if err != nil {
		return err
	}
	issuer.Name = *name
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w: end what listens there, or choose another --addr", err)
	}
	if _, err := fmt.Fprintf(stdout, "Serving the keys of %s until Ctrl-C. The handler takes them with\n"+
		"  AUTH_ISSUER=%s AUTH_JWKS_URL=http://%s%s AUTH_AUDIENCE=%s\nA token: devissuer token --user alice\n",
		issuer.Name, issuer.Name, listener.Addr(), authtest.KeysPath, issuer.Audience); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", issuer)
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" || r.Host != listener.Addr().String() {
			http.Error(w, "tokens are for programs, not for pages", http.StatusForbidden)
			return
		}
		_, _ = fmt.Fprintln(w, tokenOf(issuer, authtest.LocalTenant, r.URL.Query().Get("user"), authtest.Scope, localLife))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// token prints a token and nothing else.
func token(args []string, stdout io.Writer) error {
	flags, dir, name := newFlags("token")
	user := flags.String("user", "alice", "the token's user (sub)")
	tenant := flags.String("tenant", authtest.LocalTenant, "the token's tenant (tid), a `GUID`")
	scope := flags.String("scope", authtest.Scope, "what the user allows the client (scp)")
	audience := flags.String("audience", authtest.LocalAudience, "the API's client `id` (aud)")
	life := flags.Duration("ttl", localLife, "how long the token is good")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !guid.MatchString(*tenant) {
		return errors.New("--tenant must be a GUID in lower case, such as " + authtest.LocalTenant)
	}
	issuer, err := open(*dir)
	if err != nil {
		return err
	}
	issuer.Name, issuer.Audience = *name, *audience
	_, err = fmt.Fprintln(stdout, tokenOf(issuer, *tenant, *user, *scope, *life))
	return err
}

// localLife is how long a token is good, unless another time is asked for.
const localLife = 8 * time.Hour

func tokenOf(issuer *authtest.Issuer, tenant, user, scope string, life time.Duration) string {
	return issuer.Token(tenant, user, map[string]any{"scp": scope, "exp": time.Now().Add(life).Unix()})
}

func newFlags(command string) (flags *flag.FlagSet, dir, issuer *string) {
	flags = flag.NewFlagSet("devissuer "+command, flag.ContinueOnError)
	dir = flags.String("dir", ".local", "`folder` of the key pair, which is made when it is not there")
	issuer = flags.String("issuer", authtest.LocalIssuer, "the issuer's `name` (iss); {tenantid} in it stands for the token's tenant")
	return flags, dir, issuer
}

// open returns the issuer with the folder's key, which only its owner can read.
func open(dir string) (*authtest.Issuer, error) {
	path := filepath.Join(dir, "issuer.pem")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return create(path)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key: delete it, and a new one is made", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s holds no RSA key: delete it, and a new one is made", path)
	}
	return authtest.WithKey(key), nil
}

func create(path string) (*authtest.Issuer, error) {
	key := authtest.NewKey()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, err
	}
	return authtest.WithKey(key), nil
}
