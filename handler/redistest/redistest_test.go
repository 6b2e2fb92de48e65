package redistest

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestServers(t *testing.T) {
	t.Run("a killed server is gone, and comes back empty at its address", func(t *testing.T) {
		s := Start(t)
		require.Equal(t, "OK", s.CLI("set", "k", "v"))
		s.Kill()
		_, err := s.cli("ping")
		require.Error(t, err)
		s.Restart()
		require.Empty(t, s.CLI("get", "k"))
	})
	t.Run("what was written with appendfsync always survives", func(t *testing.T) {
		s := Start(t, "--appendonly", "yes", "--appendfsync", "always")
		s.CLI("set", "k", "v")
		s.Kill()
		s.Restart()
		require.Equal(t, "v", s.CLI("get", "k"))
	})
	t.Run("TLS", func(t *testing.T) {
		require.Equal(t, "PONG", StartTLS(t).CLI("ping"))
	})
	t.Run("a cluster refuses keys of other nodes", func(t *testing.T) {
		c := StartCluster(t, 3, 0)
		moved := 0
		for _, s := range c.Servers {
			out, _ := s.cli("get", "{a}x")
			if out != "" {
				require.Contains(t, out, "MOVED")
				moved++
			}
		}
		require.Equal(t, 2, moved)
	})
}

func TestClock(t *testing.T) {
	clock := NewClock(t)
	cluster := clock.StartCluster(t, 3, 0)
	master := clock.Start(t)
	replica := (*Clock)(nil).StartReplica(t, master)
	secure := clock.StartTLS(t)
	followers := append([]*Server{master, secure}, cluster.Servers...)
	timeOf := func(s *Server) time.Time {
		t.Helper()
		fields := strings.Fields(s.CLI("eval", "return redis.call('TIME')", "0"))
		require.Len(t, fields, 2)
		seconds, err := strconv.ParseInt(fields[0], 10, 64)
		require.NoError(t, err)
		micros, err := strconv.ParseInt(fields[1], 10, 64)
		require.NoError(t, err)
		return time.Unix(seconds, micros*1000)
	}
	const near = 10 * time.Second // on a loaded machine

	for _, s := range followers {
		require.WithinDuration(t, time.Now(), timeOf(s), near)
	}
	require.Equal(t, "OK", master.CLI("set", "k", "v", "px", "60000"))
	for _, d := range []time.Duration{-12 * time.Minute, 30 * time.Second, 3*time.Hour + 7*time.Millisecond} {
		at := time.Now().Add(d).Truncate(time.Millisecond)
		clock.Freeze(at)
		for _, s := range followers {
			require.True(t, at.Equal(timeOf(s)), "%v is not %v", timeOf(s), at)
		}
		clock.Ahead(d)
		for _, s := range followers {
			require.WithinDuration(t, time.Now().Add(d), timeOf(s), near)
		}
		if d < time.Minute {
			require.Equal(t, "v", master.CLI("get", "k"))
		}
		require.WithinDuration(t, time.Now(), timeOf(replica), near, "it has no clock of its own")
	}
	require.Empty(t, master.CLI("get", "k"), "a key outlived its time")
	for _, s := range cluster.Servers {
		require.Contains(t, s.CLI("cluster", "info"), "cluster_state:ok")
	}
}
