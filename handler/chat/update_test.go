package chat_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"chatkeep/handler/agent"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMetadataIsMerged(t *testing.T) {
	none := map[string]*string{}
	for name, row := range map[string]struct {
		change chat.Change
		want   map[string]string
	}{
		"nothing":                        {chat.Change{Metadata: none}, map[string]string{"a": "1", "b": "2"}},
		"a pair is set":                  {chat.Change{Metadata: map[string]*string{"b": new("3"), "c": new("")}}, map[string]string{"a": "1", "b": "3", "c": ""}},
		"a pair is taken out":            {chat.Change{Metadata: map[string]*string{"a": nil, "z": nil}}, map[string]string{"b": "2"}},
		"the last pairs are taken out":   {chat.Change{Metadata: map[string]*string{"a": nil, "b": nil}}, nil},
		"all are taken out":              {chat.Change{ClearMetadata: true}, nil},
		"all are taken out and one set":  {chat.Change{ClearMetadata: true, Metadata: map[string]*string{"c": new("3")}}, map[string]string{"c": "3"}},
		"another member is what changes": {chat.Change{Title: new("new")}, map[string]string{"a": "1", "b": "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, store.NewMemory(limits), agent.Echo{})
			started, err := s.Start(t.Context(), alice, chat.Opening{Title: "title", Metadata: map[string]string{"a": "1", "b": "2"}})
			require.NoError(t, err)
			changed, err := s.Update(t.Context(), alice.Owner, started.Conversation.ID, row.change)
			require.NoError(t, err)
			require.Equal(t, row.want, changed.Conversation.Metadata)
			isChange := row.change.Title != nil || !maps.Equal(row.want, started.Conversation.Metadata)
			require.Equal(t, isChange, changed.Conversation.Version == 2)
			require.False(t, changed.Replayed)
		})
	}
}

func TestWhatAChangeLeadsToIsChecked(t *testing.T) {
	s := serve(t, store.NewMemory(limits), agent.Echo{})
	metadata := map[string]string{}
	for i := range 16 {
		metadata[fmt.Sprint(i)] = ""
	}
	started, err := s.Start(t.Context(), alice, chat.Opening{Metadata: metadata})
	require.NoError(t, err)
	id := started.Conversation.ID
	for name, change := range map[string]chat.Change{
		"a pair too many":    {Metadata: map[string]*string{"more": new("")}},
		"an empty key":       {Metadata: map[string]*string{"1": nil, "": new("")}},
		"a long value":       {Metadata: map[string]*string{"1": new(strings.Repeat("x", 513))}},
		"a long title":       {Title: new(strings.Repeat("x", 201))},
		"an unknown status":  {Status: new(chat.Status("gone"))},
		"a title with a NUL": {Title: new("\x00")},
	} {
		_, err := s.Update(t.Context(), alice.Owner, id, change)
		var invalid *chat.InvalidError
		require.ErrorAs(t, err, &invalid, name)
	}
	_, err = s.Update(t.Context(), alice.Owner, "x", chat.Change{})
	var invalid *chat.InvalidError
	require.ErrorAs(t, err, &invalid)
	changed, err := s.Update(t.Context(), alice.Owner, id, chat.Change{Metadata: map[string]*string{"more": new(""), "1": nil}})
	require.NoError(t, err, "one for another leaves as many")
	require.Len(t, changed.Conversation.Metadata, 16)
	require.Equal(t, int64(2), changed.Conversation.Version, "a refused change left something")
}

func TestTransitions(t *testing.T) {
	s := serve(t, store.NewMemory(limits), agent.Echo{})
	for _, from := range chat.Statuses {
		for _, to := range chat.Statuses {
			id := start(t, s)
			set := func(status chat.Status) (chat.Changed, error) {
				return s.Update(t.Context(), alice.Owner, id, chat.Change{Status: &status})
			}
			before, err := set(from)
			require.NoError(t, err)
			after, err := set(to)
			switch {
			case from == chat.Archived && to == chat.Completed:
				require.ErrorIs(t, err, chat.ErrTransition)
			case from == to:
				require.NoError(t, err)
				require.Equal(t, before, after)
			default:
				require.NoError(t, err, "%s to %s", from, to)
				require.Equal(t, to, after.Conversation.Status)
			}
		}
	}
}

func TestAChangeLeavesARunningTurnAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), slow)
		id := start(t, s)
		var sends sync.WaitGroup
		sends.Go(func() {
			_, err := s.Send(t.Context(), alice, id, say("5s"))
			assert.NoError(t, err)
		})
		synctest.Wait()
		_, err := s.Update(t.Context(), alice.Owner, id, chat.Change{Status: new(chat.Archived)})
		require.NoError(t, err)
		_, err = s.Send(t.Context(), alice, id, say("1s"))
		require.ErrorIs(t, err, chat.ErrClosed)
		sends.Wait()
		require.Equal(t, []string{"user 5s complete", "assistant done complete"}, history(t, s, id))
	})
}

// rival is a store in which others change a conversation right before every change that is made to a version, as often as it says.
type rival struct {
	chat.Store
	times int
}

func (r *rival) Update(ctx context.Context, owner chat.Owner, id string, u chat.Update) (chat.Conversation, error) {
	if u.Version != 0 && r.times > 0 {
		r.times--
		if _, err := r.Store.Update(ctx, owner, id, chat.Update{Metadata: map[string]string{"rival": fmt.Sprint(r.times)}}); err != nil {
			return chat.Conversation{}, err
		}
	}
	return r.Store.Update(ctx, owner, id, u)
}

func TestAChangeThatIsOvertakenIsMadeAgain(t *testing.T) {
	r := &rival{Store: store.NewMemory(limits), times: 5}
	s := serve(t, r, agent.Echo{})
	id := start(t, s)
	mine := chat.Change{Metadata: map[string]*string{"mine": new("1")}}
	changed, err := s.Update(t.Context(), alice.Owner, id, mine)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"mine": "1", "rival": "0"}, changed.Conversation.Metadata)

	version := changed.Conversation.Version
	r.times = 1
	mine = chat.Change{Title: new("mine"), Matches: func(v int64) bool { return v == version }}
	_, err = s.Update(t.Context(), alice.Owner, id, mine)
	require.ErrorIs(t, err, chat.ErrVersion, "it was made to another version")

	r.times = 1000
	_, err = s.Update(t.Context(), alice.Owner, id, chat.Change{Title: new("mine")})
	require.ErrorIs(t, err, chat.ErrUnavailable)
}

func TestParallelChangesAllHold(t *testing.T) {
	s := serve(t, store.NewMemory(limits), agent.Echo{})
	id := start(t, s)
	var all sync.WaitGroup
	want := map[string]string{}
	for i := range 8 {
		key := fmt.Sprint(i)
		want[key] = key
		all.Go(func() {
			_, err := s.Update(t.Context(), alice.Owner, id, chat.Change{Metadata: map[string]*string{key: &key}})
			assert.NoError(t, err)
		})
	}
	all.Wait()
	c, _, err := s.Get(t.Context(), alice.Owner, id, chat.Page{Limit: 1})
	require.NoError(t, err)
	require.Equal(t, want, c.Metadata)
}

func TestAChangeWithAKeyIsMadeOnce(t *testing.T) {
	s := serve(t, store.NewMemory(limits), agent.Echo{})
	id := start(t, s)
	mine := chat.Change{
		Idempotency: chat.Idempotency{Key: "key", Fingerprint: "mine"}, Title: new("mine"), Status: new(chat.Completed),
		Matches: func(version int64) bool { return version == 1 },
	}
	changed, err := s.Update(t.Context(), alice.Owner, id, mine)
	require.NoError(t, err)
	require.False(t, changed.Replayed)
	after, err := s.Update(t.Context(), alice.Owner, id, chat.Change{Title: new("later"), Status: new(chat.Archived)})
	require.NoError(t, err)
	again, err := s.Update(t.Context(), alice.Owner, id, mine)
	require.NoError(t, err, "neither its version nor its transition matter any more")
	require.Equal(t, chat.Changed{Conversation: after.Conversation, Replayed: true}, again)
	mine.Idempotency.Fingerprint = "another"
	_, err = s.Update(t.Context(), alice.Owner, id, mine)
	require.ErrorIs(t, err, chat.ErrKeyReused)
}
