package redistest

import (
	"testing"

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
