package main

import (
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"chatkeep/handler/auth"
)

var (
	guid        = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	scope       = regexp.MustCompile(`^[!#-\[\]-~]+$`) // RFC 6749, section 3.3
	placeholder = regexp.MustCompile(`\{[^{}]*\}`)
	origin      = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?$`) // RFC 6454, as browsers send it
)

// callers reads whose tokens are accepted. There is no setting that accepts others.
func (e *environment) callers(c *config) {
	var a auth.Config
	var tenant string
	e.read("Callers",
		setting{
			"AUTH_TENANT_ID", "", "the tenant of a single-tenant Entra API, a GUID; stands for issuer, keys and allowed tenant",
			matching(&tenant, guid, "a GUID in lower case"),
		},
		setting{"AUTH_ISSUER", "", "instead of the tenant: the tokens' `iss`; with `{tenantid}` in it, of several tenants", text(&a.Issuer)},
		setting{"AUTH_AUDIENCE", "", "required: the tokens' `aud`, this API's client id, or several separated by commas", list(&a.Audiences)},
		setting{"AUTH_JWKS_URL", "", "with `AUTH_ISSUER`: its keys, at an https URL, http on loopback, or in a file", text(&a.KeysURL)},
		setting{"ALLOWED_TENANT_IDS", "", "GUIDs separated by commas; required with `{tenantid}`", list(&a.Tenants)},
		setting{"AUTH_REQUIRED_SCOPE", "access_as_user", "what `scp` must hold", matching(&a.Scope, scope, "one scope, without quotes and spaces")},
		setting{"ALLOWED_CLIENT_IDS", "", "accepted `azp`, separated by commas; none means any", list(&a.Clients)},
	)
	if e.text("AUTH_TENANT_ID") != "" {
		if a.Issuer != "" || a.KeysURL != "" || a.Tenants != nil {
			e.refuse("AUTH_TENANT_ID", "stands for AUTH_ISSUER, AUTH_JWKS_URL and ALLOWED_TENANT_IDS: do not set those too")
		}
		a.Issuer = "https://login.microsoftonline.com/" + tenant + "/v2.0"
		a.KeysURL = "https://login.microsoftonline.com/" + tenant + "/discovery/v2.0/keys"
		a.Tenants = []string{tenant}
	}
	e.issuer(a)
	switch {
	case len(a.Audiences) == 0:
		e.refuse("AUTH_AUDIENCE", "must be set: it is the client id of this API's app registration")
	case slices.ContainsFunc(a.Audiences, hasWildcard):
		e.refuse("AUTH_AUDIENCE", "takes no *, for tokens of other APIs are never accepted: write the client id of this API's app registration")
	}
	if slices.ContainsFunc(a.Clients, hasWildcard) {
		e.refuse("ALLOWED_CLIENT_IDS", "takes no *: leave it empty to accept any client")
	}
	c.auth = a
}

// issuer checks who signs tokens, and with which keys.
func (e *environment) issuer(a auth.Config) {
	if a.Issuer == "" {
		e.refuse("AUTH_ISSUER", "or AUTH_TENANT_ID must be set: it says whose tokens are accepted")
	}
	if slices.ContainsFunc(placeholder.FindAllString(a.Issuer, -1), func(found string) bool { return found != "{tenantid}" }) {
		e.refuse("AUTH_ISSUER", "knows one placeholder: write {tenantid}, in lower case")
	}
	if strings.HasSuffix(a.Issuer, "/v2.0/") {
		e.refuse("AUTH_ISSUER", "must be what tokens have as iss: write /v2.0 without a slash after it")
	}
	if strings.Contains(a.Issuer, "{tenantid}") && len(a.Tenants) == 0 {
		e.refuse("ALLOWED_TENANT_IDS", "must name the tenants that AUTH_ISSUER's {tenantid} may stand for")
	}
	if e.text("AUTH_TENANT_ID") != "" {
		return
	}
	if slices.ContainsFunc(a.Tenants, func(tenant string) bool { return !guid.MatchString(tenant) }) {
		e.refuse("ALLOWED_TENANT_IDS", "must be GUIDs in lower case")
	}
	if !isKeySource(a.KeysURL) {
		e.refuse("AUTH_JWKS_URL", "must be an https URL, an http URL on loopback, or the path of a file that exists")
	}
	if placeholder.MatchString(a.KeysURL) {
		e.refuse("AUTH_JWKS_URL", "has no placeholder: keys for all tenants are at https://login.microsoftonline.com/common/discovery/v2.0/keys")
	}
}

func hasWildcard(value string) bool { return strings.Contains(value, "*") }

func isKeySource(raw string) bool {
	if !strings.Contains(raw, "://") {
		file, err := os.Stat(raw)
		return err == nil && file.Mode().IsRegular()
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// edge reads what stands between callers and us.
func (e *environment) edge(c *config) {
	e.read("Edge",
		setting{
			"FRONT_DOOR_ID", "", "only requests with this `X-Azure-FDID` are admitted: the second lock behind the platform's",
			matching(&c.edge.FrontDoorID, guid, "the profile's frontDoorId, a GUID in lower case"),
		},
		setting{
			"CORS_ORIGINS", "", "exact origins, separated by commas, for use without the Functions host, which answers for CORS itself",
			list(&c.edge.Origins),
		},
	)
	if slices.ContainsFunc(c.edge.Origins, func(value string) bool { return !isOrigin(value) }) {
		e.refuse("CORS_ORIGINS", "must be exact origins as browsers send them, such as https://chat.example.com: lower case, without *, path or the scheme's own port")
	}
}

func isOrigin(value string) bool {
	ownPort := strings.HasPrefix(value, "https://") && strings.HasSuffix(value, ":443") ||
		strings.HasPrefix(value, "http://") && strings.HasSuffix(value, ":80")
	return origin.MatchString(value) && !ownPort
}
