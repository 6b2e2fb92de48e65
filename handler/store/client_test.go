package store

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"
)

// Whatever Redis is, a call has the same budgets, a connection the same credentials.
func TestEveryClientHasTheSameSettings(t *testing.T) {
	for name, change := range map[string]func(*Connection){
		"one server": func(*Connection) {},
		"a socket":   func(c *Connection) { c.Network, c.Addr = "unix", "/tmp/x.sock" },
		"Sentinel":   func(c *Connection) { c.Sentinel = "chat" },
		"a cluster":  func(c *Connection) { c.Cluster = true },
	} {
		for _, forHealth := range []bool{false, true} {
			c := Connection{
				Network: "tcp", Addr: "127.0.0.1:1", DB: 3, Username: "user", Password: "password", Lifetime: 8 * time.Minute, PoolSize: 20,
				Credentials: func(context.Context) (string, string, error) { return "object", "token", nil },
				TLS:         &tls.Config{MinVersion: tls.VersionTLS12},
				DialTimeout: 5 * time.Second, CommandTimeout: 2 * time.Second, PoolTimeout: 3 * time.Second,
			}
			change(&c)
			tries, connections := 3, 20
			if forHealth {
				c, tries, connections = c.ForHealth(), 1, 2
			}
			client := NewClient(c)
			t.Cleanup(func() { _ = client.Close() })
			o, retries := optionsOf(t, client)
			require.Equal(t, tries, retries, name)
			require.Equal(t, connections, o.PoolSize, name)
			require.Equal(t, -1, o.PipelinePoolSize, name)
			require.Equal(t, []time.Duration{5 * time.Second, 2 * time.Second, 2 * time.Second, 3 * time.Second},
				[]time.Duration{o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout}, name)
			require.Equal(t, []time.Duration{5 * time.Minute, 8 * time.Minute, time.Minute},
				[]time.Duration{o.ConnMaxIdleTime, o.ConnMaxLifetime, o.ConnMaxLifetimeJitter}, name)
			require.Equal(t, []time.Duration{8 * time.Millisecond, 128 * time.Millisecond}, []time.Duration{o.MinRetryBackoff, o.MaxRetryBackoff}, name)
			require.True(t, o.ContextTimeoutEnabled, name)
			require.Equal(t, 1, o.DialerRetries, name)
			require.Equal(t, 2, o.Protocol, name)
			require.True(t, o.DisableIdentity, name)
			require.Equal(t, maintnotifications.ModeDisabled, o.MaintNotificationsConfig.Mode, name)
			user, password, err := o.CredentialsProviderContext(t.Context())
			require.NoError(t, err)
			require.Equal(t, "object token", user+" "+password, name)
			require.Equal(t, "user password", o.Username+" "+o.Password, name)
			require.NotNil(t, o.Dialer, name)
			require.Nil(t, o.TLSConfig, "the dialer speaks TLS")
			if name == "a socket" {
				require.Equal(t, "unix", o.Network)
			}
			if !c.Cluster {
				require.Equal(t, 3, o.DB, name)
			}
		}
	}
}

// optionsOf returns the options of a client, or of the clients of a cluster's nodes, and how often a command is tried again.
func optionsOf(t *testing.T, client redis.UniversalClient) (*redis.Options, int) {
	t.Helper()
	switch client := client.(type) {
	case *redis.Client:
		return client.Options(), client.Options().MaxRetries
	case *redis.ClusterClient:
		o := client.Options()
		require.Equal(t, 5*time.Second, o.ClusterStateReloadInterval)
		require.LessOrEqual(t, o.MaxRetries, 0, "a node's retries multiply the cluster's")
		o.ClusterSlots = func(context.Context) ([]redis.ClusterSlot, error) { // instead of asking a cluster
			return []redis.ClusterSlot{{Start: 0, End: 16383, Nodes: []redis.ClusterNode{{Addr: "127.0.0.1:1"}}}}, nil
		}
		node, err := client.MasterForKey(t.Context(), "key")
		require.NoError(t, err)
		return node.Options(), o.MaxRedirects
	default:
		t.Fatalf("%T", client)
		return nil, 0
	}
}

// A fail-over of Sentinel asks each connection of the pool where it leads, those that could not be made too.
func TestAConnectionThatCouldNotBeMadeHasAnAddress(t *testing.T) {
	conn, err := Connection{DialTimeout: time.Second}.dial(t.Context(), "tcp", "127.0.0.1:1")
	require.NoError(t, err)
	require.NotEmpty(t, conn.RemoteAddr().String())
	require.NotEmpty(t, conn.LocalAddr().Network())
	_, err = conn.Write(nil)
	require.Error(t, err)
}
