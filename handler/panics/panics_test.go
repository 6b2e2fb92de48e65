package panics_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"chatkeep/handler/panics"

	"github.com/stretchr/testify/require"
)

func TestAPanicEndsItsGoroutineAlone(t *testing.T) {
	var log bytes.Buffer
	var all sync.WaitGroup
	panics.Go(&all, slog.New(slog.NewJSONHandler(&log, nil)), func() { panic("what alice said") })
	all.Wait()
	require.Equal(t, 1, strings.Count(log.String(), "\n"))
	require.Contains(t, log.String(), "panics_test.go")
	require.NotContains(t, log.String(), "alice")
}

// Whatever a panic's value is, it is not quoted; a fault that Go itself finds is.
func TestWhatAPanicSays(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	index := len(t.Name())
	for want, do := range map[string]func(){
		"panic: string":              func() { panic("what alice said") },
		"panic: *errors.errorString": func() { panic(errors.New("what alice said")) },
		"panic: runtime error: index out of range [18] with length 1": func() { fmt.Print([]int{1}[index]) },
	} {
		err := panics.Recover(t.Context(), log, func() error { do(); return nil })
		require.EqualError(t, err, want)
		require.True(t, panics.Is(fmt.Errorf("so: %w", err)))
	}
	require.NoError(t, panics.Recover(t.Context(), log, func() error { return nil }))
	fault := errors.New("fault")
	require.Equal(t, fault, panics.Recover(t.Context(), log, func() error { return fault }))
	require.False(t, panics.Is(fault))
}
