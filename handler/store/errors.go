package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"chatkeep/handler/chat"
	"chatkeep/handler/logs"

	"github.com/redis/go-redis/v9"
)

// unavailable marks with chat.ErrUnavailable the errors that say Redis cannot answer now, with what is known of
// the command. Every other error is a bug or a wrong set-up, and is returned as it is. So is the caller's own cancellation.
func unavailable(err error) error {
	class, cause := classOf(err)
	if class == "" || errors.Is(err, chat.ErrUnavailable) {
		return err
	}
	err = logs.Because(cause, err)
	return fmt.Errorf("%w, %s: %w", chat.ErrUnavailable, class, err)
}

// What is known of a command that got no answer. Only an error of the last try is seen: with retries, an earlier try may have been
// executed, so "not executed" is certain of that last try alone.
const (
	notExecuted = "not executed"
	unknown     = "outcome unknown"
	operator    = "needs an operator"
)

// classOf returns what is known of the command, empty where that is not the question, and the cause, empty where the error itself tells it.
func classOf(err error) (class string, cause logs.Cause) {
	var redisErr redis.Error
	var certificate *tls.CertificateVerificationError
	var op *net.OpError
	var network net.Error
	switch {
	case errors.Is(err, errDown):
		return notExecuted, ""
	case errors.Is(err, errNoToken):
		return notExecuted + ", " + operator, ""
	case errors.Is(err, context.Canceled):
		return "", ""
	case errors.As(err, &redisErr):
		return classOfReply(err)
	case errors.As(err, &certificate):
		return operator, ""
	case errors.As(err, &op) && op.Op == "remote error":
		return operator, ""
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted), errors.Is(err, redis.ErrClosed):
		return notExecuted, logs.Pool
	case errors.As(err, &op) && op.Op == "dial":
		return notExecuted, ""
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed), errors.As(err, &network):
		return unknown, ""
	default:
		return "", ""
	}
}

// classOfReply is classOf for an error that Redis answered with.
func classOfReply(err error) (class string, cause logs.Cause) {
	text := err.Error()
	switch {
	case redis.IsAuthError(err), redis.IsPermissionError(err),
		strings.Contains(text, "The user executing the script can't"), strings.Contains(text, "ACL failure in script"): // NOPERM, in a script
		return operator, logs.Auth
	case hasCode(err, "OOM"):
		return notExecuted + ", " + operator, logs.OOM
	case hasCode(err, "MISCONF"):
		return notExecuted + ", " + operator, logs.Misconf
	case redis.IsLoadingError(err):
		return notExecuted, logs.Loading
	case redis.IsReadOnlyError(err):
		return notExecuted, logs.ReadOnly
	case redis.IsMasterDownError(err):
		return notExecuted, logs.MasterDown
	case redis.IsClusterDownError(err):
		return notExecuted, logs.ClusterDown
	case redis.IsTryAgainError(err):
		return notExecuted, logs.Moved
	case redis.IsMaxClientsError(err):
		return notExecuted, logs.MaxClients
	case hasCode(err, "NOREPLICAS"):
		return notExecuted, logs.NoReplicas
	case strings.HasPrefix(text, "BUSY "):
		return notExecuted, logs.Busy
	default:
		return "", ""
	}
}
