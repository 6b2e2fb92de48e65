package agent

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

// pipes are a listener and its connections, in memory, where synctest's clock passes.
type pipes struct {
	net.Listener // for its address
	conns        chan net.Conn
	once         sync.Once
	closed       chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// However often an agent is asked, there is one wait for its first byte, and a pause that does not fit into it is not made.
func TestTheFirstByteIsWaitedForOnce(t *testing.T) {
	const stall = -1
	for name, row := range map[string]struct {
		firstByte time.Duration
		answers   []int // Retry-After of 503, or stall
		code      string
		posts     int
		takes     time.Duration
	}{
		"silent":                     {30 * time.Second, []int{stall}, "agent_timeout", 1, 30 * time.Second},
		"busy, then silent":          {30 * time.Second, []int{5, 4, stall}, "agent_timeout", 3, 30 * time.Second},
		"busy for longer than it is": {8 * time.Second, []int{5, 5, stall}, "agent_busy", 2, 5 * time.Second},
		"busy to the end":            {30 * time.Second, []int{5, 5, 5, 5}, "agent_busy", 3, 10 * time.Second},
		"answers in time":            {30 * time.Second, []int{5, 5}, "", 3, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var posts atomic.Int32
				listener := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
				server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n := int(posts.Add(1))
					_, _ = io.Copy(io.Discard, r.Body)
					switch {
					case n > len(row.answers):
						_, _ = io.WriteString(w, "well")
					case row.answers[n-1] == stall:
						<-r.Context().Done()
					default:
						w.Header().Set("Retry-After", string(rune('0'+row.answers[n-1])))
						w.WriteHeader(http.StatusServiceUnavailable)
					}
				})}
				var serving sync.WaitGroup
				serving.Go(func() { _ = server.Serve(listener) })
				p := newPoster(Deadlines{Connect: 5 * time.Second, FirstByte: row.firstByte, Silence: time.Minute})
				transport := p.client.Transport.(*http.Transport)
				transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					listener.conns <- theirs
					return ours, ctx.Err()
				}
				began := time.Now()
				response, err := p.do(t.Context(), "http://agent.example/", http.Header{}, []byte("{}"))
				require.Equal(t, row.takes, time.Since(began))
				switch row.code {
				case "agent_timeout":
					require.ErrorIs(t, err, chat.ErrAgentTimeout)
				case "agent_busy":
					require.NoError(t, err)
					require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
				default:
					require.NoError(t, err)
					time.Sleep(row.firstByte) // the wait for the first byte is over
					text, err := io.ReadAll(response.Body)
					require.NoError(t, err)
					require.Equal(t, "well", string(text))
				}
				if err == nil {
					_ = response.Body.Close()
				}
				require.Equal(t, row.posts, int(posts.Load()))
				transport.CloseIdleConnections()
				_ = server.Close()
				serving.Wait()
			})
		})
	}
}

// breaking is a listener whose first connections break before a TLS handshake: they are closed, or nothing is ever said on them.
type breaking struct {
	net.Listener
	left, accepted atomic.Int32
	isSilent       bool
	silent         []net.Conn // kept, for a connection that nobody has is closed
}

func (b *breaking) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		b.accepted.Add(1)
		switch {
		case b.left.Add(-1) < 0:
			return conn, nil
		case b.isSilent:
			b.silent = append(b.silent, conn)
		default:
			_ = conn.Close()
		}
	}
}

// Before the handshake is made nothing of a request was sent: it is tried again, as any connection, while there is time for one.
func TestAHandshakeThatFailsIsMadeAgain(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		broken    int32
		isSilent  bool
		isTrusted bool
		code      string
		accepted  int32
		posts     int32
	}{
		"not at once":    {2, false, true, "", 3, 1},
		"never":          {3, false, true, "agent_failed", 3, 0},
		"a silent one":   {3, true, true, "agent_timeout", 1, 0},
		"untrusted ones": {0, false, false, "agent_failed", 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var posts atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { posts.Add(1) }))
			listener := &breaking{Listener: server.Listener, isSilent: row.isSilent}
			listener.left.Store(row.broken)
			server.Listener = listener
			server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			server.StartTLS()
			defer server.Close()
			connect := time.Minute
			if row.isSilent {
				connect = 200 * time.Millisecond
			}
			p := newPoster(Deadlines{Connect: connect, FirstByte: time.Minute, Silence: time.Minute})
			transport := p.client.Transport.(*http.Transport)
			defer transport.CloseIdleConnections()
			if row.isTrusted {
				transport.TLSClientConfig.RootCAs = x509.NewCertPool()
				transport.TLSClientConfig.RootCAs.AddCert(server.Certificate())
			}
			response, err := p.do(t.Context(), server.URL, http.Header{}, []byte("{}"))
			if row.code == "" {
				require.NoError(t, err)
				_ = response.Body.Close()
			} else {
				require.ErrorIs(t, err, &chat.Failure{Code: row.code})
				require.NotContains(t, err.Error(), server.URL)
			}
			require.Equal(t, row.accepted, listener.accepted.Load())
			require.Equal(t, row.posts, posts.Load())
		})
	}
}
