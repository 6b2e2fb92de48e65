package agent

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The URLs as the client of Microsoft makes them.
func TestCopilotStudioURLs(t *testing.T) {
	const (
		id    = "A47151CF-4F34-488F-B377-EBE84E17B478"
		prod  = "https://a47151cf4f34488fb377ebe84e17b4.78.environment.api.powerplatform.com/copilotstudio/dataverse-backed/authenticated/bots/cr123_agent/conversations"
		query = "?api-version=2022-03-01-preview"
	)
	published := func(cloud, id, schema string) CopilotStudioEndpoint {
		return CopilotStudioAgent(cloud, CopilotStudioClouds[cloud], id, schema, false)
	}
	direct := func(connection string) CopilotStudioEndpoint {
		e, err := CopilotStudioDirect(connection)
		require.NoError(t, err)
		return e
	}
	for name, row := range map[string]struct{ got, want string }{
		"start":      {published("Prod", id, "cr123_agent").start(), prod + query},
		"turn":       {published("Prod", id, "cr123_agent").turn("c-1"), prod + "/c-1" + query},
		"early":      {published("FirstRelease", id, "cr123_agent").start(), prod + query},
		"government": {published("Gov", id, "cr123_agent").turn("c-1"), "https://a47151cf4f34488fb377ebe84e17b47.8.environment.api.gov.powerplatform.microsoft.us/copilotstudio/dataverse-backed/authenticated/bots/cr123_agent/conversations/c-1" + query},
		"prebuilt": {
			CopilotStudioAgent("Prod", CopilotStudioClouds["Prod"], id, "cr123_agent", true).start(),
			"https://a47151cf4f34488fb377ebe84e17b4.78.environment.api.powerplatform.com/copilotstudio/prebuilt/authenticated/bots/cr123_agent/conversations" + query,
		},
		"another cloud": {
			CopilotStudioAgent("Other", "api.my.example", id, "cr123_agent", false).start(),
			"https://a47151cf4f34488fb377ebe84e17b47.8.environment.api.my.example/copilotstudio/dataverse-backed/authenticated/bots/cr123_agent/conversations" + query,
		},
		"a default environment": {
			published("Prod", "Default-"+id, "cr123_agent").start(),
			"https://defaulta47151cf4f34488fb377ebe84e17b4.78.environment.api.powerplatform.com/copilotstudio/dataverse-backed/authenticated/bots/cr123_agent/conversations" + query,
		},
		"China":                  {published("Mooncake", id, "a").start(), "https://a47151cf4f34488fb377ebe84e17b47.8.environment.api.powerplatform.partner.microsoftonline.cn/copilotstudio/dataverse-backed/authenticated/bots/a/conversations" + query},
		"a schema that is words": {published("Prod", id, "a b/c?d").turn("1/2 3#?%"), "https://a47151cf4f34488fb377ebe84e17b4.78.environment.api.powerplatform.com/copilotstudio/dataverse-backed/authenticated/bots/a%20b%2Fc%3Fd/conversations/1%2F2%203%23%3F%25" + query},
		"direct, start":          {direct("http://127.0.0.1:1/x/bots/cr123_agent/conversations/old?api-version=2022-03-01-preview").start(), "http://127.0.0.1:1/x/bots/cr123_agent/conversations" + query},
		"direct, turn":           {direct("http://127.0.0.1:1/x/bots/cr123_agent/conversations/old?api-version=2022-03-01-preview").turn("c-1"), "http://127.0.0.1:1/x/bots/cr123_agent/conversations/c-1" + query},
		"direct, a slash":        {direct("https://a.example/bots/b/").start(), "https://a.example/bots/b/conversations" + query},
		"direct, its own query":  {direct("https://a.example/bots/b?x=1%202&api-version=9").turn("c"), "https://a.example/bots/b/conversations/c?x=1%202&api-version=9"},
		"direct, no version":     {direct("https://a.example/bots/b?x=1").start(), "https://a.example/bots/b/conversations?x=1&api-version=2022-03-01-preview"},
		"direct, encoded":        {direct("https://a.example/bots/a%2Fb").start(), "https://a.example/bots/a%2Fb/conversations" + query},
	} {
		require.Equal(t, row.want, row.got, name)
	}
	for _, bad := range []string{"", "/path", "https://", "https://user@a.example", "https://a.example/#x", "mailto:a", "https://a.example/%zz"} {
		_, err := CopilotStudioDirect(bad)
		require.Error(t, err, bad)
	}
}

func TestCopilotStudioCloudsByHost(t *testing.T) {
	for connection, want := range map[string]string{
		"https://a.78.environment.api.powerplatform.com/x":             "https://api.powerplatform.com/.default",
		"https://a.8.environment.API.gov.powerplatform.microsoft.us:1": "https://api.gov.powerplatform.microsoft.us/.default",
		"https://api.appsplatform.us/x":                                "https://api.appsplatform.us/.default",
	} {
		require.Equal(t, want, CopilotStudioScope(CopilotStudioHost(connection)))
	}
	for _, unknown := range []string{"http://127.0.0.1:1", "https://evil-api.powerplatform.com", "https://api.powerplatform.com.example", "::"} {
		require.Empty(t, CopilotStudioHost(unknown))
	}
}
