package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
)

type getResponse struct {
	Conversation conversationJSON `json:"conversation"`
	Messages     []messageJSON    `json:"messages"`
	HasMore      bool             `json:"hasMore"` // there are earlier messages
}

// get answers with a conversation and a page of its messages.
func (s *Server) get(w http.ResponseWriter, r *http.Request, u auth.User) error {
	query := r.URL.Query()
	limit, err := number(query, "limit", 100, 1000)
	if err != nil {
		return err
	}
	before, err := number(query, "before", 0, 1<<53)
	if err != nil {
		return err
	}
	conversation, messages, err := s.chat.Get(r.Context(), ownerOf(u), r.PathValue("conversationId"),
		chat.Page{Before: before, Limit: int(limit)})
	if err != nil {
		return err
	}
	etag := fmt.Sprintf(`"%d"`, conversation.Version)
	w.Header().Set("ETag", etag)
	if matches(r.Header.Values("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	hasMore := len(messages) > 0 && messages[0].Seq > 1
	return respond(w, http.StatusOK, getResponse{conversationOf(conversation), messagesOf(messages), hasMore})
}

// number reads a query parameter from 1 to most; where it is not given, the value is absent.
func number(query url.Values, name string, absent, most int64) (int64, error) {
	if !query.Has(name) {
		return absent, nil
	}
	n, err := strconv.ParseInt(query.Get(name), 10, 64)
	if err != nil || n < 1 || n > most || len(query[name]) > 1 {
		return 0, chat.Invalid(name, fmt.Sprintf("must be one whole number from 1 to %d", most))
	}
	return n, nil
}

// matches is If-None-Match (RFC 9110, 13.1.2): a list of tags, compared weakly, or *.
func matches(headers []string, etag string) bool {
	for _, header := range headers {
		for tag := range strings.SplitSeq(header, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}
