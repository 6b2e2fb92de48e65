// Handler stands in for the real one in the tests of hosttest. It speaks HTTP by hand, so that it sees each request as it arrived, and can
// answer with any bytes.
//
// Without a word it answers with what it received, as JSON. The header X-Do is a JSON array that says otherwise: each string is written as it
// is, but for those of commands. From its environment it takes RECORD, a file to which it appends a line of JSON for each request; DELAY, the time
// before it listens; EXIT_ZERO_ONCE, a file without which it writes it and ends.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// request is what arrived. Cut means that the connection ended in its body. The line left says that the host closed the
// connection.
type request struct {
	Line   string
	Header []string
	Body   string
	Cut    bool
	PID    int
}

type server struct {
	mu     sync.Mutex
	record string
}

func main() {
	if once := os.Getenv("EXIT_ZERO_ONCE"); once != "" { // a file
		if _, err := os.Stat(once); err != nil {
			_ = os.WriteFile(once, nil, 0o600)
			os.Exit(0)
		}
	}
	time.Sleep(delay()) // so that a request can come before the port is open
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT"))
	if err != nil {
		panic(err)
	}
	fmt.Println("listening") // a line for the host's log
	s := &server{record: os.Getenv("RECORD")}
	for {
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		go s.serve(conn.(*net.TCPConn))
	}
}

func delay() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("DELAY")); err == nil {
		return d
	}
	return 50 * time.Millisecond
}

func (s *server) serve(conn *net.TCPConn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for {
		r := request{PID: os.Getpid()}
		text := textproto.NewReader(in)
		var err error
		if r.Line, err = text.ReadLine(); err != nil {
			return
		}
		for {
			line, err := text.ReadLine()
			if err != nil {
				return
			}
			if line == "" {
				break
			}
			r.Header = append(r.Header, line)
		}
		var do []string
		_ = json.Unmarshal([]byte(r.get("X-Do")), &do)
		if len(do) == 0 || do[0] != "<unread>" {
			r.read(in)
		}
		s.keep(r)
		if len(do) == 0 {
			told, _ := json.Marshal(r)
			do = []string{fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(told), told)}
		}
		if !s.answer(conn, in, r, do) || r.Cut {
			return
		}
	}
}

// get returns a header's value.
func (r *request) get(name string) string {
	for _, line := range r.Header {
		if n, value, _ := strings.Cut(line, ":"); strings.EqualFold(n, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// read reads the body.
func (r *request) read(in *bufio.Reader) {
	var body []byte
	var err error
	if length, _ := strconv.Atoi(r.get("Content-Length")); length > 0 {
		if body, err = io.ReadAll(io.LimitReader(in, int64(length))); len(body) < length {
			err = io.ErrUnexpectedEOF
		}
	} else if r.get("Transfer-Encoding") != "" {
		if body, err = io.ReadAll(httputil.NewChunkedReader(in)); err == nil {
			_, err = textproto.NewReader(in).ReadMIMEHeader()
		}
	}
	r.Body, r.Cut = string(body), err != nil
}

// keep appends what was received, or what happened, to the record.
func (s *server) keep(what any) {
	if s.record == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(s.record, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer func() { _ = f.Close() }()
	_ = json.NewEncoder(f).Encode(what)
}

// answer carries out the commands, and tells whether the connection can go on.
func (s *server) answer(conn *net.TCPConn, in *bufio.Reader, r request, do []string) bool {
	for _, step := range do {
		name, argument, _ := strings.Cut(strings.Trim(step, "<>"), " ")
		number, _ := strconv.Atoi(argument)
		if !strings.HasPrefix(step, "<") {
			name = ""
		}
		switch name {
		case "unread": // the body stays where it is
		case "read":
			r.read(in)
		case "pause":
			time.Sleep(time.Duration(number) * time.Millisecond)
		case "fill": // so many bytes
			_, _ = io.CopyN(conn, endless{}, int64(number))
		case "left": // waits until the host gives up
			_, _ = in.Peek(1)
			s.keep(request{Line: "left", Header: r.Header})
			fmt.Fprintln(os.Stderr, "client left")
			return false
		case "close":
			return false
		case "reset":
			_ = conn.SetLinger(0)
			return false
		case "exit":
			os.Exit(number)
		default:
			if _, err := io.WriteString(conn, step); err != nil {
				return false
			}
		}
	}
	return true
}

type endless struct{}

// Read implements io.Reader.
func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
