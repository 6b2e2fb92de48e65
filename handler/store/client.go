package store

import (
	"crypto/tls"
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
	TLS      *tls.Config // nil: not encrypted
	Cluster  bool        // Addr is one node of a cluster

	DialTimeout    time.Duration
	CommandTimeout time.Duration // for one reply
	PoolTimeout    time.Duration // for a free connection
	PoolSize       int           // connections, per node of a cluster
}

// NewClient returns the client that all functions share. It connects when it is first used.
func NewClient(c Connection) redis.UniversalClient {
	o := &redis.Options{
		Network: c.Network, Addr: c.Addr, DB: c.DB, Username: c.Username, Password: c.Password, TLSConfig: c.TLS,

		DialTimeout: c.DialTimeout, ReadTimeout: c.CommandTimeout, WriteTimeout: c.CommandTimeout, PoolTimeout: c.PoolTimeout,
		ContextTimeoutEnabled: true, // otherwise a call outlives its deadline
		DialerRetries:         1,    // the default of 5 multiplies DialTimeout
		MaxRetries:            3,    // safe: every script recognises its own second execution
		MinRetryBackoff:       8 * time.Millisecond,
		MaxRetryBackoff:       128 * time.Millisecond,

		PoolSize:         c.PoolSize,
		PipelinePoolSize: -1, // one pool to count
		MaxIdleConns:     max(3, c.PoolSize/4),
		ConnMaxIdleTime:  5 * time.Minute, // Azure closes idle connections after 10
		ConnMaxLifetime:  0,

		Protocol:                 2,    // Redis 6.0 needs no more
		DisableIdentity:          true, // unknown before Redis 7.2; saves a round trip when connecting
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if !c.Cluster {
		return redis.NewClient(o)
	}
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: []string{o.Addr}, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,

		DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout, PoolTimeout: o.PoolTimeout,
		ContextTimeoutEnabled: o.ContextTimeoutEnabled, DialerRetries: o.DialerRetries,
		MaxRedirects: o.MaxRetries, MinRetryBackoff: o.MinRetryBackoff, MaxRetryBackoff: o.MaxRetryBackoff,

		PoolSize: o.PoolSize, PipelinePoolSize: o.PipelinePoolSize, MaxIdleConns: o.MaxIdleConns, ConnMaxIdleTime: o.ConnMaxIdleTime,

		Protocol: o.Protocol, DisableIdentity: o.DisableIdentity, MaintNotificationsConfig: o.MaintNotificationsConfig,
		ClusterStateReloadInterval: 5 * time.Second, // how long a fail-over goes unnoticed; the default is 60 s
	})
}
