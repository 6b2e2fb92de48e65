package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// conn is a keep-alive HTTP/1.1 connection that spends little, so that the measured server has the machine. It reads what net/http
// servers write: a body with a length, in chunks, or none.
type conn struct {
	tcp  net.Conn
	r    *bufio.Reader
	etag []byte
	body []byte
}

func dial(addr string) (*conn, error) {
	tcp, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &conn{tcp: tcp, r: bufio.NewReaderSize(tcp, 64<<10)}, nil
}

// do sends a whole request and reads its answer into etag and body, which hold until the next one.
func (c *conn) do(request []byte) (status int, err error) {
	if _, err := c.tcp.Write(request); err != nil {
		return 0, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("%q is no status line", line)
	}
	status, err = strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, err
	}
	length, chunked := 0, false
	c.etag, c.body = c.etag[:0], c.body[:0]
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch string(name) {
		case "Content-Length":
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		case "Transfer-Encoding":
			chunked = true
		case "Etag":
			c.etag = append(c.etag, value...)
		}
	}
	switch {
	case status == 304:
		return status, nil
	case chunked:
		return status, c.readChunks()
	default:
		return status, c.read(length)
	}
}

func (c *conn) readChunks() error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		length, err := strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 32)
		if err != nil {
			return err
		}
		if err := c.read(int(length)); err != nil {
			return err
		}
		if _, err := c.r.Discard(len("\r\n")); err != nil || length == 0 {
			return err
		}
	}
}

// read appends so many bytes to the body.
func (c *conn) read(length int) error {
	had := len(c.body)
	c.body = append(c.body, make([]byte, length)...)
	_, err := io.ReadFull(c.r, c.body[had:])
	return err
}

// caller sends its requests in turn, on a connection of its own.
type caller struct {
	conn     *conn
	requests [][]byte
	next     int
	status   int // of every answer
}

func (c *caller) call() error {
	status, err := c.conn.do(c.requests[c.next])
	if err == nil && status != c.status {
		err = fmt.Errorf("status %d: %.300s", status, c.conn.body)
	}
	c.next = (c.next + 1) % len(c.requests)
	return err
}

// callFor has all callers call at the same time until d is over, and returns how long each call took and how many ended by then.
func callFor(callers []*caller, d time.Duration) (latencies []time.Duration, inTime int, err error) {
	type result struct {
		latencies []time.Duration
		inTime    int
		err       error
	}
	results := make(chan result)
	end := time.Now().Add(d)
	for _, c := range callers {
		_ = c.conn.tcp.SetDeadline(end.Add(30 * time.Second))
		go func() {
			r := result{latencies: make([]time.Duration, 0, 1024)}
			for from := time.Now(); r.err == nil && (from.Before(end) || len(r.latencies) == 0); {
				r.err = c.call()
				to := time.Now()
				r.latencies = append(r.latencies, to.Sub(from))
				if !to.After(end) {
					r.inTime++
				}
				from = to
			}
			results <- r
		}()
	}
	for range callers {
		r := <-results
		latencies, inTime, err = append(latencies, r.latencies...), inTime+r.inTime, cmp.Or(r.err, err)
	}
	return latencies, inTime, err
}

func hangUp(callers []*caller) {
	for _, c := range callers {
		_ = c.conn.tcp.Close()
	}
}
