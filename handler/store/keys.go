package store

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"chatkeep/handler/chat"
)

// The keys in Redis. <u> is the owner's digest; the braces put all keys of one owner into one cluster slot.
// <id> is the conversation's. Every key has an expiry: a conversation's keys and the records their own, the owner's that of the
// longest-lived conversation. The name of a log is also that of a channel, on which begin publishes that a turn has begun.
//
//	pattern                 type  holds                                                       written by
//	chat:{<u>}:exp          ZSET  id by the time it expires at, ms                            every script that counts an access
//	chat:{<u>}:sum          HASH  id to its summary: what list shows, JSON; see prelude.lua   every script that changes a conversation
//	chat:{<u>}:idx:<status> ZSET  id by the time it was updated at, ms, of one status         "
//	chat:{<u>}:usage        HASH  bytes and turns of the owner, and when the owner's keys expire   every script that writes
//	chat:{<u>}:idem         HASH  name to an idempotency record, JSON                         claim, start, begin, finish, update, delete
//	chat:{<u>}:idem:exp     ZSET  name by the time its record expires at, ms                  "
//	chat:{<u>}:c:<id>       HASH  the conversation and its turn, a field per attribute        every script on a conversation
//	chat:{<u>}:m:<id>       LIST  its messages, element i is the message with seq i+1         start, begin, finish, delete
//	chat:{<u>}:e:<id>       STREAM  its log: what its last two turns have told; see prelude.lua   begin, append, finish, delete
//	chat:{health}           STRING  what health writes                                        health
//
// Of an idempotency record: fingerprint, turnToken; of a turn conversationId, questionSeq, and once it has ended replyCount, failure and
// endedAt; of a start turnLeaseUntil, and once it is made conversationId, createdAt, expiresAt, messageCount and externalId;
// of a deletion, and of a tombstone, nothing more; of an update, fingerprint alone.
// A name is a digest too: callers choose what they call their requests.
//
// Summaries stand beside the conversations because a script may touch only the keys it was given, and list cannot know which
// conversations it will find. Metadata can be long and stands in the conversation alone.

// tagOf is what all keys of an owner begin with.
func tagOf(owner chat.Owner) string {
	return "chat:{" + digest(owner.TenantID, owner.UserID) + "}:"
}

// ownerKeys are the keys that an owner has once, in the order of prelude.lua.
func ownerKeys(owner chat.Owner) []string {
	tag := tagOf(owner)
	keys := make([]string, 0, 11) // room for a conversation's
	keys = append(keys, tag+"exp", tag+"sum")
	for _, status := range chat.Statuses {
		keys = append(keys, tag+"idx:"+string(status))
	}
	return append(keys, tag+"idem", tag+"idem:exp", tag+"usage")
}

// conversationKeys are the owner's keys and the three of one conversation, in the order of prelude.lua.
func conversationKeys(owner chat.Owner, id string) []string {
	keys := ownerKeys(owner)
	tag := keys[0][:len(keys[0])-len("exp")]
	return append(keys, conversationKey(tag, id), tag+"m:"+id, logKey(tag, id))
}

func conversationKey(tag, id string) string { return tag + "c:" + id }

func logKey(tag, id string) string { return tag + "e:" + id }

// digest names an owner, or a request, in keys: 43 characters of base64url that carry no personal data. The lengths before the parts keep
// different parts apart whatever they hold.
func digest(parts ...string) string {
	var room [512]byte
	text := room[:0]
	for _, part := range parts {
		text = binary.BigEndian.AppendUint32(text, uint32(len(part)))
		text = append(text, part...)
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
