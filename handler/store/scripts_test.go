package store

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

// words finds the words of the list that a declaration in prelude.lua begins.
func words(t *testing.T, declaration, word string) []string {
	t.Helper()
	found := regexp.MustCompile(`(?s)` + declaration).FindStringSubmatch(preludeLua)
	require.NotNil(t, found, declaration)
	var all []string
	for _, match := range regexp.MustCompile(word).FindAllStringSubmatch(found[1], -1) {
		all = append(all, match[1])
	}
	return all
}

// TestGoAndLuaAgree compares what is stated in both languages.
func TestGoAndLuaAgree(t *testing.T) {
	suffixes := map[string]string{
		"expiries": "exp", "summaries": "sum", "records": "idem", "recordExpiries": "idem:exp", "usage": "usage",
		"active": "idx:active", "completed": "idx:completed", "archived": "idx:archived", "conversation": "c:x", "messages": "m:x",
		"events": "e:x",
	}
	names := words(t, `local ([\w, ]+) = unpack\(KEYS\)`, `(\w+)`)
	require.Len(t, names, len(suffixes))
	for i, key := range conversationKeys(chat.Owner{}, "x") {
		_, suffix, _ := strings.Cut(key, "}:")
		require.Equal(t, suffixes[names[i]], suffix, names[i])
	}

	for name, want := range map[string]int{
		"ATTEMPT": attemptEvents, "LOG_TIME": int((chat.LogTime + logMargin).Milliseconds()), "LOG_WINDOW": int(chat.LogTime.Milliseconds()),
		"LOG_BYTES": chat.LogBytes, "ENTRY": chat.EntryBytes,
	} {
		require.Equal(t, []string{strconv.Itoa(want)}, words(t, `\nlocal (`+name+` = \d+)`, `(\d+)`), name)
	}

	var statuses []string
	for _, status := range chat.Statuses {
		statuses = append(statuses, string(status))
	}
	require.Equal(t, statuses, words(t, `local INDEX = \{([^}]*)\}`, `(\w+) =`))

	shownHere := []string{"bytes"} // which only the scripts read
	for field := range reflect.TypeFor[summary]().Fields() {
		shownHere = append(shownHere, field.Tag.Get("json"))
	}
	slices.Sort(shownHere)
	shownThere := words(t, `local SUMMARY = \{([^}]*)\}`, `(\w+) =`)
	slices.Sort(shownThere)
	require.Equal(t, shownHere, shownThere)

	require.Equal(t, []string{
		"objectId", "externalId", "title", "metadata", "status", "messageCount", "version", "createdAt", "updatedAt", "accessedAt",
		"expiresAt", "turnLeaseUntil", "questionSeq",
	}, words(t, `local function show\(c\)\s+return \{([^}]*)\}`, `c\.(\w+)`), "shown.conversation reads them in this order")
	require.Len(t, words(t, `local function show\(c\)\s+return \{([^}]*)\}`, `c\.(\w+)`), attributesShown)
}

// TestEveryAttributeIsReadInItsPlace fills each attribute that is shown with its own name or number.
func TestEveryAttributeIsReadInItsPlace(t *testing.T) {
	c, pending, err := shown{"oid", "external", "title", `{"a":"b"}`, "archived", "1", "2", "3", "4", "5", "6", "7", "8"}.
		conversation(chat.Owner{}, "id")
	require.NoError(t, err)
	require.Equal(t, chat.Conversation{
		ID: "id", ObjectID: "oid", ExternalID: "external", Title: "title", Metadata: map[string]string{"a": "b"}, Status: chat.Archived,
		MessageCount: 1, Version: 2, CreatedAt: fromMilli(3), UpdatedAt: fromMilli(4), LastAccessedAt: fromMilli(5), ExpiresAt: fromMilli(6),
	}, c)
	require.Equal(t, int64(8), pending)
}
