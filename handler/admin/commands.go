package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"chatkeep/handler/api"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"
)

// print writes aligned lines.
func (c *command) print(write func(w *tabwriter.Writer)) {
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	write(w)
	_ = w.Flush()
}

// find lists the user's conversations.
func (c *command) find(ctx context.Context) error {
	owners, err := c.owners(ctx)
	if err != nil {
		return err
	}
	var all []chat.Conversation
	for _, owner := range owners {
		list := chat.List{Limit: 100}
		for {
			some, next, err := c.service.ListConversations(ctx, owner, list)
			if err != nil {
				return err
			}
			all = append(all, some...)
			c.look(len(all))
			if list.After = next; next == nil {
				break
			}
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("%w: this user has no conversation", errNothing)
	}
	if c.asJSON {
		for _, conversation := range all {
			_, _ = c.Out.Write(api.EncodeConversation(conversation))
		}
		return nil
	}
	c.print(func(w *tabwriter.Writer) {
		_, _ = fmt.Fprintln(w, "SUBJECT\tID\tSTATUS\tMESSAGES\tUPDATED\tEXPIRES")
		for _, a := range all {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", a.Owner.UserID, a.ID, a.Status, a.MessageCount, moment(a.UpdatedAt), moment(a.ExpiresAt))
		}
	})
	return nil
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// show prints a conversation with its newest page of messages.
func (c *command) show(ctx context.Context) error {
	owners, err := c.owners(ctx)
	if err != nil {
		return err
	}
	for _, owner := range owners {
		conversation, messages, err := c.service.Get(ctx, owner, c.id, chat.Page{Limit: 1000, Unseen: true})
		if errors.Is(err, chat.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if c.asJSON {
			_, _ = c.Out.Write(api.EncodePage(conversation, messages))
			return nil
		}
		c.print(func(w *tabwriter.Writer) {
			_, _ = fmt.Fprintf(w, "id\t%s\nsubject\t%s\ntenant\t%s\nobject id\t%s\ntitle\t%s\nstatus\t%s\ncreated\t%s\nupdated\t%s\nexpires\t%s\nmessages\t%d\n",
				conversation.ID, owner.UserID, owner.TenantID, conversation.ObjectID, conversation.Title, conversation.Status,
				moment(conversation.CreatedAt), moment(conversation.UpdatedAt), moment(conversation.ExpiresAt), conversation.MessageCount)
		})
		for _, m := range messages {
			message, err := m.Message()
			if err != nil {
				return err
			}
			said := message.Text
			if said == "" {
				said = string(slices.Concat(message.Value, message.CardJSON))
			}
			_, _ = fmt.Fprintf(c.Out, "\n%d  %s  %s  %s\n%s\n", m.Seq, moment(m.CreatedAt), message.Role, m.State, said)
		}
		return nil
	}
	return fmt.Errorf("%w: this user has no such conversation", errNothing)
}

// export prints all that the user has.
func (c *command) export(ctx context.Context) error {
	owners, err := c.owners(ctx)
	if err != nil {
		return err
	}
	for _, owner := range owners {
		parts := 0
		err := api.WriteExport(c.Out, func(yield func(chat.Exported, error) bool) {
			for part, err := range c.service.Export(ctx, owner) {
				parts++
				c.look(parts)
				if !yield(part, err) {
					return
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// erase ends all that the user has.
func (c *command) erase(ctx context.Context) error {
	owners, err := c.owners(ctx)
	if err != nil {
		return err
	}
	for _, owner := range owners {
		has, err := c.redis.Usage(ctx, owner, c.look)
		if err != nil {
			return err
		}
		if has.Keys == 0 {
			return fmt.Errorf("%w: this user has nothing", errNothing)
		}
		if c.dryRun {
			c.tell(map[string]any{"wouldDelete": has.Conversations, "keys": has.Keys}, "%d conversations would be erased, %d keys\n", has.Conversations, has.Keys)
			continue
		}
		if err := c.confirmed(fmt.Sprintf("%d conversations of %s will be gone for ever.", has.Conversations, owner.UserID)); err != nil {
			return err
		}
		done, err := c.service.Erase(ctx, owner)
		c.log.WarnContext(ctx, "an operator has erased what a user had", "owner", has.Digest, "conversations", done.Deleted, "err", err)
		if err != nil {
			return fmt.Errorf("%d conversations are erased, the rest is not: repeat it: %w", done.Deleted, err)
		}
		c.tell(map[string]any{"deleted": done.Deleted, "keysRemaining": done.KeysRemaining}, "%d conversations erased, %d keys remain\n", done.Deleted, done.KeysRemaining)
	}
	return nil
}

// tell prints values as JSON, or a line of text.
func (c *command) tell(values map[string]any, format string, args ...any) {
	if !c.asJSON {
		_, _ = fmt.Fprintf(c.Out, format, args...)
		return
	}
	line, err := json.Marshal(values)
	if err != nil {
		panic(err) // they are numbers and names
	}
	_, _ = c.Out.Write(append(line, '\n'))
}

// usage prints what a user has, or those who have most.
func (c *command) usage(ctx context.Context) error {
	var all []store.Usage
	if c.tenant == "" {
		largest, owners, err := c.redis.Largest(ctx, c.top, c.look)
		if err != nil {
			return err
		}
		all = largest
		if !c.asJSON {
			_, _ = fmt.Fprintf(c.Out, "%d users\n", owners)
		}
	} else {
		owners, err := c.owners(ctx)
		if err != nil {
			return err
		}
		for _, owner := range owners {
			u, err := c.redis.Usage(ctx, owner, c.look)
			if err != nil {
				return err
			}
			all = append(all, u)
		}
	}
	if c.asJSON {
		for _, u := range all {
			c.tell(map[string]any{
				"tenantId": u.Owner.TenantID, "userId": u.Owner.UserID, "bytes": u.Bytes, "conversations": u.Conversations,
				"idempotencyRecords": u.Records, "keys": u.Keys, "memory": u.Memory,
			}, "")
		}
		return nil
	}
	c.print(func(w *tabwriter.Writer) {
		_, _ = fmt.Fprintln(w, "TENANT\tSUBJECT\tBYTES\tCONVERSATIONS\tRECORDS\tKEYS\tMEMORY")
		for _, u := range all {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\n", u.Owner.TenantID, u.Owner.UserID, u.Bytes, u.Conversations, u.Records, u.Keys, u.Memory)
		}
	})
	return nil
}

// check counts the keys that would stay for ever.
func (c *command) check(ctx context.Context) error {
	found, err := c.redis.WithoutExpiry(ctx, c.look)
	if err != nil {
		return err
	}
	sum := 0
	for _, n := range found {
		sum += n
	}
	if c.asJSON {
		c.tell(map[string]any{"withoutExpiry": sum, "kinds": found}, "")
	} else {
		_, _ = fmt.Fprintf(c.Out, "%d keys without an expiry\n", sum)
		for _, kind := range slices.Sorted(maps.Keys(found)) {
			_, _ = fmt.Fprintf(c.Out, "%8d  %s\n", found[kind], kind)
		}
	}
	if sum > 0 {
		return errWithoutExpiry
	}
	return nil
}
