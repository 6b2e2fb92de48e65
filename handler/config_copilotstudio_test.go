package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chatkeep/handler/agent"

	"github.com/stretchr/testify/require"
)

const clientID = "11111111-2222-3333-4444-555555555555"

// studioSettings is an environment in which an agent of Copilot Studio answers, but for the changes.
func studioSettings(changes vars) func(string) string {
	env := vars{
		"AGENT": "copilotstudio", "AUTH_AUDIENCE": clientID, "COPILOTSTUDIO_CLIENT_SECRET": "s3cret",
		"COPILOTSTUDIO_ENVIRONMENT_ID": "A47151CF-4F34-488F-B377-EBE84E17B478", "COPILOTSTUDIO_SCHEMA_NAME": "cr123_agent",
	}
	maps.Copy(env, changes)
	return settings(env)
}

// pair returns a certificate with its key, as PEM.
func pair(t *testing.T, key any, public any) string {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

func TestAnAgentOfCopilotStudioIsFound(t *testing.T) {
	const direct = "https://a.8.environment.api.gov.powerplatform.microsoft.us/copilotstudio/dataverse-backed/authenticated/bots/b/conversations?api-version=2022-03-01-preview"
	gov, err := agent.CopilotStudioDirect(direct)
	require.NoError(t, err)
	local, err := agent.CopilotStudioDirect("http://127.0.0.1:9/b")
	require.NoError(t, err)
	byConnection := func(changes vars) vars {
		env := vars{"COPILOTSTUDIO_ENVIRONMENT_ID": "", "COPILOTSTUDIO_SCHEMA_NAME": ""}
		maps.Copy(env, changes)
		return env
	}
	const environment = "A47151CF-4F34-488F-B377-EBE84E17B478"
	for name, row := range map[string]struct {
		env      vars
		endpoint agent.CopilotStudioEndpoint
		scope    string
	}{
		"by environment": {nil, agent.CopilotStudioAgent("Prod", "api.powerplatform.com", environment, "cr123_agent", false), "https://api.powerplatform.com/.default"},
		"prebuilt": {
			vars{"COPILOTSTUDIO_AGENT_TYPE": "prebuilt", "COPILOTSTUDIO_CLOUD": "Preprod"},
			agent.CopilotStudioAgent("Preprod", "api.preprod.powerplatform.com", environment, "cr123_agent", true), "https://api.preprod.powerplatform.com/.default",
		},
		"another cloud": {
			vars{"COPILOTSTUDIO_CLOUD": "Other", "COPILOTSTUDIO_CLOUD_HOST": "api.my.example"},
			agent.CopilotStudioAgent("Other", "api.my.example", environment, "cr123_agent", false), "https://api.my.example/.default",
		},
		"by connection string": {byConnection(vars{"COPILOTSTUDIO_DIRECT_URL": direct}), gov, "https://api.gov.powerplatform.microsoft.us/.default"},
		"and its cloud": {
			byConnection(vars{"COPILOTSTUDIO_DIRECT_URL": direct, "COPILOTSTUDIO_CLOUD": "GovFR"}), gov, "https://api.gov.powerplatform.microsoft.us/.default",
		},
		"on loopback": {
			byConnection(vars{"COPILOTSTUDIO_DIRECT_URL": "http://127.0.0.1:9/b", "COPILOTSTUDIO_CLOUD": "Prod"}), local, "https://api.powerplatform.com/.default",
		},
	} {
		c, err := readConfig(studioSettings(row.env))
		require.NoError(t, err, name)
		require.Equal(t, row.endpoint, c.copilotStudio.endpoint, name)
		require.Equal(t, row.scope, c.copilotStudio.onBehalfOf.Scope, name)
		require.Equal(t, clientID, c.copilotStudio.onBehalfOf.ClientID, name)
		_, err = c.copilotStudio.agent(c.deadlines, slog.New(slog.DiscardHandler))
		require.NoError(t, err, name)
	}
	c, err := readConfig(settings(nil))
	require.NoError(t, err)
	require.Nil(t, c.copilotStudio)
}

func TestBadSettingsOfCopilotStudioAreNamed(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	const direct = "https://a.78.environment.api.powerplatform.com/b"
	for name, row := range map[string]struct {
		env  vars
		want string
	}{
		"no agent":          {vars{"COPILOTSTUDIO_ENVIRONMENT_ID": "", "COPILOTSTUDIO_SCHEMA_NAME": ""}, "COPILOTSTUDIO_DIRECT_URL or COPILOTSTUDIO_ENVIRONMENT_ID and COPILOTSTUDIO_SCHEMA_NAME must be set"},
		"no environment":    {vars{"COPILOTSTUDIO_ENVIRONMENT_ID": ""}, "COPILOTSTUDIO_ENVIRONMENT_ID must be set with"},
		"no schema":         {vars{"COPILOTSTUDIO_SCHEMA_NAME": ""}, "COPILOTSTUDIO_SCHEMA_NAME must be the agent's"},
		"a schema of dots":  {vars{"COPILOTSTUDIO_SCHEMA_NAME": ".."}, "COPILOTSTUDIO_SCHEMA_NAME must be the agent's"},
		"no id":             {vars{"COPILOTSTUDIO_ENVIRONMENT_ID": "a.example/"}, "COPILOTSTUDIO_ENVIRONMENT_ID must be an environment's id"},
		"both":              {vars{"COPILOTSTUDIO_DIRECT_URL": direct}, "COPILOTSTUDIO_DIRECT_URL says all of the agent: do not set"},
		"in the clear":      {vars{"COPILOTSTUDIO_DIRECT_URL": "http://a.example/b"}, "COPILOTSTUDIO_DIRECT_URL must be an https URL"},
		"with a user":       {vars{"COPILOTSTUDIO_DIRECT_URL": "https://u:p@a.example/b"}, "COPILOTSTUDIO_DIRECT_URL must be an https URL"},
		"no known cloud":    {vars{"COPILOTSTUDIO_DIRECT_URL": "https://a.example/b"}, "COPILOTSTUDIO_CLOUD must be set, for the host"},
		"two clouds":        {vars{"COPILOTSTUDIO_DIRECT_URL": direct, "COPILOTSTUDIO_CLOUD": "Gov"}, "COPILOTSTUDIO_CLOUD is not the cloud of"},
		"an unknown cloud":  {vars{"COPILOTSTUDIO_CLOUD": "prod"}, "COPILOTSTUDIO_CLOUD must be Dev or"},
		"no host":           {vars{"COPILOTSTUDIO_CLOUD": "Other"}, "COPILOTSTUDIO_CLOUD_HOST must be set"},
		"a host too many":   {vars{"COPILOTSTUDIO_CLOUD_HOST": "a.example"}, "COPILOTSTUDIO_CLOUD_HOST goes with"},
		"a URL, no host":    {vars{"COPILOTSTUDIO_CLOUD": "Other", "COPILOTSTUDIO_CLOUD_HOST": "https://a.example"}, "COPILOTSTUDIO_CLOUD_HOST must be a host name"},
		"another type":      {vars{"COPILOTSTUDIO_AGENT_TYPE": "draft"}, "COPILOTSTUDIO_AGENT_TYPE must be published or prebuilt"},
		"no client":         {vars{"AUTH_AUDIENCE": "api"}, "COPILOTSTUDIO_CLIENT_ID must be set, for AUTH_AUDIENCE"},
		"another client":    {vars{"COPILOTSTUDIO_CLIENT_ID": "99999999-2222-3333-4444-555555555555"}, "COPILOTSTUDIO_CLIENT_ID must be in AUTH_AUDIENCE"},
		"a client's name":   {vars{"COPILOTSTUDIO_CLIENT_ID": "chat"}, "COPILOTSTUDIO_CLIENT_ID must be a GUID"},
		"no proof":          {vars{"COPILOTSTUDIO_CLIENT_SECRET": ""}, "COPILOTSTUDIO_CLIENT_SECRET or COPILOTSTUDIO_CLIENT_CERTIFICATE must be set where"},
		"two proofs":        {vars{"COPILOTSTUDIO_CLIENT_CERTIFICATE": "/x.pem"}, "COPILOTSTUDIO_CLIENT_SECRET and COPILOTSTUDIO_CLIENT_CERTIFICATE are both set"},
		"no file":           {vars{"COPILOTSTUDIO_CLIENT_SECRET": "", "COPILOTSTUDIO_CLIENT_CERTIFICATE": "/nowhere.pem"}, "COPILOTSTUDIO_CLIENT_CERTIFICATE must be PEM"},
		"no key":            {vars{"COPILOTSTUDIO_CLIENT_SECRET": "", "COPILOTSTUDIO_CLIENT_CERTIFICATE": "-----BEGIN X-----"}, "COPILOTSTUDIO_CLIENT_CERTIFICATE must be PEM"},
		"a key not of RSA":  {vars{"COPILOTSTUDIO_CLIENT_SECRET": "", "COPILOTSTUDIO_CLIENT_CERTIFICATE": pair(t, ec, ec.Public())}, "COPILOTSTUDIO_CLIENT_CERTIFICATE must be PEM"},
		"authority, clear":  {vars{"AZURE_AUTHORITY_HOST": "http://login.example"}, "AZURE_AUTHORITY_HOST must be an https URL"},
		"authority, a name": {vars{"AZURE_AUTHORITY_HOST": "login.microsoftonline.us"}, "AZURE_AUTHORITY_HOST must be an https URL"},
		"for echo":          {vars{"AGENT": "echo"}, "COPILOTSTUDIO_ENVIRONMENT_ID is set, but AGENT is not copilotstudio"},
	} {
		_, err := readConfig(studioSettings(row.env))
		require.ErrorContains(t, err, row.want, name)
		require.NotContains(t, err.Error(), "s3cret", name)
	}
}

func TestWhoWeAreToEntra(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	text := pair(t, key, key.Public())
	file := filepath.Join(t.TempDir(), "client.pem")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	for _, certificate := range []string{text, file} {
		c, err := readConfig(studioSettings(vars{"COPILOTSTUDIO_CLIENT_SECRET": "", "COPILOTSTUDIO_CLIENT_CERTIFICATE": certificate}))
		require.NoError(t, err)
		require.Len(t, c.copilotStudio.onBehalfOf.Certificates, 1)
		require.Nil(t, c.copilotStudio.identity)
	}
	c, err := readConfig(studioSettings(vars{
		"COPILOTSTUDIO_CLIENT_SECRET": "", "IDENTITY_ENDPOINT": "http://127.0.0.1:1", "AZURE_CLIENT_ID": "x", "STORE": "memory",
	}))
	require.NoError(t, err)
	require.Equal(t, &entra{clientID: "x", inAzure: true}, c.copilotStudio.identity)
	for authority, want := range map[string]string{
		"https://login.microsoftonline.com/": "api://AzureADTokenExchange/.default",
		"https://login.microsoftonline.us":   "api://AzureADTokenExchangeUSGov/.default",
		"https://login.chinacloudapi.cn/":    "api://AzureADTokenExchangeChina/.default",
	} {
		require.Equal(t, want, exchangeScope(authority))
	}
}
