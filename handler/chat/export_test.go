package chat_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"chatkeep/handler/agent"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/require"
)

// greeting is an agent that begins a conversation with messages of the lengths.
func greeting(lengths ...int) chat.Agent {
	return greeter{open: func(context.Context) (chat.Reply, error) {
		var r chat.Reply
		for i, n := range lengths {
			r.Messages = append(r.Messages, chat.Message{Kind: chat.Text, Text: fmt.Sprint(i+1) + strings.Repeat("x", n)})
		}
		return r, nil
	}}
}

// counting counts the messages that are read, and does something before a conversation is read.
type counting struct {
	chat.Store
	read   int
	before func(id string, p chat.Page) error
}

func (c *counting) Get(ctx context.Context, owner chat.Owner, id string, p chat.Page) (chat.Conversation, []chat.StoredMessage, error) {
	if c.before != nil {
		if err := c.before(id, p); err != nil {
			return chat.Conversation{}, nil, err
		}
	}
	conversation, messages, err := c.Store.Get(ctx, owner, id, p)
	c.read += len(messages)
	return conversation, messages, err
}

// exported returns the ids of the conversations, and of each the seqs of its messages, as an export has them.
func exported(t *testing.T, s *chat.Service) (ids []string, seqs map[string][]int64) {
	t.Helper()
	seqs = make(map[string][]int64)
	for part, err := range s.Export(t.Context(), alice.Owner) {
		require.NoError(t, err)
		if part.Conversation != nil {
			require.NotContains(t, ids, part.Conversation.ID)
			ids = append(ids, part.Conversation.ID)
		}
		for _, m := range part.Messages {
			seqs[ids[len(ids)-1]] = append(seqs[ids[len(ids)-1]], m.Seq)
		}
	}
	return ids, seqs
}

// upTo is 1, 2, 3…
func upTo(n int) []int64 {
	var all []int64
	for i := range n {
		all = append(all, int64(i+1))
	}
	return all
}

func TestAnExportHasEveryMessageOnceInOrder(t *testing.T) {
	const mb = 1 << 20
	for name, lengths := range map[string][]int{
		"none":                  nil,
		"one":                   {1},
		"a page":                make([]int, 1000),
		"a page and one":        make([]int, 1001),
		"some pages":            make([]int, 3456),
		"long ones":             slices.Repeat([]int{200_000}, 40),
		"a long one at the end": append(make([]int, 1500), mb-100, mb-100),
		"a long one at first":   append([]int{mb - 100, mb - 100}, make([]int, 1500)...),
		"long ones in between":  slices.Concat(make([]int, 700), []int{mb - 100, 5, mb - 100}, make([]int, 700)),
	} {
		t.Run(name, func(t *testing.T) {
			reads := &counting{Store: store.NewMemory(limits)}
			s := serve(t, reads, greeting(lengths...))
			id := start(t, s)
			ids, seqs := exported(t, s)
			require.Equal(t, []string{id}, ids)
			require.Equal(t, upTo(len(lengths)), seqs[id])
			require.LessOrEqual(t, reads.read, 3*len(lengths)+2000, "it reads much more than it tells")
		})
	}
}

func TestAnExportHasEveryConversationOnce(t *testing.T) {
	s := serve(t, store.NewMemory(limits), greeting(1, 2))
	want := map[string]bool{}
	for i := range 230 {
		id := start(t, s)
		want[id] = true
		if i%3 == 0 {
			_, err := s.Update(t.Context(), alice.Owner, id, chat.Change{Status: new(chat.Archived)})
			require.NoError(t, err)
		}
	}
	ids, seqs := exported(t, s)
	require.Len(t, ids, len(want))
	for _, id := range ids {
		require.True(t, want[id])
		require.Equal(t, upTo(2), seqs[id])
	}
	for _, err := range s.Export(t.Context(), chat.Owner{TenantID: "t", UserID: "bob"}) {
		require.Fail(t, "it has what is another's", err)
	}
	for _, err := range s.Export(t.Context(), alice.Owner) {
		require.NoError(t, err)
		break // and no more is read
	}
}

// What stands still is told once, whatever happens to the others while an export reads.
func TestAnExportAmongChanges(t *testing.T) {
	reads := &counting{Store: store.NewMemory(limits)}
	s := serve(t, reads, greeting(make([]int, 1200)...))
	var all []string
	for range 9 {
		all = append(all, start(t, s))
	}
	damaged, deleted, cut, grows := all[2], all[4], all[5], all[7]
	reads.before = func(id string, p chat.Page) error {
		isFirst := p.Before == 1001
		var err error
		switch {
		case id == damaged:
			return chat.ErrDamaged
		case id == deleted && isFirst, id == cut && !isFirst:
			_, err = s.Delete(t.Context(), alice.Owner, id, chat.Idempotency{})
		case id == grows && !isFirst:
			_, err = s.Send(t.Context(), alice, id, say("more"))
		}
		return err
	}
	seqs := make(map[string][]int64)
	var ids []string
	for part, err := range s.Export(t.Context(), alice.Owner) {
		require.NoError(t, err)
		switch {
		case part.Damaged:
			require.Equal(t, damaged, part.Conversation.ID)
			require.Empty(t, part.Messages)
			continue
		case part.Conversation != nil:
			ids = append(ids, part.Conversation.ID)
		}
		for _, m := range part.Messages {
			seqs[ids[len(ids)-1]] = append(seqs[ids[len(ids)-1]], m.Seq)
		}
	}
	for _, id := range all {
		switch id {
		case damaged, deleted:
			require.NotContains(t, ids, id)
		case cut:
			require.Equal(t, upTo(1000), seqs[id])
		default:
			require.Equal(t, upTo(1200), seqs[id])
		}
	}
	require.Len(t, ids, 7)
}

func TestAnExportEndsInAnError(t *testing.T) {
	reads := &counting{Store: store.NewMemory(limits)}
	s := serve(t, reads, agent.Echo{})
	start(t, s)
	start(t, s)
	listed, _, err := s.ListConversations(t.Context(), alice.Owner, chat.List{Limit: 1})
	require.NoError(t, err)
	reads.before = func(id string, _ chat.Page) error {
		if id != listed[0].ID {
			return chat.ErrUnavailable
		}
		return nil
	}
	var errs []error
	for _, err := range s.Export(t.Context(), alice.Owner) {
		errs = append(errs, err)
	}
	require.Len(t, errs, 2)
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], chat.ErrUnavailable)
}
