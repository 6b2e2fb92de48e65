package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A panic of a probe ends neither the process nor the breaker: the next failures have it probe again.
func TestAPanicOfTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		probes := 0
		b := newBreaker(func(context.Context) error {
			if probes++; probes == 2 {
				panic("what alice said")
			}
			return errors.New("down")
		}, slog.New(slog.NewJSONHandler(&log, nil)))
		fail := func() {
			for range breakerFailures {
				b.note(errors.New("no answer"))
			}
			synctest.Wait()
		}
		fail()
		require.Error(t, b.admit())
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, b.admit(), "nobody probes, and it stays open")
		require.Equal(t, 1, strings.Count(log.String(), `"msg":"panic"`))
		require.NotContains(t, log.String(), "alice")
		fail()
		require.Error(t, b.admit())
		b.close()
	})
}
