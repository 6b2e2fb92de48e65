package agent

import (
	"errors"
	"net/url"
	"strings"
)

// CopilotStudioClouds are the hosts of the Power Platform API by the name of their cloud. Of the cloud Other the operator knows the host.
var CopilotStudioClouds = map[string]string{
	"Prod":         "api.powerplatform.com",
	"FirstRelease": "api.powerplatform.com",
	"Preprod":      "api.preprod.powerplatform.com",
	"Test":         "api.test.powerplatform.com",
	"Dev":          "api.dev.powerplatform.com",
	"Exp":          "api.exp.powerplatform.com",
	"Prv":          "api.prv.powerplatform.com",
	"Local":        "api.powerplatform.localhost",
	"Gov":          "api.gov.powerplatform.microsoft.us",
	"GovFR":        "api.gov.powerplatform.microsoft.us",
	"High":         "api.high.powerplatform.microsoft.us",
	"DoD":          "api.appsplatform.us",
	"Mooncake":     "api.powerplatform.partner.microsoftonline.cn",
	"Ex":           "api.powerplatform.eaglex.ic.gov",
	"Rx":           "api.powerplatform.microsoft.scloud",
}

// CopilotStudioEndpoint is where a Copilot Studio agent is spoken to directly ("direct to engine").
type CopilotStudioEndpoint struct {
	base  string // up to and with /conversations
	query string
}

// The API's version, and the paths of the two types of agents.
const (
	apiVersion    = "api-version=2022-03-01-preview"
	publishedPath = "/copilotstudio/dataverse-backed/authenticated/bots/"
	prebuiltPath  = "/copilotstudio/prebuilt/authenticated/bots/"
)

// CopilotStudioAgent is the endpoint of an agent in an environment. The host is that of the cloud, see CopilotStudioClouds.
func CopilotStudioAgent(cloud, host, environmentID, schema string, isPrebuilt bool) CopilotStudioEndpoint {
	id := strings.ReplaceAll(strings.ToLower(environmentID), "-", "")
	suffix := 1
	if cloud == "Prod" || cloud == "FirstRelease" {
		suffix = 2
	}
	cut := max(0, len(id)-suffix)
	path := publishedPath
	if isPrebuilt {
		path = prebuiltPath
	}
	return CopilotStudioEndpoint{
		base:  "https://" + id[:cut] + "." + id[cut:] + ".environment." + host + path + url.PathEscape(schema) + "/conversations",
		query: apiVersion,
	}
}

// CopilotStudioDirect is the endpoint of a connection string, as Copilot Studio shows it: of a start, or of any conversation.
func CopilotStudioDirect(connection string) (CopilotStudioEndpoint, error) {
	u, err := url.Parse(connection)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return CopilotStudioEndpoint{}, errors.New("not a URL with a host alone before its path, or with a fragment")
	}
	path, _, _ := strings.Cut(strings.TrimSuffix(u.EscapedPath(), "/"), "/conversations")
	query := u.RawQuery
	switch {
	case query == "":
		query = apiVersion
	case !u.Query().Has("api-version"):
		query += "&" + apiVersion
	}
	return CopilotStudioEndpoint{base: u.Scheme + "://" + u.Host + path + "/conversations", query: query}, nil
}

// start is the URL at which conversations begin.
func (e CopilotStudioEndpoint) start() string { return e.base + "?" + e.query }

// turn is the URL of a conversation.
func (e CopilotStudioEndpoint) turn(conversationID string) string {
	return e.base + "/" + url.PathEscape(conversationID) + "?" + e.query
}

// CopilotStudioHost is the host of the cloud that a connection string leads to, or empty when the URL's host is of none that is known.
func CopilotStudioHost(connection string) string {
	u, err := url.Parse(connection)
	if err != nil {
		return ""
	}
	name := strings.ToLower(u.Hostname())
	for _, host := range CopilotStudioClouds {
		if name == host || strings.HasSuffix(name, "."+host) {
			return host
		}
	}
	return ""
}

// CopilotStudioScope is what a token for agents of a cloud is asked for.
func CopilotStudioScope(host string) string { return "https://" + host + "/.default" }
