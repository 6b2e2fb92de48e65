package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Connection says how to reach Redis.
type Connection struct {
	Network  string // "tcp", or "unix" with a socket's path as Addr
	Addr     string
	DB       int
	Username string
	Password string
	// Credentials, when set, gives the user name and password of each new connection, which then lives for Lifetime.
	Credentials func(context.Context) (username, password string, err error)
	Lifetime    time.Duration
	TLS         *tls.Config // nil: not encrypted
	Cluster     bool        // Addr is one node of a cluster
	Sentinel    string      // the master's name, when Addr is a Sentinel

	DialTimeout    time.Duration
	CommandTimeout time.Duration // for one reply
	PoolTimeout    time.Duration // for a free connection
	PoolSize       int           // connections, per node of a cluster

	forHealth bool
}

// ForHealth returns the settings of a small separate pool that fails fast: what asks for the health must not wait behind other calls.
func (c Connection) ForHealth() Connection {
	c.PoolSize, c.forHealth = 2, true
	return c
}

// NewClient returns the client that all functions share. It connects when it is first used.
func NewClient(c Connection) redis.UniversalClient {
	o := &redis.UniversalOptions{
		Addrs: []string{c.Addr}, MasterName: c.Sentinel, DB: c.DB, Username: c.Username, Password: c.Password,
		Dialer: c.dial, CredentialsProviderContext: c.Credentials,

		DialTimeout: c.DialTimeout, ReadTimeout: c.CommandTimeout, WriteTimeout: c.CommandTimeout, PoolTimeout: c.PoolTimeout,
		ContextTimeoutEnabled: true, // otherwise a call outlives its deadline
		DialerRetries:         1,    // the default of 5 multiplies DialTimeout
		MaxRetries:            3,    // safe: every script recognises its own second execution
		MinRetryBackoff:       8 * time.Millisecond,
		MaxRetryBackoff:       128 * time.Millisecond,

		PoolSize:         c.PoolSize,
		PipelinePoolSize: -1,              // one pool to count
		ConnMaxIdleTime:  5 * time.Minute, // Azure closes idle connections after 10
		ConnMaxLifetime:  c.Lifetime,

		ConnMaxLifetimeJitter: c.Lifetime / 8,

		Protocol:                 2,    // Redis 6.0 needs no more
		DisableIdentity:          true, // unknown before Redis 7.2; saves a round trip when connecting
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if c.forHealth {
		o.MaxRetries = 1
	}
	switch {
	case c.Sentinel != "":
		return redis.NewFailoverClient(o.Failover())
	case c.Cluster:
		cluster := o.Cluster()
		cluster.MaxRedirects, cluster.MaxRetries = o.MaxRetries, 0 // a cluster retries by redirects; its nodes' own retries would multiply them
		cluster.ClusterStateReloadInterval = 5 * time.Second       // how long a fail-over goes unnoticed; the default is 60 s
		return redis.NewClusterClient(cluster)
	default:
		simple := o.Simple()
		simple.Network = c.Network
		return redis.NewClient(simple)
	}
}

// dial connects. It reports failure through the connection, not as an error: after PoolSize dial errors go-redis would check for recovery
// only once a second.
func (c Connection) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var conn net.Conn
	var err error
	plain := &net.Dialer{Timeout: c.DialTimeout, KeepAlive: time.Minute}
	if c.TLS != nil {
		conn, err = (&tls.Dialer{NetDialer: plain, Config: c.TLS}).DialContext(ctx, network, addr)
		if secure, ok := conn.(*tls.Conn); ok {
			conn = checkable{secure}
		}
	} else {
		conn, err = plain.DialContext(ctx, network, addr)
	}
	if err != nil {
		return unreachable{fmt.Errorf("connect: %w", err)}, nil // go-redis takes off one layer
	}
	return conn, nil
}

// checkable is a TLS connection that the pool can ask whether the server has closed it, as it does with others. Otherwise each idle
// connection would cost a failed try after a restart of Redis.
type checkable struct{ *tls.Conn }

// SyscallConn implements syscall.Conn.
func (c checkable) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.NetConn().(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return conn.SyscallConn()
}

// unreachable is a connection that could not be made. Every use fails with the reason.
type unreachable struct{ err error }

func (u unreachable) Read([]byte) (int, error)         { return 0, u.err }
func (u unreachable) Write([]byte) (int, error)        { return 0, u.err }
func (u unreachable) Close() error                     { return nil }
func (u unreachable) LocalAddr() net.Addr              { return nowhere{} }
func (u unreachable) RemoteAddr() net.Addr             { return nowhere{} } // not nil: go-redis reads it at a fail-over
func (u unreachable) SetDeadline(time.Time) error      { return nil }
func (u unreachable) SetReadDeadline(time.Time) error  { return nil }
func (u unreachable) SetWriteDeadline(time.Time) error { return nil }

// nowhere is the address of a connection that could not be made.
type nowhere struct{}

// Network implements net.Addr.
func (nowhere) Network() string { return "none" }

func (nowhere) String() string { return "none" }
