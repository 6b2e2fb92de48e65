package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
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

// The npm package eventsource resumes and follows: it comes again with its last event whenever a stream has ended, and misses nothing.
func TestEventSource(t *testing.T) {
	s := openWith(t, agent.Echo{})
	s.server.limits.Stream = 300 * time.Millisecond
	id := s.start("alice")
	path := "/api/chat/conversations/" + id + "/stream"
	token := s.issuer.Token(tenant, "alice", nil)
	client := nodetest.Command(t, "testdata/eventsource", "client.mjs", s.url+path+"?follow=true", token, "3")
	out, err := client.StdoutPipe()
	require.NoError(t, err)
	var problems strings.Builder
	client.Stderr = &problems
	require.NoError(t, client.Start())
	lines := bufio.NewScanner(out)
	var got []event
	until := func(name string) {
		for {
			require.True(t, lines.Scan(), problems.String())
			var e struct{ ID, Name, Data string }
			require.NoError(t, json.Unmarshal(lines.Bytes(), &e))
			if e.ID != "" && e.Name != "delta" { // of which an answer that comes at once has none
				got = append(got, event{id: e.ID, name: e.Name, data: e.Data})
			}
			if e.Name == name {
				return
			}
		}
	}
	for _, when := range []string{"open", "away", "open"} {
		until(when)
		require.Equal(t, 200, s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)).status)
		until("done")
	}
	require.NoError(t, client.Wait(), problems.String())
	var ids []string
	for _, e := range got {
		ids = append(ids, e.id)
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
	client := nodetest.Command(t, "testdata/eventsource", "client.mjs", "http://"+link.Addr+"/api/chat/conversations/"+id+"/stream?follow=true",
		s.issuer.Token(tenant, "alice", nil), "1")
	out, err := client.StdoutPipe()
	require.NoError(t, err)
	var problems strings.Builder
	client.Stderr = &problems
	require.NoError(t, client.Start())
	lines := bufio.NewScanner(out)
	var got []string
	var told strings.Builder
	until := func(name string) {
		for {
			require.True(t, lines.Scan(), problems.String())
			var e struct{ ID, Name, Data string }
			require.NoError(t, json.Unmarshal(lines.Bytes(), &e))
			if e.ID != "" {
				got = append(got, e.ID)
			}
			if e.Name == "delta" {
				var delta struct{ Text string }
				require.NoError(t, json.Unmarshal([]byte(e.Data), &delta))
				told.WriteString(delta.Text)
			}
			if e.Name == name {
				return
			}
		}
	}
	until("open")
	sender := s.stream(t.Context(), "POST", "/api/chat/send", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id))
	for _, word := range []string{"one ", "two ", "three"} {
		a.words <- word
		until("delta")
		link.Cut(true)
		until("away")
		link.Cut(false)
	}
	close(a.words)
	until("done")
	require.NoError(t, client.Wait(), problems.String())
	require.Equal(t, "one two three", told.String())
	var all []string
	for _, e := range sender.rest() {
		all = append(all, e.id)
	}
	require.Equal(t, all, got)
}
