package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/nodetest"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

// The Functions host hands on a stream as it comes: the first byte before the agent says anything, heartbeats, and events one by one; and a
// client's hang-up, which stops nothing.
func TestAStreamThroughTheHost(t *testing.T) {
	a := teller{words: make(chan string)}
	s := patient(t, a)
	s.server.maxQuiet = 50 * time.Millisecond
	url, calls := startForwarder(t, s.url)
	s.url = url
	id := s.start("alice")
	<-calls
	body := fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)
	ctx, hangUp := context.WithCancel(t.Context())
	e := s.stream(ctx, "POST", "/api/chat/send", body)
	require.Equal(t, "message.accepted", e.take().name, "the first byte waits for the agent")
	for range 3 {
		for line := ""; !strings.HasPrefix(line, ": hb"); {
			var err error
			line, err = e.lines.ReadString('\n')
			require.NoError(t, err)
		}
	}
	a.words <- "one "
	first := e.take()
	require.Equal(t, "one ", first.body["text"])
	hangUp()
	select {
	case call := <-calls:
		require.Contains(t, call, "POST /api/chat/send")
	case <-time.After(10 * time.Second):
		require.Fail(t, "the call lives on in the host")
	}
	a.words <- "two"
	resumed := s.stream(t.Context(), "GET", "/api/chat/conversations/"+id+"/stream", "", "Last-Event-ID: "+first.id)
	require.Equal(t, "two", resumed.take().body["text"])
	close(a.words)
	require.Equal(t, "message card message suggested done", names(resumed.rest()))
}

// eventSource is the npm package eventsource in a process of its own.
type eventSource struct {
	t        *testing.T
	command  *exec.Cmd
	lines    *bufio.Scanner
	problems strings.Builder
	got      []event
}

// startEventSource reads a stream until so many turns have ended.
func startEventSource(t *testing.T, url, token, turns string) *eventSource {
	t.Helper()
	e := &eventSource{t: t, command: nodetest.Command(t, "testdata/eventsource", "client.mjs", url, token, turns)}
	out, err := e.command.StdoutPipe()
	require.NoError(t, err)
	e.command.Stderr, e.lines = &e.problems, bufio.NewScanner(out)
	require.NoError(t, e.command.Start())
	return e
}

// until reads up to an event of the name, or a change of the connection: open or away.
func (e *eventSource) until(name string) {
	e.t.Helper()
	for {
		require.True(e.t, e.lines.Scan(), "%s", &e.problems)
		var next struct{ ID, Name, Data string }
		require.NoError(e.t, json.Unmarshal(e.lines.Bytes(), &next))
		if next.ID != "" {
			e.got = append(e.got, event{id: next.ID, name: next.Name, data: next.Data})
		}
		if next.Name == name {
			return
		}
	}
}

func (e *eventSource) end() {
	e.t.Helper()
	require.NoError(e.t, e.command.Wait(), &e.problems)
}

// The npm package eventsource resumes and follows: it comes again with its last event whenever a stream has ended, and misses nothing.
func TestEventSource(t *testing.T) {
	s := openWith(t, agent.Echo{})
	s.server.limits.Stream = 300 * time.Millisecond
	id := s.start("alice")
	path := "/api/chat/conversations/" + id + "/stream"
	token := s.issuer.Token(tenant, "alice", nil)
	client := startEventSource(t, s.url+path+"?follow=true", token, "3")
	for _, when := range []string{"open", "away", "open"} {
		client.until(when)
		require.Equal(t, 200, s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)).status)
		client.until("done")
	}
	client.end()
	var ids []string
	for _, e := range client.got {
		if e.name != "delta" { // of which an answer that comes at once has none
			ids = append(ids, e.id)
		}
	}
	require.Equal(t, []string{"1-1", "1-10000", "1-19999", "3-1", "3-10000", "3-19999", "5-1", "5-10000", "5-19999"}, ids)

	ended := nodetest.Command(t, "testdata/eventsource", "client.mjs", s.url+path+"?after=1-1", token, "9")
	text, err := ended.CombinedOutput()
	require.NoError(t, err, "%s", text)
	require.Contains(t, string(text), `"id":"1-19999"`)
	require.Contains(t, string(text), fmt.Sprintf(`{"closed":%d}`, http.StatusNoContent), "204 does not end it")
}

// Cut in the midst of an answer, it comes again with its last event, and gets each event once.
func TestEventSourceIsCut(t *testing.T) {
	a := teller{words: make(chan string)}
	s := patient(t, a)
	id := s.start("alice")
	link := redistest.NewLink(t, strings.TrimPrefix(s.url, "http://"))
	client := startEventSource(t, "http://"+link.Addr+"/api/chat/conversations/"+id+"/stream?follow=true", s.issuer.Token(tenant, "alice", nil), "1")
	client.until("open")
	sender := s.stream(t.Context(), "POST", "/api/chat/send", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id))
	for _, word := range []string{"one ", "two ", "three"} {
		a.words <- word
		client.until("delta")
		link.Cut(true)
		client.until("away")
		link.Cut(false)
	}
	close(a.words)
	client.until("done")
	client.end()
	var told strings.Builder
	var got, all []string
	for _, e := range client.got {
		got = append(got, e.id)
		if e.name == "delta" {
			var delta struct{ Text string }
			require.NoError(t, json.Unmarshal([]byte(e.data), &delta))
			told.WriteString(delta.Text)
		}
	}
	require.Equal(t, "one two three", told.String())
	for _, e := range sender.rest() {
		all = append(all, e.id)
	}
	require.Equal(t, all, got)
}
