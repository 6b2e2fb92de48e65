package main

import (
	"bytes"
	"log/slog"
	"math"
	"runtime/debug"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func TestMemoryOfTheContainer(t *testing.T) {
	const v2, v1 = "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"
	for name, row := range map[string]struct {
		path, text string
		underHost  bool
		want       int64
	}{
		"cgroup 2":                   {v2, "1073741820\n", false, 966367638},
		"cgroup 1":                   {v1, "1073741820\n", false, 966367638},
		"unlimited":                  {v2, "max\n", false, 0},
		"unlimited in cgroup 1":      {v1, "9223372036854771712\n", false, 0},
		"nothing is said":            {"etc/hostname", "x", false, 0},
		"beside the host":            {v2, "2147483640", true, (2147483640 - hostMemory) / 10 * 9},
		"beside the host in 256 MiB": {v2, "268435450", true, 120795948},
	} {
		t.Run(name, func(t *testing.T) {
			root := fstest.MapFS{row.path: {Data: []byte(row.text)}}
			require.Equal(t, row.want, memoryFor(root, row.underHost))
		})
	}
}

func TestTheMemoryLimitIsSetAndLogged(t *testing.T) {
	for name, row := range map[string]struct {
		root  fstest.MapFS
		given string
		want  int64
	}{
		"in a container":             {fstest.MapFS{memoryLimits[0]: {Data: []byte("1073741820")}}, "", 966367638},
		"elsewhere":                  {fstest.MapFS{}, "", math.MaxInt64},
		"when it is given, it stays": {fstest.MapFS{memoryLimits[0]: {Data: []byte("1073741820")}}, "1GiB", math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
			var log bytes.Buffer
			limitMemory(row.root, settings(vars{"GOMEMLIMIT": row.given}), false, slog.New(slog.NewJSONHandler(&log, nil)))
			require.Equal(t, row.want, debug.SetMemoryLimit(-1))
			require.Equal(t, row.want < math.MaxInt64, strings.Contains(log.String(), `"bytes":966367638`), log.String())
		})
	}
}
