package redistest

import (
	_ "embed"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Clock is the wall clock of the servers that its methods start. It shows the true time until it is told otherwise, and its servers follow
// at once. Redis measures durations by another clock, which it leaves alone. A nil Clock is the true time.
type Clock struct {
	file    *os.File
	library string // preloaded into every server
}

//go:embed testdata/clock.c
var clockSource []byte

// NewClock returns a clock that ends with the test.
func NewClock(t testing.TB) *Clock {
	t.Helper()
	need(t, "redis-server", "gcc")
	dir := t.TempDir()
	source := filepath.Join(dir, "clock.c")
	require.NoError(t, os.WriteFile(source, clockSource, 0o600))
	c := &Clock{library: filepath.Join(dir, "clock.so")}
	out, err := exec.Command("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", c.library, source).CombinedOutput()
	require.NoError(t, err, "%s", out)
	c.file, err = os.Create(filepath.Join(dir, "clock"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.file.Close() })
	require.NoError(t, c.set(0, 0))
	return c
}

// Freeze has the clock stand still at a time, in whole milliseconds. It panics when that fails.
func (c *Clock) Freeze(at time.Time) {
	c.mustSet(0, at.UnixMilli())
}

// Ahead lets the clock run ahead of the true time, or behind it when d is negative, in whole milliseconds. It panics when that fails.
func (c *Clock) Ahead(d time.Duration) {
	c.mustSet(d.Milliseconds(), 0)
}

func (c *Clock) mustSet(ahead, frozen int64) {
	if err := c.set(ahead, frozen); err != nil {
		panic(err)
	}
}

// set writes the two numbers of clock.c at once.
func (c *Clock) set(ahead, frozen int64) error {
	var numbers [16]byte
	binary.NativeEndian.PutUint64(numbers[:8], uint64(ahead))
	binary.NativeEndian.PutUint64(numbers[8:], uint64(frozen))
	_, err := c.file.WriteAt(numbers[:], 0)
	return err
}

// environment has a server follow the clock.
func (c *Clock) environment() []string {
	if c == nil {
		return nil
	}
	return append(os.Environ(), "CLOCK="+c.file.Name(), "LD_PRELOAD="+c.library)
}

// Start starts a server like the function Start.
func (c *Clock) Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := prepare(t, args)
	s.clock = c
	s.start()
	return s
}

// StartTLS starts a server like the function StartTLS.
func (c *Clock) StartTLS(t testing.TB, args ...string) *Server {
	t.Helper()
	s := prepare(t, args)
	s.clock = c
	s.CAFile = filepath.Join(s.dir, "ca.pem")
	s.TLS = s.certify()
	s.start()
	return s
}

// StartReplica starts a replica like the function StartReplica. Its clock may be another than the master's.
func (c *Clock) StartReplica(t testing.TB, master *Server, args ...string) *Server {
	t.Helper()
	return startReplica(c.Start(t, args...), master)
}

// StartCluster starts a cluster like the function StartCluster, in which no node ever takes another for dead: a jump of the clock looks
// like a long silence. The clock must run meanwhile.
func (c *Clock) StartCluster(t testing.TB, masters, replicasEach int) *Cluster {
	t.Helper()
	return startCluster(t, c, masters, replicasEach, 10*365*24*time.Hour)
}
