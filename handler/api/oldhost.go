package api

import (
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// isInvocation tells whether a host from before enableProxyingHttpRequest calls a function: POST /<function>, with the request in JSON
// of the host's own. It reads the body. No route of ours is at such a path, but for health, which takes no POST.
func isInvocation(w *response, r *http.Request) bool {
	if checkMediaType(r) != nil {
		return false
	}
	body, err := readBody(w, r, maxBody)
	if err != nil {
		return false
	}
	var call struct{ Data, Metadata jsontext.Value }
	return json.Unmarshal(body, &call) == nil &&
		call.Data.Kind() == jsontext.KindBeginObject && call.Metadata.Kind() == jsontext.KindBeginObject
}
