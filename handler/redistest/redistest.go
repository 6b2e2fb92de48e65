// Package redistest starts private Redis servers for tests, with a clock that a test can set.
package redistest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// longestWait bounds every wait: several test binaries may start servers at once on a small machine.
const longestWait = 30 * time.Second

// Server is one redis-server on 127.0.0.1, which ends with the test. Its data do not survive Kill unless the arguments say so.
type Server struct {
	Addr string

	// For clients of StartTLS.
	TLS    *tls.Config
	CAFile string

	t        testing.TB
	clock    *Clock
	dir      string
	args     []string
	sentinel string // path of its configuration, when it is a Sentinel
	command  *exec.Cmd
}

// Start starts a server with more arguments for redis-server.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return (*Clock)(nil).Start(t, args...)
}

// StartTLS starts a server that speaks nothing but TLS, with a certificate for localhost and 127.0.0.1.
func StartTLS(t testing.TB, args ...string) *Server {
	t.Helper()
	return (*Clock)(nil).StartTLS(t, args...)
}

// Cluster is a Redis cluster.
type Cluster struct {
	Addrs   []string
	Servers []*Server
}

// StartCluster starts a cluster of the given number of masters, each with replicas of its own.
func StartCluster(t testing.TB, masters, replicasEach int) *Cluster {
	t.Helper()
	return startCluster(t, nil, masters, replicasEach, 2*time.Second)
}

// startCluster starts a cluster in which a node that is silent for the timeout is dead.
func startCluster(t testing.TB, clock *Clock, masters, replicasEach int, timeout time.Duration) *Cluster {
	t.Helper()
	c := &Cluster{}
	for range masters * (1 + replicasEach) {
		s := clock.Start(t, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf",
			"--cluster-node-timeout", strconv.FormatInt(timeout.Milliseconds(), 10))
		c.Servers, c.Addrs = append(c.Servers, s), append(c.Addrs, s.Addr)
	}
	create := append([]string{"--cluster", "create"}, c.Addrs...)
	create = append(create, "--cluster-replicas", strconv.Itoa(replicasEach), "--cluster-yes")
	out, err := exec.Command("redis-cli", create...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, s := range c.Servers {
		s.await("cluster_state:ok", "cluster", "info")
		s.await("cluster_known_nodes:"+strconv.Itoa(len(c.Servers)), "cluster", "info")
	}
	return c
}

// StartReplica starts a replica of a server, and returns when it is in step. Killed and started again it is a master.
func StartReplica(t testing.TB, master *Server, args ...string) *Server {
	t.Helper()
	return startReplica(Start(t, args...), master)
}

func startReplica(s, master *Server) *Server {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(master.Addr)
	master.CLI("config", "set", "repl-diskless-sync-delay", "0") // otherwise it waits 5 s for more replicas
	s.CLI("replicaof", host, port)
	s.await("master_link_status:up", "info", "replication")
	master.await("state=online", "info", "replication")
	return s
}

// SentinelMaster is what a Sentinel calls its master.
const SentinelMaster = "chat"

// StartSentinel starts a Sentinel that watches a master with one replica, and fails over a second after the master's death.
func StartSentinel(t testing.TB, master *Server) *Server {
	t.Helper()
	host, port, _ := net.SplitHostPort(master.Addr)
	s := prepare(t, nil)
	s.sentinel = filepath.Join(s.dir, "sentinel.conf")
	config := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s 1\nsentinel down-after-milliseconds %[1]s 1000\nsentinel failover-timeout %[1]s 3000\n",
		SentinelMaster, host, port)
	require.NoError(t, os.WriteFile(s.sentinel, []byte(config), 0o600))
	s.start()
	s.await("slaves=1", "info", "sentinel")
	return s
}

// Kill ends the server at once, as a crash does.
func (s *Server) Kill() {
	s.t.Helper()
	require.NoError(s.t, s.command.Process.Kill())
	_ = s.command.Wait() // says that it was killed
}

// Restart starts a killed server again at the same address.
func (s *Server) Restart() {
	s.t.Helper()
	s.launch()
	s.await("PONG", "ping")
}

// Pause stops the server without closing a connection; Resume lets it go on.
func (s *Server) Pause() {
	s.t.Helper()
	require.NoError(s.t, s.command.Process.Signal(syscall.SIGSTOP))
}

// Resume ends a Pause.
func (s *Server) Resume() {
	s.t.Helper()
	require.NoError(s.t, s.command.Process.Signal(syscall.SIGCONT))
}

// CLI runs a command by redis-cli and returns what it prints.
func (s *Server) CLI(args ...string) string {
	s.t.Helper()
	out, err := s.cli(args...)
	require.NoError(s.t, err, "%s", out)
	return out
}

func (s *Server) cli(args ...string) (string, error) {
	host, port, _ := net.SplitHostPort(s.Addr)
	all := []string{"-h", host, "-p", port}
	if s.TLS != nil {
		all = append(all, "--tls", "--cacert", s.CAFile)
	}
	out, err := exec.Command("redis-cli", append(all, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// prepare makes the directory of a server that is not started yet.
func prepare(t testing.TB, args []string) *Server {
	t.Helper()
	need(t, "redis-server")
	dir, err := os.MkdirTemp("", "redistest")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &Server{t: t, dir: dir, args: args}
}

// need ends the test when a program is missing.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(program + " is missing: run scripts/install-test-tools.sh")
			}
			t.Skip(program + " is missing: make test installs it")
		}
	}
}

// start starts the server on a free port. Another process may take the port first; then it tries the next.
func (s *Server) start() {
	s.t.Helper()
	s.t.Cleanup(func() {
		_ = s.command.Process.Kill() // it may be dead already
		_ = s.command.Wait()
	})
	for range 10 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(s.t, err)
		s.Addr = l.Addr().String()
		require.NoError(s.t, l.Close())
		s.launch()
		if s.ready() {
			return
		}
	}
	s.t.Fatal("redis-server does not start")
}

// launch starts the process.
func (s *Server) launch() {
	_, port, _ := net.SplitHostPort(s.Addr)
	args := []string{"--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no", "--port", port}
	if s.TLS != nil {
		args = append(args[:len(args)-2], "--port", "0", "--tls-port", port, "--tls-auth-clients", "no",
			"--tls-ca-cert-file", s.CAFile,
			"--tls-cert-file", filepath.Join(s.dir, "server.pem"), "--tls-key-file", filepath.Join(s.dir, "key.pem"))
	}
	if s.sentinel != "" {
		args = []string{s.sentinel, "--sentinel", "--bind", "127.0.0.1", "--dir", s.dir, "--port", port}
	}
	s.command = exec.Command("redis-server", slices.Concat(args, s.args)...)
	s.command.Env = s.clock.environment()
	require.NoError(s.t, s.command.Start())
}

// ready waits until this process answers, and is false when it ended or another server has the port.
func (s *Server) ready() bool {
	for end := time.Now().Add(longestWait); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		info, _ := s.cli("info", "server")
		if strings.Contains(info, fmt.Sprintf("process_id:%d\r", s.command.Process.Pid)) {
			return true
		}
		if strings.Contains(info, "process_id:") || !s.alive() {
			_ = s.command.Process.Kill()
			_ = s.command.Wait()
			return false
		}
	}
	return false
}

// alive is false for a process that has ended, which stays a zombie until it is waited for.
func (s *Server) alive() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.command.Process.Pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func (s *Server) await(want string, args ...string) {
	s.t.Helper()
	var last string
	for end := time.Now().Add(longestWait); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if last, _ = s.cli(args...); strings.Contains(last, want) {
			return
		}
	}
	s.t.Fatalf("redis-server at %s says %q, not %q", s.Addr, last, want)
}

// certify writes a fresh authority and the server's certificate into the directory, and returns what a client needs.
func (s *Server) certify() *tls.Config {
	s.t.Helper()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redistest"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(s.t, err)
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(s.t, err)
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	require.NoError(s.t, err)
	serverDER, err := x509.CreateCertificate(rand.Reader, server, authority, &serverKey.PublicKey, authorityKey)
	require.NoError(s.t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	require.NoError(s.t, err)
	for name, block := range map[string]pem.Block{
		"ca.pem": {Type: "CERTIFICATE", Bytes: authorityDER}, "server.pem": {Type: "CERTIFICATE", Bytes: serverDER},
		"key.pem": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		require.NoError(s.t, os.WriteFile(filepath.Join(s.dir, name), pem.EncodeToMemory(&block), 0o600))
	}
	pool := x509.NewCertPool()
	root, err := x509.ParseCertificate(authorityDER)
	require.NoError(s.t, err)
	pool.AddCert(root)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: "localhost"}
}
