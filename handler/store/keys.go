package store

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"chatkeep/handler/chat"
)

// The keys in Redis. <u> is the owner's digest; the braces put all keys of one owner into one cluster slot.
// <id> is the conversation's. Every key has an expiry: a conversation's keys and a guard their own, the owner's that of the
// longest-lived conversation.
//
//	pattern                 type  holds                                                  written by
//	chat:{<u>}:exp          ZSET  id by the time it expires at, ms                       every script that touches a conversation
//	chat:{<u>}:sum          HASH  id to its summary: what list shows, see conversation.lua   "
//	chat:{<u>}:idx          ZSET  id by the time it was updated at, ms                       "
//	chat:{<u>}:idx:<status> ZSET  the same, of one status                                    "
//	chat:{<u>}:c:<id>       HASH  the conversation and its turn                              "
//	chat:{<u>}:m:<id>       LIST  its messages, element i is the message with seq i+1      start, begin, finish
//	chat:{<u>}:i:<name>     HASH  what a guard knows of a request, see conversation.lua    claim, start, begin, finish
//
// <name> is a digest too: callers choose what they call their requests.
//
// Summaries stand beside the conversations because a script may touch only the keys it was given, and list cannot know which
// conversations it will find. One function of conversation.lua writes both.

// ownerKeys are the keys that an owner has once, in the order in which the scripts expect them.
func ownerKeys(owner chat.Owner) []string {
	tag := "chat:{" + digest(owner) + "}:"
	return []string{
		tag + "exp", tag + "sum", tag + "idx",
		tag + "idx:" + string(chat.Active), tag + "idx:" + string(chat.Completed), tag + "idx:" + string(chat.Archived),
	}
}

// conversationKeys are the owner's keys and the two of one conversation.
func conversationKeys(owner chat.Owner, id string) []string {
	tag := "chat:{" + digest(owner) + "}:"
	return append(ownerKeys(owner), tag+"c:"+id, tag+"m:"+id)
}

// digest names an owner in keys: 43 characters of base64url that carry no personal data. The lengths before the parts keep
// different owners apart whatever their ids hold.
func digest(owner chat.Owner) string {
	return digestOf(owner.TenantID, owner.UserID)
}

// guardKeys are the keys of a request's guards.
func guardKeys(owner chat.Owner, guards ...chat.Guard) []string {
	keys := make([]string, 0, len(guards))
	for _, g := range guards {
		keys = append(keys, "chat:{"+digest(owner)+"}:i:"+digestOf(g.Name))
	}
	return keys
}

func digestOf(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
