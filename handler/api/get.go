package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"chatkeep/handler/chat"
)

const defaultMessages = 100

// get answers with a conversation and a page of its messages.
func (s *Server) get(w *response, r *http.Request, caller chat.Caller) error {
	id := strings.ToLower(r.PathValue("conversationId"))
	page, err := pageOf(r)
	if err != nil {
		return err
	}
	condition := readIfNoneMatch(r.Header.Values("If-None-Match"))
	page.Known, err = s.known(r.Context(), caller.Owner, id, condition)
	if err != nil {
		return err
	}
	conversation, messages, err := s.chat.Get(r.Context(), caller.Owner, id, page)
	if err != nil {
		return err
	}
	// The tag is weak, for lastAccessedAt and expiresAt change without the version.
	w.Header().Set("ETag", `W/"`+strconv.FormatInt(conversation.Version, 10)+`"`)
	if condition.matches(conversation.Version) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return respond(w, http.StatusOK, EncodePage(conversation, messages))
}

// EncodePage returns what get answers with, a line of JSON.
func EncodePage(c chat.Conversation, messages []chat.StoredMessage) []byte {
	hasMore := len(messages) > 0 && messages[0].Seq > 1
	b := make([]byte, 0, conversationSize(c)+messagesSize(messages))
	b = appendConversation(append(b, `{"conversation":`...), c)
	b = appendMessages(append(b, `,"messages":`...), messages)
	b = strconv.AppendBool(append(b, `,"hasMore":`...), hasMore)
	return append(b, "}\n"...)
}

// EncodeConversation returns a conversation as the API shows it, a line of JSON.
func EncodeConversation(c chat.Conversation) []byte {
	return append(appendConversation(nil, c), '\n')
}

// pageOf reads the query.
func pageOf(r *http.Request) (chat.Page, error) {
	if r.URL.RawQuery == "" {
		return chat.Page{Limit: defaultMessages}, nil
	}
	query := r.URL.Query()
	limit, err := number(query, "limit", defaultMessages)
	if err != nil {
		return chat.Page{}, err
	}
	before, err := number(query, "before", 0)
	return chat.Page{Limit: int(limit), Before: before}, err
}

// ifNoneMatch is what an If-None-Match header (RFC 9110, 13.1.2) says of versions. Other tags can match none.
type ifNoneMatch struct {
	any      bool
	versions []int64
}

// readIfNoneMatch compares tags weakly, as the header wants it.
func readIfNoneMatch(headers []string) ifNoneMatch {
	var c ifNoneMatch
	for _, tag := range tagsOf(headers) {
		version, ok := versionOf(tag)
		switch {
		case tag == "*":
			c.any = true
		case ok && !slices.Contains(c.versions, version):
			c.versions = append(c.versions, version)
		}
	}
	return c
}

// tagsOf are the tags that a header lists, as they are; one may be *.
func tagsOf(headers []string) []string {
	var tags []string
	for _, header := range headers {
		for tag := range strings.SplitSeq(header, ",") {
			tags = append(tags, strings.TrimSpace(tag))
		}
	}
	return tags
}

// versionOf is the version that a tag names, weak or strong.
func versionOf(tag string) (int64, bool) {
	opaque := strings.TrimPrefix(tag, "W/")
	version, err := strconv.ParseInt(strings.Trim(opaque, `"`), 10, 64)
	return version, err == nil && version > 0 && opaque == `"`+strconv.FormatInt(version, 10)+`"`
}

func (c ifNoneMatch) matches(version int64) bool {
	return c.any || slices.Contains(c.versions, version)
}

// known is the version that the caller has, if it is still the conversation's; otherwise it may be any. A store compares one
// version, before it reads messages. Of several tags, a look at the conversation without its messages tells which one to compare.
func (s *Server) known(ctx context.Context, owner chat.Owner, id string, c ifNoneMatch) (int64, error) {
	switch {
	case !c.any && len(c.versions) == 0:
		return 0, nil
	case !c.any && len(c.versions) == 1:
		return c.versions[0], nil
	}
	conversation, _, err := s.chat.Get(ctx, owner, id, chat.Page{Before: 1, Limit: 1})
	if err != nil || !c.matches(conversation.Version) {
		return 0, err
	}
	return conversation.Version, nil
}
