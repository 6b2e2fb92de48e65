package main

import (
	"io/fs"
	"log/slog"
	"math"
	"runtime/debug"
	"strconv"
	"strings"
)

// hostMemory is what the Functions host takes, in bytes: it shares our container.
const hostMemory = 200 << 20

// memoryLimits are where a container's limit is, in bytes: cgroups of version 2 and 1.
var memoryLimits = []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"}

// limitMemory has Go collect garbage sooner rather than have the container killed. Where GOMEMLIMIT is given, or the container has no
// limit, it does nothing.
func limitMemory(root fs.FS, getenv func(string) string, underHost bool, log *slog.Logger) {
	if bytes := memoryFor(root, underHost); bytes > 0 && getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes)
		log.Info("memory limit set", "bytes", bytes)
	}
}

// memoryFor is how many bytes Go may take of the container's: nine tenths, for what Go does not count needs some too. It is 0 where
// there is no limit.
func memoryFor(root fs.FS, underHost bool) int64 {
	for _, path := range memoryLimits {
		text, err := fs.ReadFile(root, path)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil || limit > math.MaxInt64/2 { // version 2 writes "max", version 1 about as much as there are addresses
			return 0
		}
		if underHost {
			limit = max(limit-hostMemory, limit/2)
		}
		return limit / 10 * 9
	}
	return 0
}
