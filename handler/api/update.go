package api

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// mergePatch is the media type of RFC 7396.
const mergePatch = "application/merge-patch+json"

type updateRequest struct {
	Title    patch[string]             `json:"title"`
	Metadata patch[map[string]*string] `json:"metadata"`
	Status   patch[string]             `json:"status"`
}

// patch is a member of a merge patch, in which null takes away, and what is not given stays.
type patch[T any] struct {
	isGiven bool
	value   *T // nil: null
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (p *patch[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	p.isGiven = true
	return json.UnmarshalDecode(d, &p.value)
}

// update changes a conversation.
func (s *Server) update(w *response, r *http.Request, caller chat.Caller) error {
	id := strings.ToLower(r.PathValue("conversationId"))
	req, err := decode[updateRequest](w, r, false)
	if err != nil {
		if errors.Is(err, errMediaType) {
			w.Header().Set("Accept-Patch", "application/json, "+mergePatch) // RFC 5789, 2.2
		}
		return err
	}
	change, err := req.change(r, id)
	if err != nil {
		return err
	}
	changed, err := s.chat.Update(r.Context(), caller.Owner, id, change)
	if err != nil {
		return err
	}
	markReplayed(w, changed.Replayed)
	w.Header().Set("ETag", `W/"`+strconv.FormatInt(changed.Conversation.Version, 10)+`"`)
	b := appendConversation(append(make([]byte, 0, conversationSize(changed.Conversation)), `{"conversation":`...), changed.Conversation)
	return respond(w, http.StatusOK, append(b, "}\n"...))
}

func (req updateRequest) change(r *http.Request, id string) (chat.Change, error) {
	var c chat.Change
	if req.Title.isGiven {
		c.Title = new("")
		if req.Title.value != nil {
			c.Title = req.Title.value
		}
	}
	if req.Status.isGiven {
		if req.Status.value == nil {
			return c, refuse("status", "must be active, completed or archived")
		}
		c.Status = new(chat.Status(*req.Status.value))
	}
	if req.Metadata.value != nil {
		c.Metadata = *req.Metadata.value
	}
	c.ClearMetadata = req.Metadata.isGiven && req.Metadata.value == nil
	if tags := r.Header.Values("If-Match"); len(tags) > 0 {
		c.Matches = readIfNoneMatch(tags).matches
	}
	var err error
	c.Idempotency.Key, err = idempotencyKey(r)
	if c.Idempotency.Key != "" {
		asked := newFingerprint("update")
		asked.add(id)
		asked.add(strings.Join(r.Header.Values("If-Match"), ", "))
		asked.addOptional(c.Title)
		asked.addOptional(req.Status.value)
		asked.add(strconv.FormatBool(c.ClearMetadata))
		for _, key := range slices.Sorted(maps.Keys(c.Metadata)) {
			asked.add(key)
			asked.addOptional(c.Metadata[key])
		}
		c.Idempotency.Fingerprint = asked.String()
	}
	return c, err
}
