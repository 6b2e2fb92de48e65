package redistest

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Link is the network between a client and a server: it can be cut, be slow, swallow a reply, or lead elsewhere. It ends with the test.
type Link struct {
	Addr string

	mu       sync.Mutex
	upstream string
	cut      bool
	delay    time.Duration // of each piece of an answer
	lose     int           // how many answers to swallow; each breaks its connection
	conns    map[net.Conn]bool
	done     chan struct{} // closed with the test
}

// NewLink returns a link to the server at upstream.
func NewLink(t testing.TB, upstream string) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &Link{Addr: listener.Addr().String(), upstream: upstream, conns: make(map[net.Conn]bool), done: make(chan struct{})}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { l.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		close(l.done)
		l.breakAll()
		all.Wait()
	})
	return l
}

func (l *Link) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	l.mu.Lock()
	upstream, cut := l.upstream, l.cut
	l.mu.Unlock()
	if cut {
		return
	}
	server, err := net.Dial("tcp", upstream)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	l.mu.Lock()
	l.conns[client], l.conns[server] = true, true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, client)
		delete(l.conns, server)
	}()
	var asking sync.WaitGroup
	asking.Go(func() {
		buffer := make([]byte, 64<<10)
		for {
			n, err := client.Read(buffer)
			if err != nil {
				_ = server.Close()
				return
			}
			if _, err := server.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
	buffer := make([]byte, 64<<10)
	for {
		n, err := server.Read(buffer)
		if err != nil {
			break
		}
		l.mu.Lock()
		delay, lost := l.delay, l.lose > 0 && n > 8 // not a handshake's +OK
		if lost {
			l.lose--
		}
		l.mu.Unlock()
		if lost {
			break
		}
		select {
		case <-time.After(delay):
		case <-l.done:
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			break
		}
	}
	_ = client.Close()
	_ = server.Close()
	asking.Wait()
}

// breakAll ends every connection that stands.
func (l *Link) breakAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		_ = conn.Close()
	}
}

// Cut breaks all connections, and lets no new one through until it is mended.
func (l *Link) Cut(isCut bool) {
	l.mu.Lock()
	l.cut = isCut
	l.mu.Unlock()
	if isCut {
		l.breakAll()
	}
}

// Delay holds back each piece of an answer.
func (l *Link) Delay(delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = delay
}

// Lose swallows the next n answers, and breaks their connections.
func (l *Link) Lose(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose = n
}

// ToLose is how many answers are still to be lost.
func (l *Link) ToLose() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lose
}

// Lead leads new connections to another server, and breaks those that stand.
func (l *Link) Lead(upstream string) {
	l.mu.Lock()
	l.upstream = upstream
	l.mu.Unlock()
	l.breakAll()
}
