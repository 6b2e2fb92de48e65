package torture

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// link is the network between a handler and Redis: it can be cut, be slow, swallow a reply, or lead elsewhere.
type link struct {
	addr string

	mu       sync.Mutex
	upstream string
	cut      bool
	delay    time.Duration // of each piece of an answer
	lose     int           // how many answers to swallow; each breaks its connection
	conns    map[net.Conn]bool
}

func newLink(t testing.TB, upstream string) *link {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &link{addr: listener.Addr().String(), upstream: upstream, conns: make(map[net.Conn]bool)}
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
		l.breakAll()
		all.Wait()
	})
	return l
}

func (l *link) serve(client net.Conn) {
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
		time.Sleep(delay)
		if _, err := client.Write(buffer[:n]); err != nil {
			break
		}
	}
	_ = client.Close()
	_ = server.Close()
	asking.Wait()
}

// breakAll ends every connection that stands.
func (l *link) breakAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		_ = conn.Close()
	}
}

// set changes the link; what stands is broken when it is cut or leads elsewhere.
func (l *link) set(change func(*link)) {
	l.mu.Lock()
	before := l.upstream
	change(l)
	breaks := l.cut || l.upstream != before
	l.mu.Unlock()
	if breaks {
		l.breakAll()
	}
}
