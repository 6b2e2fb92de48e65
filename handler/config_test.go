package main

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// settings is an environment that is good, but for the changes.
func settings(changes map[string]string) func(string) string {
	env := map[string]string{"AUTH_ISSUER": "https://issuer", "AUTH_AUDIENCE": "api", "AUTH_JWKS_URL": "https://issuer/keys"}
	maps.Copy(env, changes)
	return func(name string) string { return env[name] }
}

func TestBadSettingsAreNamed(t *testing.T) {
	azure := "chat.redis.cache.windows.net"
	for name, row := range map[string]struct {
		env  map[string]string
		want string // the variable that is named
	}{
		"no issuer":                 {map[string]string{"AUTH_ISSUER": ""}, "AUTH_ISSUER"},
		"no audience":               {map[string]string{"AUTH_AUDIENCE": " , "}, "AUTH_AUDIENCE"},
		"no keys":                   {map[string]string{"AUTH_JWKS_URL": ""}, "AUTH_JWKS_URL"},
		"keys in the clear":         {map[string]string{"AUTH_JWKS_URL": "http://issuer/keys"}, "AUTH_JWKS_URL"},
		"keys by another scheme":    {map[string]string{"AUTH_JWKS_URL": "ftp://issuer/keys"}, "AUTH_JWKS_URL"},
		"Front Door's name":         {map[string]string{"FRONT_DOOR_ID": "afd-chat"}, "FRONT_DOOR_ID"},
		"any origin":                {map[string]string{"CORS_ORIGINS": "https://a.example,*"}, "CORS_ORIGINS"},
		"an origin with a path":     {map[string]string{"CORS_ORIGINS": "https://a.example/"}, "CORS_ORIGINS"},
		"port":                      {map[string]string{"FUNCTIONS_CUSTOMHANDLER_PORT": "0"}, "FUNCTIONS_CUSTOMHANDLER_PORT"},
		"another scheme":            {map[string]string{"REDIS_URL": "http://x"}, "REDIS_URL"},
		"not a URL":                 {map[string]string{"REDIS_URL": "redis://:p%@x"}, "REDIS_URL"},
		"Azure in the clear":        {map[string]string{"REDIS_URL": "redis://" + azure + ":6379"}, "REDIS_URL"},
		"Azure in other letters":    {map[string]string{"REDIS_URL": "redis://" + strings.ToUpper(azure) + ":6379"}, "REDIS_URL"},
		"managed in the clear":      {map[string]string{"REDIS_URL": "redis://chat.westeurope.redis.azure.net:10000"}, "REDIS_URL"},
		"Azure without a port":      {map[string]string{"REDIS_URL": "rediss://" + azure}, "REDIS_URL"},
		"two Redis":                 {map[string]string{"REDIS_URL": "redis://x:1", "REDIS_HOSTNAME": "y", "REDIS_PASSWORD": "p"}, "REDIS_HOSTNAME"},
		"host without password":     {map[string]string{"REDIS_HOSTNAME": "y"}, "REDIS_PASSWORD"},
		"host with a port":          {map[string]string{"REDIS_HOSTNAME": "y:6380", "REDIS_PASSWORD": "p"}, "REDIS_HOSTNAME"},
		"Redis port":                {map[string]string{"REDIS_PORT": "x"}, "REDIS_PORT"},
		"cluster":                   {map[string]string{"REDIS_CLUSTER": "yes"}, "REDIS_CLUSTER"},
		"a database of a cluster":   {map[string]string{"REDIS_URL": "redis://x:1/2", "REDIS_CLUSTER": "true"}, "REDIS_URL"},
		"unknown Redis auth":        {map[string]string{"REDIS_AUTH": "key"}, "REDIS_AUTH"},
		"entra without a Redis":     {map[string]string{"REDIS_AUTH": "entra"}, "REDIS_AUTH"},
		"entra with a password":     {map[string]string{"REDIS_AUTH": "entra", "REDIS_HOSTNAME": "x", "REDIS_PASSWORD": "p"}, "REDIS_AUTH"},
		"entra with one in the URL": {map[string]string{"REDIS_AUTH": "entra", "REDIS_URL": "rediss://:p@x:6380"}, "REDIS_AUTH"},
		"entra in the clear":        {map[string]string{"REDIS_AUTH": "entra", "REDIS_URL": "redis://x:6379"}, "REDIS_AUTH"},
		"a user without entra":      {map[string]string{"REDIS_USERNAME": "object"}, "REDIS_USERNAME"},
		"unknown log level":         {map[string]string{"LOG_LEVEL": "all"}, "LOG_LEVEL"},
		"Sentinel without a URL":    {map[string]string{"REDIS_SENTINEL_MASTER": "chat"}, "REDIS_SENTINEL_MASTER"},
		"Sentinel and cluster": {
			map[string]string{"REDIS_SENTINEL_MASTER": "chat", "REDIS_CLUSTER": "true", "REDIS_URL": "redis://127.0.0.1"}, "REDIS_SENTINEL_MASTER",
		},
		"too many replicas":       {map[string]string{"REDIS_WAIT_REPLICAS": "11"}, "REDIS_WAIT_REPLICAS"},
		"a short memory of keys":  {map[string]string{"IDEMPOTENCY_TTL": "59"}, "IDEMPOTENCY_TTL"},
		"TTL as a duration":       {map[string]string{"REDIS_TTL": "30s"}, "REDIS_TTL"},
		"no TTL":                  {map[string]string{"REDIS_TTL": "0"}, "REDIS_TTL"},
		"timeout as a number":     {map[string]string{"REDIS_TIMEOUT": "1"}, "REDIS_TIMEOUT"},
		"negative wait":           {map[string]string{"TURN_WAIT": "-1s"}, "TURN_WAIT"},
		"longer than Azure waits": {map[string]string{"AGENT_TIMEOUT": "220s"}, "AGENT_TIMEOUT"},
		"unknown agent":           {map[string]string{"AGENT": "openai"}, "AGENT"},
		"unknown store":           {map[string]string{"STORE": "disk"}, "STORE"},
		"memory beside a Redis":   {map[string]string{"STORE": "memory", "REDIS_URL": "redis://x:1"}, "STORE"},
		"memory in Azure":         {map[string]string{"WEBSITE_INSTANCE_ID": "x"}, "REDIS_URL"},
		"memory in a container":   {map[string]string{"CONTAINER_NAME": "x"}, "REDIS_URL"},
		"no messages":             {map[string]string{"MAX_MESSAGES_PER_CONVERSATION": "0"}, "MAX_MESSAGES_PER_CONVERSATION"},
		"no conversations":        {map[string]string{"MAX_CONVERSATIONS_PER_USER": "-1"}, "MAX_CONVERSATIONS_PER_USER"},
		"context":                 {map[string]string{"AGENT_CONTEXT_MESSAGES": "many"}, "AGENT_CONTEXT_MESSAGES"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readConfig(settings(row.env))
			require.ErrorContains(t, err, row.want)
		})
	}
	_, err := readConfig(func(string) string { return "" })
	for _, name := range []string{"AUTH_ISSUER", "AUTH_AUDIENCE", "AUTH_JWKS_URL"} {
		require.ErrorContains(t, err, name, "all that is wrong is said at once")
	}
}

func TestAnErrorNeverQuotesThePassword(t *testing.T) {
	for _, url := range []string{"redis://:hunter2%@x:1", "http://:hunter2@x", "redis://:hunter2@chat.redis.azure.net:10000", "redis://:hunter2@x:1/db"} {
		_, err := readConfig(settings(map[string]string{"REDIS_URL": url}))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestMemoryOnlyWhereNothingNamesARedis(t *testing.T) {
	for name, row := range map[string]struct {
		env    map[string]string
		memory bool
	}{
		"nothing":         {nil, true},
		"meant in Azure":  {map[string]string{"STORE": "memory", "WEBSITE_INSTANCE_ID": "x", "CONTAINER_NAME": "y"}, true},
		"a URL":           {map[string]string{"REDIS_URL": "redis://x:1"}, false},
		"a URL with TLS":  {map[string]string{"REDIS_URL": "rediss://:p%2F@chat.redis.azure.net:10000"}, false},
		"a host in Azure": {map[string]string{"REDIS_HOSTNAME": "x", "REDIS_PASSWORD": "p", "WEBSITE_INSTANCE_ID": "x"}, false},
		"an identity":     {map[string]string{"REDIS_HOSTNAME": "x", "REDIS_AUTH": "entra"}, false},
		"a socket":        {map[string]string{"REDIS_URL": "unix:///tmp/x.sock"}, false},
	} {
		c, err := readConfig(settings(row.env))
		require.NoError(t, err, name)
		require.Equal(t, row.memory, c.redis == nil, name)
	}
}

// Every setting is in the README's table and in the example, and they name no other.
func TestSettingsAreDocumented(t *testing.T) {
	read := map[string]bool{}
	_, _ = readConfig(func(name string) string {
		read[name] = true
		return ""
	})
	for _, ofTheHost := range []string{"WEBSITE_INSTANCE_ID", "CONTAINER_NAME", "IDENTITY_ENDPOINT"} {
		require.True(t, read[ofTheHost])
		delete(read, ofTheHost)
	}

	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)`").FindAllStringSubmatch(string(readme), -1) {
		documented[row[1]] = true
	}
	require.Equal(t, read, documented)

	text, err := os.ReadFile("../local.settings.json.example")
	require.NoError(t, err)
	var example struct{ Values map[string]string }
	require.NoError(t, json.Unmarshal(text, &example))
	delete(example.Values, "FUNCTIONS_WORKER_RUNTIME")
	given := map[string]bool{"FUNCTIONS_CUSTOMHANDLER_PORT": true} // the host sets it
	for name := range example.Values {
		given[name] = true
	}
	require.Equal(t, read, given)
	_, err = readConfig(func(name string) string { return example.Values[name] })
	require.NoError(t, err)
}
