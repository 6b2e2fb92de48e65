package logs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"

	"chatkeep/handler/panics"
)

// Cause is the class of what an error comes from, by which lines are counted.
type Cause string

// The causes; docs/operations.md says what to do about each.
const (
	Timeout Cause = "timeout" // nothing came in time
	Refused Cause = "refused" // nobody listens there, or no way leads there
	Broken  Cause = "broken"  // the connection ended in between
	DNS     Cause = "dns"     // the name has no address
	TLS     Cause = "tls"     // a certificate, or the handshake
	Auth    Cause = "auth"    // our credentials are not accepted, or we have none
	Status  Cause = "status"  // an answer that is an error
	Busy    Cause = "busy"    // an answer that it has too much to do

	OOM         Cause = "oom"         // Redis is out of memory
	ReadOnly    Cause = "readonly"    // Redis is a replica
	Loading     Cause = "loading"     // Redis reads its data
	MasterDown  Cause = "masterdown"  // Redis is a replica without a master
	ClusterDown Cause = "clusterdown" // a part of the cluster has no master
	Moved       Cause = "moved"       // the cluster moves slots
	NoReplicas  Cause = "noreplicas"  // too few replicas have what is written
	Misconf     Cause = "misconf"     // Redis cannot save to its disk
	MaxClients  Cause = "maxclients"  // Redis takes no more connections
	Pool        Cause = "pool"        // we have no free connection
	Memory      Cause = "memory"      // Redis is nearly out of memory
	Eviction    Cause = "eviction"    // Redis may drop conversations

	Damaged Cause = "damaged" // what is stored contradicts itself
	Newer   Cause = "newer"   // a newer version of this program wrote it
	Closing Cause = "closing" // the process ends
	Lost    Cause = "lost"    // the turn's process ended, or its lease did
	Host    Cause = "host"    // the Functions host is too old
	Panic   Cause = "panic"   // a bug
	Other   Cause = "other"   // err says it
)

// Because returns an error that says the cause of err.
func Because(c Cause, err error) error { return &caused{c, err} }

type caused struct {
	cause Cause
	error
}

func (c *caused) Cause() Cause  { return c.cause }
func (c *caused) Unwrap() error { return c.error }

// CauseOf is the cause that an error says, by Because or by a method Cause of its own, or else what it is. It is never empty.
func CauseOf(err error) Cause {
	if cause := stated(err); cause != "" {
		return cause
	}
	if panics.Is(err) {
		return Panic
	}
	return ofNetwork(err)
}

// stated is what the outermost error says of its cause, of those that say something.
func stated(err error) Cause {
	if says, ok := err.(interface{ Cause() Cause }); ok {
		if cause := says.Cause(); cause != "" {
			return cause
		}
	}
	switch inner := err.(type) { //nolint:errorlint // as errors.Is does
	case interface{ Unwrap() error }:
		return stated(inner.Unwrap())
	case interface{ Unwrap() []error }:
		for _, next := range inner.Unwrap() {
			if cause := stated(next); cause != "" {
				return cause
			}
		}
	}
	return ""
}

func ofNetwork(err error) Cause {
	var (
		certificate *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		record      tls.RecordHeaderError
		alert       tls.AlertError
		name        *net.DNSError
		op          *net.OpError
		timed       interface{ Timeout() bool }
	)
	isOp := errors.As(err, &op)
	switch {
	case errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &record), errors.As(err, &alert),
		isOp && op.Op == "remote error": // an alert of the other side
		return TLS
	case errors.As(err, &timed) && timed.Timeout():
		return Timeout
	case errors.As(err, &name):
		return DNS
	case isOp && op.Op == "dial", errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case isOp, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Broken
	default:
		return Other
	}
}
