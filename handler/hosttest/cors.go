package hosttest

import (
	"net/http"
	"slices"
)

// cors is the host's own answer to cross-origin requests on Flex. It has no Vary and exposes no headers.
type cors struct{ origins []string }

// preflight answers a preflight, for whatever path, and tells whether it was one. To other calls it adds what the answer lets a browser read.
func (p *cors) preflight(c *call) bool {
	origin, ok := c.header.get("Origin")
	if !ok {
		return false
	}
	if slices.Contains(p.origins, origin) {
		c.extra = append(c.extra, field{"Access-Control-Allow-Origin", origin})
	}
	method, ok := c.header.get("Access-Control-Request-Method")
	if !ok || c.method != http.MethodOptions {
		return false
	}
	var allowed header
	if len(c.extra) > 0 {
		if names, ok := c.header.get("Access-Control-Request-Headers"); ok {
			allowed = append(allowed, field{"Access-Control-Allow-Headers", names})
		}
		allowed = append(allowed, field{"Access-Control-Allow-Methods", method})
	}
	c.refuse(http.StatusNoContent, allowed...)
	return true
}
