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

	"github.com/redis/go-redis/v9"
)

// unavailable marks with chat.ErrUnavailable the errors that say Redis cannot answer now, with what is known of
// the command. Every other error is a bug or a wrong set-up, and is returned as it is. So is the caller's own cancellation.
func unavailable(err error) error {
	class := classOf(err)
	if class == "" || errors.Is(err, chat.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w, %s: %w", chat.ErrUnavailable, class, err)
}

// What is known of a command that got no answer. Only an error of the last try is seen: with retries, an earlier try may have been
// executed, so "not executed" is certain of that last try alone.
const (
	notExecuted = "not executed"
	unknown     = "outcome unknown"
	operator    = "needs an operator"
)

func classOf(err error) string {
	var redisErr redis.Error
	var certificate *tls.CertificateVerificationError
	var op *net.OpError
	var network net.Error
	switch {
	case errors.Is(err, errDown):
		return notExecuted
	case errors.Is(err, errNoToken):
		return notExecuted + ", " + operator
	case errors.Is(err, context.Canceled):
		return ""
	case errors.As(err, &redisErr):
		return classOfReply(err)
	case errors.As(err, &certificate):
		return operator
	case errors.As(err, &op) && op.Op == "remote error":
		return operator
	case errors.As(err, &op) && op.Op == "dial",
		errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted), errors.Is(err, redis.ErrClosed):
		return notExecuted
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed), errors.As(err, &network):
		return unknown
	default:
		return ""
	}
}

// classOfReply classifies an error that Redis answered with.
func classOfReply(err error) string {
	text := err.Error()
	switch {
	case redis.IsAuthError(err), redis.IsPermissionError(err),
		strings.Contains(text, "The user executing the script can't"), strings.Contains(text, "ACL failure in script"): // NOPERM, in a script
		return operator
	case hasCode(err, "OOM"), hasCode(err, "MISCONF"):
		return notExecuted + ", " + operator
	case redis.IsLoadingError(err), redis.IsReadOnlyError(err), redis.IsMasterDownError(err), redis.IsClusterDownError(err),
		redis.IsTryAgainError(err), redis.IsMaxClientsError(err), hasCode(err, "NOREPLICAS"), strings.HasPrefix(text, "BUSY "):
		return notExecuted
	default:
		return ""
	}
}
