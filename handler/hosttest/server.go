package hosttest

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// server is the side that callers see.
type server struct {
	listener net.Listener
	handle   func(context.Context, *call)

	cancel context.CancelFunc // ends all calls
	serves sync.WaitGroup     // the accept loop and the connections

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]bool // true while a call runs
}

func newServer(l net.Listener, handle func(context.Context, *call)) *server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{listener: l, handle: handle, cancel: cancel, conns: make(map[net.Conn]bool)}
	s.serves.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.serves.Go(func() { s.serve(ctx, conn) })
		}
	})
	return s
}

// close takes no more calls, and closes the connections without one.
func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	_ = s.listener.Close()
	for conn, busy := range s.conns {
		if !busy {
			_ = conn.Close()
		}
	}
}

// drain waits for the calls that run, but no longer than so, and cuts the rest.
func (s *server) drain(grace time.Duration) {
	s.close()
	done := make(chan struct{})
	go func() {
		s.serves.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(grace):
	}
	s.cancel()
	s.mu.Lock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	<-done
}

// busy notes that a call runs on a connection, or that none does, and tells whether there may be another.
func (s *server) busy(conn net.Conn, yes bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = yes
	return !s.closed
}

func (s *server) serve(ctx context.Context, conn net.Conn) {
	defer func() {
		_ = conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	in := bufio.NewReader(conn)
	for s.busy(conn, false) {
		c, refusal, err := readCall(conn, in)
		if err != nil {
			return
		}
		if refusal != 0 {
			c.keep = false
			c.refuse(refusal)
			linger(conn, in)
			return
		}
		s.busy(conn, true)
		ctx, left := context.WithCancelCause(ctx)
		c.left = left
		if c.body == nil {
			c.watch()
		}
		s.handle(ctx, c)
		c.unwatch()
		left(nil)
		if c.broken || !c.drained() {
			return
		}
		if !c.keep {
			linger(conn, in)
			return
		}
	}
}

// linger lets the caller read the answer before the connection goes: closing with unread bytes would reset it.
func linger(conn net.Conn, in io.Reader) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.Copy(io.Discard, in)
}
