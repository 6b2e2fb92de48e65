package main

import (
	"context"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"chatkeep/handler/agent"
	"chatkeep/handler/chat"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// copilotStudio is which agent of Copilot Studio answers, and how it knows for whom we speak.
type copilotStudio struct {
	endpoint   agent.CopilotStudioEndpoint
	onBehalfOf agent.OnBehalfOfConfig
	identity   *entra // whose token proves who we are; nil: a secret or certificate does
}

// copilotStudioSettings are as they were given.
type copilotStudioSettings struct {
	direct, environment, schema, agentType string
	cloud, cloudHost                       string
	clientID, secret, certificate          string
	authority                              string
}

var (
	environmentID = regexp.MustCompile(`^[0-9A-Za-z-]{4,63}$`)
	hostName      = regexp.MustCompile(`^[0-9a-z]([0-9a-z.-]*[0-9a-z])?$`)
)

// copilotStudio reads how to reach an agent of Copilot Studio.
func (e *environment) copilotStudio(c *config) {
	var s copilotStudioSettings
	clouds := slices.Sorted(maps.Keys(agent.CopilotStudioClouds))
	e.read("Copilot Studio",
		setting{
			"COPILOTSTUDIO_DIRECT_URL", "", "with `AGENT=copilotstudio`: the agent's connection string, an https URL, or http on loopback", text(&s.direct),
		},
		setting{
			"COPILOTSTUDIO_ENVIRONMENT_ID", "", "instead of that: the id of the agent's environment",
			matching(&s.environment, environmentID, "an environment's id: a GUID, which Default- may precede"),
		},
		setting{"COPILOTSTUDIO_SCHEMA_NAME", "", "and the agent's schema name", text(&s.schema)},
		setting{"COPILOTSTUDIO_AGENT_TYPE", "published", "and its type", oneOf(&s.agentType, "published", "prebuilt")},
		setting{
			"COPILOTSTUDIO_CLOUD", "",
			"the agent's cloud: " + strings.Join(clouds, ", ") + ", or Other; none: that of the connection string's host, or Prod with an environment",
			oneOf(&s.cloud, append(clouds, "Other")...),
		},
		setting{
			"COPILOTSTUDIO_CLOUD_HOST", "", "with `COPILOTSTUDIO_CLOUD=Other`: the host of its Power Platform API",
			matching(&s.cloudHost, hostName, "a host name in lower case"),
		},
		setting{
			"COPILOTSTUDIO_CLIENT_ID", "", "the client id of this API's app registration, which acts for callers; none: `AUTH_AUDIENCE`",
			matching(&s.clientID, guid, "a GUID in lower case"),
		},
		setting{"COPILOTSTUDIO_CLIENT_SECRET", "", "its secret; or", text(&s.secret)},
		setting{
			"COPILOTSTUDIO_CLIENT_CERTIFICATE", "",
			"its certificate and private key, as PEM or the path of a PEM or PKCS#12 file without a password; neither: the app's managed identity, which the registration must trust",
			text(&s.certificate),
		},
		setting{
			"AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/", "who exchanges callers' tokens: an https URL, another one in another cloud",
			text(&s.authority),
		},
	)
	if c.agent != "copilotstudio" {
		e.noCopilotStudio()
		return
	}
	host := e.cloudHost(&s)
	c.copilotStudio = &copilotStudio{endpoint: e.copilotStudioEndpoint(s, host)}
	e.onBehalfOf(c, s)
	c.copilotStudio.onBehalfOf.Scope = agent.CopilotStudioScope(host)
}

// agent returns the agent, which asks nobody yet.
func (s *copilotStudio) agent(deadlines agent.Deadlines, log *slog.Logger) (*agent.CopilotStudio, error) {
	if s.identity != nil {
		credential, err := s.identity.credential()
		if err != nil {
			return nil, err
		}
		scope := exchangeScope(s.onBehalfOf.Authority)
		s.onBehalfOf.Assertion = func(ctx context.Context) (string, error) {
			token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
			return token.Token, err
		}
	}
	onBehalfOf, err := agent.NewOnBehalfOf(s.onBehalfOf)
	if err != nil {
		return nil, err
	}
	return agent.NewCopilotStudio(s.endpoint, onBehalfOf, deadlines, log), nil
}

// noCopilotStudio refuses what would do nothing.
func (e *environment) noCopilotStudio() {
	for _, name := range []string{"COPILOTSTUDIO_DIRECT_URL", "COPILOTSTUDIO_ENVIRONMENT_ID", "COPILOTSTUDIO_CLIENT_ID"} {
		if e.text(name) != "" {
			e.refuse(name, "is set, but AGENT is not copilotstudio")
		}
	}
}

// copilotStudioEndpoint is the agent's, in a cloud with the host.
func (e *environment) copilotStudioEndpoint(s copilotStudioSettings, host string) agent.CopilotStudioEndpoint {
	if s.direct != "" {
		if s.environment != "" || s.schema != "" {
			e.refuse("COPILOTSTUDIO_DIRECT_URL", "says all of the agent: do not set COPILOTSTUDIO_ENVIRONMENT_ID and COPILOTSTUDIO_SCHEMA_NAME too")
		}
		endpoint, err := agent.CopilotStudioDirect(s.direct)
		if err != nil || !isHTTPS(s.direct) {
			e.refuse("COPILOTSTUDIO_DIRECT_URL", "must be an https URL, or http on loopback, without user and fragment")
		}
		return endpoint
	}
	switch {
	case s.environment == "" && s.schema == "":
		e.refuse("COPILOTSTUDIO_DIRECT_URL", "or COPILOTSTUDIO_ENVIRONMENT_ID and COPILOTSTUDIO_SCHEMA_NAME must be set with AGENT=copilotstudio")
	case s.environment == "":
		e.refuse("COPILOTSTUDIO_ENVIRONMENT_ID", "must be set with COPILOTSTUDIO_SCHEMA_NAME")
	case s.schema == "", s.schema == ".", s.schema == "..":
		e.refuse("COPILOTSTUDIO_SCHEMA_NAME", "must be the agent's schema name: Copilot Studio shows it under Settings, Advanced, Metadata")
	}
	return agent.CopilotStudioAgent(s.cloud, host, s.environment, s.schema, s.agentType == "prebuilt")
}

// cloudHost is the host of the agent's cloud. Where none is named it is that of the connection string, or Prod.
func (e *environment) cloudHost(s *copilotStudioSettings) string {
	byURL := agent.CopilotStudioHost(s.direct)
	if s.cloud == "" && s.direct == "" {
		s.cloud = "Prod"
	}
	host := agent.CopilotStudioClouds[s.cloud]
	if s.cloud == "Other" {
		host = s.cloudHost
	}
	switch {
	case s.cloud == "" && byURL == "":
		e.refuse("COPILOTSTUDIO_CLOUD", "must be set, for the host of COPILOTSTUDIO_DIRECT_URL is that of no known cloud")
	case s.cloud == "":
		return byURL
	case s.cloud == "Other" && host == "":
		e.refuse("COPILOTSTUDIO_CLOUD_HOST", "must be set with COPILOTSTUDIO_CLOUD=Other")
	case s.cloud != "Other" && s.cloudHost != "":
		e.refuse("COPILOTSTUDIO_CLOUD_HOST", "goes with COPILOTSTUDIO_CLOUD=Other")
	case byURL != "" && byURL != host:
		e.refuse("COPILOTSTUDIO_CLOUD", "is not the cloud of COPILOTSTUDIO_DIRECT_URL: leave it empty")
	}
	return host
}

// onBehalfOf reads who we are to Entra ID when we act for callers.
func (e *environment) onBehalfOf(c *config, s copilotStudioSettings) {
	if s.clientID == "" && len(c.auth.Audiences) == 1 && guid.MatchString(c.auth.Audiences[0]) {
		s.clientID = c.auth.Audiences[0]
	}
	switch {
	case s.clientID == "":
		e.refuse("COPILOTSTUDIO_CLIENT_ID", "must be set, for AUTH_AUDIENCE is not one client id")
	case !slices.Contains(c.auth.Audiences, s.clientID):
		e.refuse("COPILOTSTUDIO_CLIENT_ID", "must be in AUTH_AUDIENCE, for only tokens that are for this client can be exchanged by it")
	}
	if u, err := url.Parse(s.authority); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		e.refuse("AZURE_AUTHORITY_HOST", "must be an https URL, such as https://login.microsoftonline.com/")
		return
	}
	o := agent.OnBehalfOfConfig{ClientID: s.clientID, Authority: s.authority, Secret: chat.Secret(s.secret)}
	switch {
	case s.secret != "" && s.certificate != "":
		e.refuse("COPILOTSTUDIO_CLIENT_SECRET", "and COPILOTSTUDIO_CLIENT_CERTIFICATE are both set: keep one")
	case s.certificate != "":
		pem := []byte(s.certificate)
		var err error
		if !strings.HasPrefix(s.certificate, "-----BEGIN ") {
			pem, err = os.ReadFile(s.certificate)
		}
		if err == nil {
			o.Certificates, o.Key, err = azidentity.ParseCertificates(pem, nil)
		}
		if err == nil {
			_, err = agent.NewOnBehalfOf(o)
		}
		if err != nil {
			e.refuse("COPILOTSTUDIO_CLIENT_CERTIFICATE", "must be PEM, or the path of a PEM or PKCS#12 file, with a certificate and its RSA key, without a password")
		}
	case s.secret == "" && e.text("IDENTITY_ENDPOINT") == "":
		e.refuse("COPILOTSTUDIO_CLIENT_SECRET", "or COPILOTSTUDIO_CLIENT_CERTIFICATE must be set where there is no managed identity")
	case s.secret == "":
		c.copilotStudio.identity = &entra{clientID: e.text("AZURE_CLIENT_ID"), inAzure: true}
	}
	c.copilotStudio.onBehalfOf = o
}

// exchangeScope is what a managed identity's token is asked for, to prove to an authority who we are.
func exchangeScope(authority string) string {
	u, err := url.Parse(authority)
	switch {
	case err == nil && strings.HasSuffix(u.Hostname(), ".us"):
		return "api://AzureADTokenExchangeUSGov/.default"
	case err == nil && strings.HasSuffix(u.Hostname(), ".cn"):
		return "api://AzureADTokenExchangeChina/.default"
	default:
		return "api://AzureADTokenExchange/.default"
	}
}

// isHTTPS reports whether what is sent to a URL is kept from strangers: it is https, or http to this machine.
func isHTTPS(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()))
}
