package api

import (
	"crypto/subtle"
	"net/http"
)

// admits reports whether a request came through our Front Door. It is the second lock behind the platform's access restriction,
// and proves nothing of the caller. Probes come from the platform itself.
func (e Edge) admits(r *http.Request) bool {
	if e.FrontDoorID == "" || r.URL.Path == "/" || r.URL.Path == "/health" {
		return true
	}
	ids := r.Header.Values("X-Azure-FDID")
	return len(ids) == 1 && subtle.ConstantTimeCompare([]byte(ids[0]), []byte(e.FrontDoorID)) == 1
}
