package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/hosttest"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

// What readers of a stream see when the instance that serves them stops: the built program on two hosts, over one Redis.

// reading is a stream that is read.
type reading struct {
	ended chan struct{} // closed at its end, when err is set

	mu     sync.Mutex
	events []streamed
	more   chan struct{} // closed, and replaced, when there are more
	err    error         // io.EOF: it ended in order
}

type streamed struct {
	id, name string
	data     struct {
		Text, Code string
		Message    struct{ State string }
		Messages   []message
	}
}

// stopping are two instances, of which one is to stop.
type stopping struct {
	*deployment
	here, there *hosttest.Host
}

func deployTwo(t *testing.T, env ...string) *stopping {
	t.Helper()
	d := deploy(t, append(env, "AGENT_ECHO_DELAY=100ms", "REDIS_URL=redis://"+redistest.Start(t).Addr)...)
	return &stopping{d, d.host, hosttest.Start(t, packaged(t), d.env...)}
}

// read makes a request of alice whose answer is a stream, and returns when it has begun.
func (d *stopping) read(at *hosttest.Host, method, path, body string) *reading {
	d.t.Helper()
	request, err := http.NewRequestWithContext(d.t.Context(), method, at.URL+path, strings.NewReader(body))
	require.NoError(d.t, err)
	request.Header.Set("Authorization", "Bearer "+d.issuer.Token(authtest.LocalTenant, "alice", nil))
	request.Header.Set("Accept", "text/event-stream")
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := (&http.Transport{}).RoundTrip(request) //nolint:bodyclose // it is, when the stream has ended
	require.NoError(d.t, err)
	require.Equal(d.t, http.StatusOK, answer.StatusCode)
	r := &reading{ended: make(chan struct{}), more: make(chan struct{})}
	go func() {
		defer func() { _ = answer.Body.Close() }()
		defer close(r.ended)
		r.take(bufio.NewReader(answer.Body))
	}()
	return r
}

// take reads to the end. What has no end of its own is no event.
func (r *reading) take(lines *bufio.Reader) {
	var next streamed
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF && (line != "" || next.name != "") {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			r.err = err
			return
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			next.id = value
		case "event":
			next.name = value
		case "data":
			_ = json.Unmarshal([]byte(value), &next.data) // else a test misses what is in it
		case "":
			if next.name == "" { // after a comment
				continue
			}
			r.mu.Lock()
			r.events = append(r.events, next)
			close(r.more)
			r.more = make(chan struct{})
			r.mu.Unlock()
			next = streamed{}
		}
	}
}

// until waits for an event.
func (r *reading) until(t *testing.T, name string) {
	t.Helper()
	for late := time.After(30 * time.Second); ; {
		r.mu.Lock()
		events, more := r.events, r.more
		r.mu.Unlock()
		for _, e := range events {
			if e.name == name {
				return
			}
		}
		select {
		case <-more:
		case <-late:
			require.Fail(t, "nobody was told", "%s: %v", name, events)
		}
	}
}

// all waits for the end, and returns what was told.
func (r *reading) all(t *testing.T) []streamed {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(30 * time.Second):
		require.Fail(t, "the stream does not end")
	}
	return r.events
}

// numbers is a text of so many words.
func numbers(n int) string {
	var all strings.Builder
	for i := range n {
		fmt.Fprint(&all, i, " ")
	}
	return strings.TrimSpace(all.String())
}

func joined(events []streamed) string {
	var all strings.Builder
	for _, e := range events {
		if e.name == "delta" {
			all.WriteString(e.data.Text)
		}
	}
	return all.String()
}

// A process that is asked to end does so in order: streams that wait end at once, those of its turns with these, and readers elsewhere notice nothing.
// Who followed comes again to another instance, and misses nothing.
func TestStreamsOfAProcessThatEnds(t *testing.T) {
	d := deployTwo(t, "SHUTDOWN_GRACE=1m")
	id, quiet := d.start("alice"), d.start("alice")
	stream := "/api/chat/conversations/" + id + "/stream"
	idle, follower := d.read(d.here, "GET", "/api/chat/conversations/"+quiet+"/stream?follow=true", ""), d.read(d.here, "GET", stream+"?follow=true", "")
	sender := d.read(d.here, "POST", "/api/chat/send", said(id, numbers(50)))
	sender.until(t, "delta")
	elsewhere := d.read(d.there, "GET", stream, "")
	elsewhere.until(t, "delta")
	d.here.Signal(syscall.SIGTERM)

	require.Empty(t, idle.all(t))
	require.Equal(t, io.EOF, idle.err)
	select {
	case <-sender.ended:
		require.Fail(t, "the turn did not outlive the streams that wait")
	default:
	}
	events := sender.all(t)
	require.Equal(t, io.EOF, sender.err)
	require.Equal(t, "done", events[len(events)-1].name)
	require.Equal(t, numbers(50), joined(events))
	require.Equal(t, events, elsewhere.all(t))
	followed := follower.all(t)
	require.Equal(t, io.EOF, follower.err)
	require.Equal(t, events[:len(followed)], followed)
	require.Eventually(t, func() bool { return len(d.here.Exits()) == 1 }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, []int{200}, d.here.Exits())

	again := d.read(d.there, "GET", stream+"?follow=true&after="+followed[len(followed)-1].id, "")
	next := d.read(d.there, "POST", "/api/chat/send", said(id, "the next")).all(t)
	again.until(t, "done")
	d.there.Signal(syscall.SIGTERM)
	require.Equal(t, append(events[len(followed):], next...), again.all(t))
}

// A turn that outlasts the grace ends with an error, which all of its readers are told in order; what it had said is kept.
func TestATurnThatOutlastsItsProcess(t *testing.T) {
	d := deployTwo(t, "SHUTDOWN_GRACE=500ms")
	id := d.start("alice")
	stream := "/api/chat/conversations/" + id + "/stream"
	sender := d.read(d.here, "POST", "/api/chat/send", said(id, numbers(1000)))
	sender.until(t, "delta")
	elsewhere, follower := d.read(d.there, "GET", stream, ""), d.read(d.here, "GET", stream+"?follow=true", "")
	d.here.Signal(syscall.SIGTERM)
	events := sender.all(t)
	require.Equal(t, io.EOF, sender.err)
	last := events[len(events)-1]
	require.Equal(t, "error agent_timeout", last.name+" "+last.data.Code)
	require.Equal(t, events, elsewhere.all(t))
	require.Equal(t, io.EOF, elsewhere.err)
	require.Equal(t, events[:len(follower.all(t))], follower.events)
	require.Eventually(t, func() bool { return len(d.here.Exits()) == 1 }, 10*time.Second, 5*time.Millisecond)
	messages := d.history(id, "alice")
	require.Equal(t, []string{"failed", "partial"}, []string{messages[0].State, messages[1].State})
	require.Equal(t, joined(events), messages[1].Text)
	require.True(t, strings.HasPrefix(numbers(1000), joined(events)))
}

// The host kills without a word. Readers of the process are cut, and resume elsewhere, where the turn ends with its lease.
func TestStreamsOfAProcessThatIsKilled(t *testing.T) {
	d := deployTwo(t, "REDIS_TIMEOUT=500ms", "TURN_LEASE=1500ms")
	id := d.start("alice")
	stream := "/api/chat/conversations/" + id + "/stream"
	sender := d.read(d.here, "POST", "/api/chat/send", said(id, numbers(1000)))
	sender.until(t, "delta")
	elsewhere := d.read(d.there, "GET", stream, "")
	elsewhere.until(t, "delta")
	d.here.Signal(syscall.SIGKILL)
	events := sender.all(t)
	require.NotEqual(t, io.EOF, sender.err, "a cut that looks like an end")
	events = append(events, d.read(d.there, "GET", stream+"?after="+events[len(events)-1].id, "").all(t)...)
	last := events[len(events)-1]
	require.Equal(t, "error agent_timeout", last.name+" "+last.data.Code)
	require.Equal(t, events, elsewhere.all(t))
	require.True(t, strings.HasPrefix(numbers(1000), joined(events)))
	require.Equal(t, "failed", d.history(id, "alice")[0].State)
}
