package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
)

type vars = map[string]string

// settings is an environment that is good, but for the changes.
func settings(changes vars) func(string) string {
	env := vars{"AUTH_ISSUER": "https://issuer", "AUTH_AUDIENCE": "api", "AUTH_JWKS_URL": "https://issuer/keys"}
	maps.Copy(env, changes)
	return func(name string) string { return env[name] }
}

// A bad setting is named, with what to do about it.
func TestBadSettingsAreNamed(t *testing.T) {
	const (
		tenant = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
		azure  = "chat.redis.cache.windows.net"
	)
	for name, row := range map[string]struct {
		env  vars
		want string
	}{
		"no issuer":                        {vars{"AUTH_ISSUER": ""}, "AUTH_ISSUER or AUTH_TENANT_ID must be set"},
		"a tenant's name":                  {vars{"AUTH_TENANT_ID": "contoso.com"}, "AUTH_TENANT_ID must be a GUID in lower case"},
		"a tenant and an issuer":           {vars{"AUTH_TENANT_ID": tenant}, "AUTH_TENANT_ID stands for AUTH_ISSUER"},
		"{tenantId}":                       {vars{"AUTH_ISSUER": "https://x/{tenantId}/v2.0", "ALLOWED_TENANT_IDS": tenant}, "AUTH_ISSUER knows one placeholder: write {tenantid}, in lower case"},
		"another placeholder":              {vars{"AUTH_ISSUER": "https://x/{tid}/v2.0"}, "write {tenantid}"},
		"a slash after /v2.0":              {vars{"AUTH_ISSUER": "https://login.microsoftonline.com/" + tenant + "/v2.0/"}, "AUTH_ISSUER must be what tokens have as iss: write /v2.0 without"},
		"any tenant":                       {vars{"AUTH_ISSUER": "https://x/{tenantid}/v2.0"}, "ALLOWED_TENANT_IDS must name the tenants"},
		"tenants by name":                  {vars{"ALLOWED_TENANT_IDS": tenant + ",contoso.com"}, "ALLOWED_TENANT_IDS must be GUIDs in lower case"},
		"no audience":                      {vars{"AUTH_AUDIENCE": " , "}, "AUTH_AUDIENCE must be set"},
		"any audience":                     {vars{"AUTH_AUDIENCE": "*"}, "AUTH_AUDIENCE takes no *, for tokens of other APIs are never accepted: write the client id"},
		"any audience of a domain":         {vars{"AUTH_AUDIENCE": "api,https://*.example.com"}, "AUTH_AUDIENCE takes no *"},
		"any client":                       {vars{"ALLOWED_CLIENT_IDS": "*"}, "ALLOWED_CLIENT_IDS takes no *: leave it empty"},
		"two scopes":                       {vars{"AUTH_REQUIRED_SCOPE": "a b"}, "AUTH_REQUIRED_SCOPE must be one scope"},
		"no keys":                          {vars{"AUTH_JWKS_URL": ""}, "AUTH_JWKS_URL must be an https URL"},
		"keys in the clear":                {vars{"AUTH_JWKS_URL": "http://issuer/keys"}, "AUTH_JWKS_URL must be an https URL"},
		"keys by another scheme":           {vars{"AUTH_JWKS_URL": "ftp://issuer/keys"}, "AUTH_JWKS_URL must be an https URL"},
		"keys of no host":                  {vars{"AUTH_JWKS_URL": "https:///keys"}, "AUTH_JWKS_URL must be an https URL"},
		"keys in a file that is not there": {vars{"AUTH_JWKS_URL": "/nowhere/keys.json"}, "AUTH_JWKS_URL must be an https URL, an http URL on loopback, or the path of a file that exists"},
		"keys in a folder":                 {vars{"AUTH_JWKS_URL": os.TempDir()}, "AUTH_JWKS_URL must be an https URL"},
		"keys in a device":                 {vars{"AUTH_JWKS_URL": os.DevNull}, "AUTH_JWKS_URL must be an https URL"},
		"keys at a URL with one slash":     {vars{"AUTH_JWKS_URL": "https:/issuer/keys"}, "AUTH_JWKS_URL must be an https URL"},
		"keys of {tenantid}":               {vars{"AUTH_JWKS_URL": "https://x/{tenantid}/keys"}, "AUTH_JWKS_URL has no placeholder"},

		"Front Door's name":            {vars{"FRONT_DOOR_ID": "afd-chat"}, "FRONT_DOOR_ID must be the profile's frontDoorId, a GUID"},
		"any origin":                   {vars{"CORS_ORIGINS": "https://a.example,*"}, "CORS_ORIGINS must be exact origins"},
		"any origin of a domain":       {vars{"CORS_ORIGINS": "https://*.example.com"}, "CORS_ORIGINS must be exact origins"},
		"an origin with a path":        {vars{"CORS_ORIGINS": "https://a.example/"}, "CORS_ORIGINS must be exact origins"},
		"an origin in capitals":        {vars{"CORS_ORIGINS": "https://A.example"}, "CORS_ORIGINS must be exact origins"},
		"an origin with its own port":  {vars{"CORS_ORIGINS": "https://a.example:443"}, "CORS_ORIGINS must be exact origins"},
		"a plain one with its port":    {vars{"CORS_ORIGINS": "http://a.example:80"}, "CORS_ORIGINS must be exact origins"},
		"an origin with a user":        {vars{"CORS_ORIGINS": "https://me@a.example"}, "CORS_ORIGINS must be exact origins"},
		"an origin without a scheme":   {vars{"CORS_ORIGINS": "a.example"}, "CORS_ORIGINS must be exact origins"},
		"the origin of a file":         {vars{"CORS_ORIGINS": "null"}, "CORS_ORIGINS must be exact origins"},
		"an origin with other letters": {vars{"CORS_ORIGINS": "https://münchen.example"}, "CORS_ORIGINS must be exact origins"},

		"another scheme":                 {vars{"REDIS_URL": "http://x"}, "REDIS_URL must begin with rediss://"},
		"not a URL":                      {vars{"REDIS_URL": "redis://:p%@x"}, "REDIS_URL must look like"},
		"a # in the password":            {vars{"REDIS_URL": "redis://:p#x@y:1"}, "REDIS_URL must look like"},
		"a URL without slashes":          {vars{"REDIS_URL": "redis:x"}, "REDIS_URL must look like"},
		"a fragment":                     {vars{"REDIS_URL": "redis://x:1#y"}, "REDIS_URL must look like"},
		"no verification":                {vars{"REDIS_URL": "rediss://x:1?skip_verify=true"}, "REDIS_URL must have no query (skip_verify)"},
		"a pool in the URL":              {vars{"REDIS_URL": "redis://x:1/0?pool_size=5&read_timeout=1s"}, "REDIS_URL must have no query (pool_size, read_timeout)"},
		"a database in a socket's query": {vars{"REDIS_URL": "unix:///tmp/x.sock?db=1"}, "REDIS_URL must have no query (db)"},
		"an empty query":                 {vars{"REDIS_URL": "redis://x:1?"}, "REDIS_URL must have no query"},
		"a ? in the password":            {vars{"REDIS_URL": "redis://:1?x@y:1"}, "a ? in the password is written %3F"},
		"a URL without a host":           {vars{"REDIS_URL": "redis://:6379"}, "REDIS_URL must name a host"},
		"port 0":                         {vars{"REDIS_URL": "redis://x:0"}, "REDIS_URL must name a host, and a port from 1 to 65535"},
		"port 65536":                     {vars{"REDIS_URL": "redis://x:65536"}, "REDIS_URL must name a host, and a port"},
		"a database by name":             {vars{"REDIS_URL": "redis://x:1/chat"}, "REDIS_URL must end with the port, or with the number of a database"},
		"a database below 0":             {vars{"REDIS_URL": "redis://x:1/-1"}, "REDIS_URL must end with the port"},
		"two databases":                  {vars{"REDIS_URL": "redis://x:1/1/2"}, "REDIS_URL must end with the port"},
		"a socket's relative path":       {vars{"REDIS_URL": "unix://tmp/x.sock"}, "REDIS_URL must name a socket as unix:///"},
		"a socket without a path":        {vars{"REDIS_URL": "unix://"}, "REDIS_URL must name a socket as unix:///"},
		"a password beside a URL":        {vars{"REDIS_URL": "redis://x:1", "REDIS_PASSWORD": "p"}, "REDIS_PASSWORD is not the password of REDIS_URL: write it there"},
		"a password beside another":      {vars{"REDIS_URL": "redis://:q@x:1", "REDIS_PASSWORD": "p"}, "REDIS_PASSWORD is not the password of REDIS_URL"},
		"a user beside a URL":            {vars{"REDIS_URL": "redis://:q@x:1", "REDIS_USERNAME": "me"}, "REDIS_USERNAME goes with REDIS_AUTH=entra"},
		"a user beside another":          {vars{"REDIS_URL": "redis://you:q@x:1", "REDIS_USERNAME": "me"}, "REDIS_USERNAME goes with REDIS_AUTH=entra"},
		"Azure in the clear":             {vars{"REDIS_URL": "redis://" + azure + ":6379"}, "REDIS_URL must begin with rediss://"},
		"Azure in other letters":         {vars{"REDIS_URL": "redis://" + strings.ToUpper(azure) + ":6379"}, "REDIS_URL must begin with rediss://"},
		"Azure with a dot at the end":    {vars{"REDIS_URL": "redis://" + azure + ".:6379"}, "REDIS_URL must begin with rediss://"},
		"managed in the clear":           {vars{"REDIS_URL": "redis://chat.westeurope.redis.azure.net:10000"}, "REDIS_URL must begin with rediss://"},
		"enterprise in the clear":        {vars{"REDIS_URL": "redis://chat.westeurope.redisenterprise.cache.azure.net:10000"}, "REDIS_URL must begin with rediss://"},
		"a private link in the clear":    {vars{"REDIS_URL": "redis://chat.privatelink.redis.azure.net:10000"}, "REDIS_URL must begin with rediss://"},
		"a government in the clear":      {vars{"REDIS_URL": "redis://chat.redis.cache.usgovcloudapi.net:6379"}, "REDIS_URL must begin with rediss://"},
		"its managed one":                {vars{"REDIS_URL": "redis://chat.usgovvirginia.redis.azure.us:10000"}, "REDIS_URL must begin with rediss://"},
		"China in the clear":             {vars{"REDIS_URL": "redis://chat.redis.cache.chinacloudapi.cn:6379"}, "REDIS_URL must begin with rediss://"},
		"its managed one too":            {vars{"REDIS_URL": "redis://chat.chinaeast2.redis.azure.cn.:10000"}, "REDIS_URL must begin with rediss://"},
		"Germany in the clear":           {vars{"REDIS_URL": "redis://chat.redis.cache.cloudapi.de:6379"}, "REDIS_URL must begin with rediss://"},
		"a machine of Azure":             {vars{"REDIS_URL": "redis://chat.westeurope.cloudapp.azure.com:6379"}, "REDIS_URL must begin with rediss://"},
		"in Azure in the clear":          {vars{"REDIS_URL": "redis://10.0.0.4:6379", "WEBSITE_INSTANCE_ID": "x"}, "REDIS_URL must begin with rediss:// in Azure"},
		"on Flex in the clear":           {vars{"REDIS_URL": "redis://10.0.0.4:6379", "CONTAINER_NAME": "x"}, "REDIS_URL must begin with rediss:// in Azure"},
		"on loopback in Azure":           {vars{"REDIS_URL": "redis://127.0.0.1:6379", "WEBSITE_INSTANCE_ID": "x"}, "REDIS_URL must begin with rediss:// in Azure"},
		"Azure without a port":           {vars{"REDIS_URL": "rediss://" + azure}, "REDIS_URL must name the port"},
		"two Redis":                      {vars{"REDIS_URL": "redis://x:1", "REDIS_HOSTNAME": "y", "REDIS_PASSWORD": "p"}, "REDIS_URL and REDIS_HOSTNAME are both set"},
		"host without password":          {vars{"REDIS_HOSTNAME": "y"}, "REDIS_PASSWORD must be set"},
		"host with a port":               {vars{"REDIS_HOSTNAME": "y:6380", "REDIS_PASSWORD": "p"}, "REDIS_HOSTNAME must be a host name alone"},
		"host with a user":               {vars{"REDIS_HOSTNAME": "y", "REDIS_PASSWORD": "p", "REDIS_USERNAME": "me"}, "REDIS_USERNAME goes with REDIS_AUTH=entra"},
		"cluster":                        {vars{"REDIS_CLUSTER": "yes"}, "REDIS_CLUSTER must be true or false"},
		"a database of a cluster":        {vars{"REDIS_URL": "redis://x:1/2", "REDIS_CLUSTER": "true"}, "REDIS_URL names a database, but a cluster has only"},
		"unknown Redis auth":             {vars{"REDIS_AUTH": "key"}, "REDIS_AUTH must be password or entra"},
		"entra without a Redis":          {vars{"REDIS_AUTH": "entra"}, "REDIS_AUTH is set, but neither"},
		"a user without a Redis":         {vars{"REDIS_USERNAME": "object"}, "REDIS_USERNAME is set, but neither"},
		"a password without a Redis":     {vars{"REDIS_PASSWORD": "p"}, "REDIS_PASSWORD is set, but neither REDIS_HOSTNAME nor REDIS_URL names a Redis"},
		"a cluster without a Redis":      {vars{"REDIS_CLUSTER": "true"}, "REDIS_CLUSTER is set, but neither"},
		"Sentinel without a Redis":       {vars{"REDIS_SENTINEL_MASTER": "chat"}, "REDIS_SENTINEL_MASTER is set, but neither"},
		"entra with a password":          {vars{"REDIS_AUTH": "entra", "REDIS_HOSTNAME": "x", "REDIS_PASSWORD": "p"}, "REDIS_AUTH is entra, but REDIS_PASSWORD or REDIS_URL holds a password"},
		"entra with one in the URL":      {vars{"REDIS_AUTH": "entra", "REDIS_URL": "rediss://:p@x:6380"}, "REDIS_AUTH is entra, but REDIS_PASSWORD or REDIS_URL holds a password"},
		"entra with one beside the URL":  {vars{"REDIS_AUTH": "entra", "REDIS_URL": "rediss://x:6380", "REDIS_PASSWORD": "p"}, "REDIS_PASSWORD is not the password of REDIS_URL"},
		"entra with a user in the URL":   {vars{"REDIS_AUTH": "entra", "REDIS_URL": "rediss://me@x:6380"}, "REDIS_USERNAME is not the user of REDIS_URL"},
		"entra in the clear":             {vars{"REDIS_AUTH": "entra", "REDIS_URL": "redis://x:6379"}, "REDIS_AUTH is entra, which needs TLS"},
		"entra at a socket":              {vars{"REDIS_AUTH": "entra", "REDIS_URL": "unix:///x"}, "REDIS_AUTH is entra, which needs TLS"},
		"entra and Sentinel":             {vars{"REDIS_AUTH": "entra", "REDIS_URL": "rediss://x:1", "REDIS_SENTINEL_MASTER": "chat"}, "REDIS_AUTH is entra, but REDIS_SENTINEL_MASTER is set"},
		"Sentinel without a URL":         {vars{"REDIS_HOSTNAME": "x", "REDIS_PASSWORD": "p", "REDIS_SENTINEL_MASTER": "chat"}, "REDIS_SENTINEL_MASTER needs a REDIS_URL"},
		"Sentinel and cluster":           {vars{"REDIS_SENTINEL_MASTER": "chat", "REDIS_CLUSTER": "true", "REDIS_URL": "redis://127.0.0.1"}, "REDIS_SENTINEL_MASTER needs"},
		"unknown store":                  {vars{"STORE": "disk"}, "STORE must be memory"},
		"memory beside a Redis":          {vars{"STORE": "memory", "REDIS_URL": "redis://x:1"}, "STORE is memory, but"},
		"memory in Azure":                {vars{"WEBSITE_INSTANCE_ID": "x"}, "REDIS_URL is not set, nor is REDIS_HOSTNAME"},
		"memory in a container":          {vars{"CONTAINER_NAME": "x"}, "REDIS_URL is not set, nor is REDIS_HOSTNAME"},

		"TTL as a duration":   {vars{"REDIS_TTL": "30s"}, "REDIS_TTL must be a whole number from 1 to 315360000"},
		"timeout as a number": {vars{"REDIS_TIMEOUT": "1"}, "REDIS_TIMEOUT must be a duration from 50ms to 60s, such as 10s or 250ms"},
		"unknown agent":       {vars{"AGENT": "parrot"}, "AGENT must be echo"},
		"unknown log level":   {vars{"LOG_LEVEL": "all"}, "LOG_LEVEL must be info or debug"},
		"a host by name":      {vars{"HOST": "chat.example.com"}, "HOST must be an IP address"},
		"a host with a port":  {vars{"HOST": "127.0.0.1:8080"}, "HOST must be an IP address"},

		"a collector without a scheme":    {vars{"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT must be an http or https URL"},
		"a collector with a user":         {vars{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://me:s3cret@x/v1/traces"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT must be an http or https URL"},
		"a collector for metrics by gRPC": {vars{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "grpc://x"}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT must be an http or https URL"},
		"a secret in the clear":           {vars{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318", "OTEL_EXPORTER_OTLP_HEADERS": "key=s3cret"}, "OTEL_EXPORTER_OTLP_ENDPOINT must be an https URL"},
		"headers that are none":           {vars{"OTEL_EXPORTER_OTLP_HEADERS": "s3cret"}, "OTEL_EXPORTER_OTLP_HEADERS must be name=value pairs"},
		"headers that break lines":        {vars{"OTEL_EXPORTER_OTLP_HEADERS": "key=s3cret%0d%0ax"}, "OTEL_EXPORTER_OTLP_HEADERS must hold names and values"},
		"another protocol":                {vars{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL must be http/json"},
		"another sampler":                 {vars{"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "OTEL_TRACES_SAMPLER must be always_on or"},
		"a share as a percentage":         {vars{"OTEL_TRACES_SAMPLER_ARG": "10"}, "OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1"},
		"attributes that are none":        {vars{"OTEL_RESOURCE_ATTRIBUTES": "a=%zz"}, "OTEL_RESOURCE_ATTRIBUTES must be name=value pairs"},
		"an interval with a unit":         {vars{"OTEL_METRIC_EXPORT_INTERVAL": "60s"}, "OTEL_METRIC_EXPORT_INTERVAL must be a whole number from 1000 to 3600000"},
		"a doubtful switch":               {vars{"OTEL_SDK_DISABLED": "yes"}, "OTEL_SDK_DISABLED must be true or false"},

		"longer than Azure waits":       {vars{"AGENT_TIMEOUT": "220s"}, "AGENT_TIMEOUT and TURN_WAIT must be at most 225s together"},
		"longer than a call":            {vars{"CALL_MAX": "100s"}, "AGENT_TIMEOUT and TURN_WAIT must be at most 100s together, which is CALL_MAX"},
		"a turn longer than its room":   {vars{"AGENT_TIMEOUT": "61s", "REDIS_TTL": "60"}, "AGENT_TIMEOUT must be at most REDIS_TTL"},
		"keys longer than a talk":       {vars{"IDEMPOTENCY_TTL": "61", "REDIS_TTL": "60"}, "IDEMPOTENCY_TTL must be at most REDIS_TTL"},
		"a lease of less than 3 calls":  {vars{"TURN_LEASE": "2999ms"}, "TURN_LEASE must be at least 3 × REDIS_TIMEOUT"},
		"a lease of less than 3 longer": {vars{"TURN_LEASE": "30s", "REDIS_TIMEOUT": "10001ms"}, "TURN_LEASE must be at least 3 × REDIS_TIMEOUT"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readConfig(settings(row.env))
			require.ErrorContains(t, err, row.want)
			require.NotContains(t, err.Error(), "s3cret")
		})
	}
	_, err := readConfig(func(string) string { return "" })
	for _, name := range []string{"AUTH_ISSUER", "AUTH_AUDIENCE", "AUTH_JWKS_URL"} {
		require.ErrorContains(t, err, name, "all that is wrong is named at once")
	}
}

// What follows from one mistake is not told as others.
func TestOneMistakeIsOneError(t *testing.T) {
	for _, env := range []vars{
		{"REDIS_URL": "rediss://x:1?skip_verify=true", "REDIS_AUTH": "entra"},
		{"REDIS_URL": "rediss://x:1", "REDIS_HOSTNAME": "x", "REDIS_AUTH": "entra"},
		{"REDIS_TTL": "0", "IDEMPOTENCY_TTL": "3600"},
		{"AUTH_TENANT_ID": "contoso.com", "AUTH_ISSUER": "", "AUTH_JWKS_URL": ""},
		{"STORE": "memory", "REDIS_URL": "redis://x:1", "REDIS_AUTH": "entra"},
	} {
		_, err := readConfig(settings(env))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestGoodSettingsAreTaken(t *testing.T) {
	const tenant = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	keys := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(keys, nil, 0o600))
	link := keys + ".link"
	require.NoError(t, os.Symlink(keys, link))
	for name, env := range map[string]vars{
		"a tenant":             {"AUTH_TENANT_ID": tenant, "AUTH_ISSUER": "", "AUTH_JWKS_URL": ""},
		"tenants":              {"AUTH_ISSUER": "https://x/{tenantid}/v2.0", "ALLOWED_TENANT_IDS": tenant},
		"a version 1 issuer":   {"AUTH_ISSUER": "https://sts.windows.net/" + tenant + "/"},
		"keys in a file":       {"AUTH_JWKS_URL": keys},
		"keys behind a link":   {"AUTH_JWKS_URL": link}, // as mounted secrets are
		"keys on loopback":     {"AUTH_JWKS_URL": "http://[::1]:7072/keys"},
		"origins":              {"CORS_ORIGINS": "https://a.example, http://localhost:3000,http://[::1]:8080,capacitor://localhost"},
		"a password of a URL":  {"REDIS_URL": "redis://:p@127.0.0.1:1", "REDIS_PASSWORD": "p"},
		"a user of a URL":      {"REDIS_URL": "redis://me:p@127.0.0.1:1", "REDIS_USERNAME": "me"},
		"an identity in a URL": {"REDIS_URL": "rediss://chat.redis.azure.net:10000", "REDIS_AUTH": "entra", "REDIS_USERNAME": "object"},
		"an identity twice":    {"REDIS_URL": "rediss://me@chat.redis.azure.net:10000", "REDIS_AUTH": "entra", "REDIS_USERNAME": "me"},
		"loopback in a container of somebody else's": {"REDIS_URL": "redis://127.0.0.1:6379", "CONTAINER_NAME": "x"},
		"a socket in Azure":                          {"REDIS_URL": "unix:///tmp/x.sock", "WEBSITE_INSTANCE_ID": "x"},
		"three calls a lease":                        {"TURN_LEASE": "30s", "REDIS_TIMEOUT": "10s"},
		"a turn as its room":                         {"AGENT_TIMEOUT": "60s", "IDEMPOTENCY_TTL": "60", "REDIS_TTL": "60"},
		"a host that is here":                        {"HOST": "localhost"},
	} {
		_, err := readConfig(settings(env))
		require.NoError(t, err, name)
	}
}

func TestDefaultsGiveWay(t *testing.T) {
	for name, row := range map[string]struct {
		env  vars
		want chat.Settings
	}{
		"nothing is given":    {nil, chat.Settings{AgentTimeout: 200 * time.Second, TurnLease: 30 * time.Second, IdempotencyTTL: 24 * time.Hour}},
		"a short TTL":         {vars{"REDIS_TTL": "1"}, chat.Settings{AgentTimeout: time.Second, TurnLease: 30 * time.Second, IdempotencyTTL: time.Second}},
		"a TTL of some hours": {vars{"REDIS_TTL": "7200"}, chat.Settings{AgentTimeout: 200 * time.Second, TurnLease: 30 * time.Second, IdempotencyTTL: 2 * time.Hour}},
		"a slow Redis":        {vars{"REDIS_TIMEOUT": "1m"}, chat.Settings{AgentTimeout: 200 * time.Second, TurnLease: 3 * time.Minute, IdempotencyTTL: 24 * time.Hour}},
	} {
		c, err := readConfig(settings(row.env))
		require.NoError(t, err, name)
		row.want.Context, row.want.ContextBytes, row.want.TurnWait = 50, 256<<10, 10*time.Second
		require.Equal(t, row.want, c.chat, name)
	}
}

func TestZeroIsNone(t *testing.T) {
	c, err := readConfig(settings(vars{"AGENT_CONTEXT_MESSAGES": "0", "AGENT_CONTEXT_BYTES": "0", "TURN_WAIT": "0s", "SHUTDOWN_GRACE": "0", "REDIS_WAIT_REPLICAS": "0"}))
	require.NoError(t, err)
	require.Zero(t, c.chat.Context)
	require.Zero(t, c.chat.ContextBytes)
	require.Zero(t, c.chat.TurnWait)
	require.Zero(t, c.grace)
	require.Zero(t, c.replicas)
}

func TestEachLimitIsRead(t *testing.T) {
	c, err := readConfig(settings(vars{
		"REDIS_TTL": "3600", "MAX_MESSAGES_PER_CONVERSATION": "2", "MAX_CONVERSATIONS_PER_USER": "3", "MAX_IDEMPOTENCY_RECORDS": "100",
		"MAX_BYTES_PER_USER": "17179869184", "MAX_TURNS_PER_MINUTE": "4",
	}))
	require.NoError(t, err)
	require.Equal(t, chat.Limits{
		TTL: time.Hour, Messages: 2, Conversations: 3, Bytes: 16 << 30, TurnsPerMinute: 4, IdempotencyRecords: 100,
	}, c.limits)
	c, err = readConfig(settings(nil))
	require.NoError(t, err)
	require.Equal(t, chat.Limits{
		TTL: 30 * 24 * time.Hour, Messages: 10_000, Conversations: 10_000, Bytes: 32 << 20, TurnsPerMinute: 300, IdempotencyRecords: 10_000,
	}, c.limits)
}

func TestAnErrorNeverQuotesThePassword(t *testing.T) {
	for _, url := range []string{
		"redis://:hunter2%@x:1", "http://:hunter2@x", "redis://:hunter2@chat.redis.azure.net:10000", "redis://:hunter2@x:1/db",
		"redis://:hunter?two@x:1", "redis://:1?hunter&two@x:1", "redis://:1?hunter=two@x:1", "redis://:1/hunter@x", "redis://:1#hunter@x",
		"redis://:hunter@x:1?skip_verify=hunter", "redis:hunter", "unix://:hunter@x",
	} {
		_, err := readConfig(settings(vars{"REDIS_URL": url, "REDIS_PASSWORD": "hunter3", "REDIS_USERNAME": "hunter4"}))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "hunter", url)
	}
}

func TestMemoryOnlyWhereNothingNamesARedis(t *testing.T) {
	for name, row := range map[string]struct {
		env    vars
		memory bool
	}{
		"nothing":         {nil, true},
		"meant in Azure":  {vars{"STORE": "memory", "WEBSITE_INSTANCE_ID": "x", "CONTAINER_NAME": "y"}, true},
		"a URL":           {vars{"REDIS_URL": "redis://x:1"}, false},
		"a URL with TLS":  {vars{"REDIS_URL": "rediss://:p%2F@chat.redis.azure.net:10000"}, false},
		"a host in Azure": {vars{"REDIS_HOSTNAME": "x", "REDIS_PASSWORD": "p", "WEBSITE_INSTANCE_ID": "x"}, false},
		"an identity":     {vars{"REDIS_HOSTNAME": "x", "REDIS_AUTH": "entra"}, false},
		"a socket":        {vars{"REDIS_URL": "unix:///tmp/x.sock"}, false},
	} {
		c, err := readConfig(settings(row.env))
		require.NoError(t, err, name)
		require.Equal(t, row.memory, c.redis == nil, name)
	}
}

func TestTheURLSaysWhereRedisIs(t *testing.T) {
	for url, want := range map[string]store.Connection{
		"redis://x":                      {Network: "tcp", Addr: "x:6379"},
		"redis://x/":                     {Network: "tcp", Addr: "x:6379"},
		"redis://[::1]:1":                {Network: "tcp", Addr: "[::1]:1"},
		"redis://me:p%2F%3F%23%2B@x:1/2": {Network: "tcp", Addr: "x:1", Username: "me", Password: "p/?#+", DB: 2},
		"redis://:p=+@x:1":               {Network: "tcp", Addr: "x:1", Password: "p=+"},
		"unix:///tmp/x.sock":             {Network: "unix", Addr: "/tmp/x.sock"},
		"unix://me:p@/tmp/x.sock":        {Network: "unix", Addr: "/tmp/x.sock", Username: "me", Password: "p"},
		"rediss://:p@chat.redis.azure.net.:10000": {
			Network: "tcp", Addr: "chat.redis.azure.net.:10000", Password: "p", TLS: tlsTo("chat.redis.azure.net"),
		},
	} {
		c, err := readConfig(settings(vars{"REDIS_URL": url}))
		require.NoError(t, err, url)
		want.DialTimeout, want.CommandTimeout, want.PoolTimeout, want.PoolSize = 5*time.Second, time.Second, time.Second, 20
		want.Lifetime = 30 * time.Minute
		require.Equal(t, want, *c.redis, url)
	}
}

func TestAURLAndAHostNameAreOneWay(t *testing.T) {
	const host = "x.redis.cache.windows.net"
	byURL, err := readConfig(settings(vars{"REDIS_URL": "rediss://:p@" + host + ":6380"}))
	require.NoError(t, err)
	byName, err := readConfig(settings(vars{"REDIS_HOSTNAME": host, "REDIS_PASSWORD": "p"}))
	require.NoError(t, err)
	require.Equal(t, byName.redis, byURL.redis)
}

func TestARedisInTheClearWarns(t *testing.T) {
	for url, warns := range map[string]bool{
		"redis://redis:6379": true, "redis://10.0.0.4:6379": true, "redis://localhost.example:1": true,
		"redis://localhost": false, "redis://127.0.0.1:1": false, "redis://[::1]:1": false, "rediss://redis:6379": false, "unix:///tmp/x.sock": false,
	} {
		c, err := readConfig(settings(vars{"REDIS_URL": url}))
		require.NoError(t, err, url)
		require.Equal(t, warns, len(c.warnings) == 1 && strings.Contains(c.warnings[0], "in the clear"), url)
	}
}

func TestWhereItListens(t *testing.T) {
	for name, row := range map[string]struct {
		env  vars
		want string
	}{
		"nothing is given":         {nil, "127.0.0.1:8080"},
		"another port":             {vars{"PORT": "9090"}, "127.0.0.1:9090"},
		"every address":            {vars{"HOST": "0.0.0.0", "PORT": "80"}, "0.0.0.0:80"},
		"IPv6":                     {vars{"HOST": "::1"}, "[::1]:8080"},
		"the host's port":          {vars{"FUNCTIONS_CUSTOMHANDLER_PORT": "7071"}, "127.0.0.1:7071"},
		"the host's port wins":     {vars{"FUNCTIONS_CUSTOMHANDLER_PORT": "7071", "PORT": "9090"}, "127.0.0.1:7071"},
		"the host calls IPv4":      {vars{"FUNCTIONS_CUSTOMHANDLER_PORT": "7071", "HOST": "::1"}, "127.0.0.1:7071"},
		"a HOST of something else": {vars{"FUNCTIONS_CUSTOMHANDLER_PORT": "7071", "HOST": "x86_64-linux-gnu"}, "127.0.0.1:7071"},
	} {
		c, err := readConfig(settings(row.env))
		require.NoError(t, err, name)
		require.Equal(t, row.want, c.address, name)
		require.Equal(t, row.env["FUNCTIONS_CUSTOMHANDLER_PORT"] != "", c.underHost, name)
	}
}

func TestTelemetryGoesWhereTheSettingsSay(t *testing.T) {
	for name, row := range map[string]struct {
		env             vars
		traces, metrics string
	}{
		"nothing":        {vars{}, "", ""},
		"one collector":  {vars{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://x/otlp/"}, "https://x/otlp/v1/traces", "https://x/otlp/v1/metrics"},
		"traces alone":   {vars{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x/t"}, "http://x/t", ""},
		"another's part": {vars{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://y/m"}, "http://x/v1/traces", "http://y/m"},
		"turned off":     {vars{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, "", ""},
	} {
		c, err := readConfig(settings(row.env))
		require.NoError(t, err, name)
		require.Equal(t, row.traces, c.telemetry.Traces, name)
		require.Equal(t, row.metrics, c.telemetry.Metrics, name)
		require.Equal(t, row.traces+row.metrics != "", c.telemetry.IsOn(), name)
	}
	for sampler, description := range map[string]string{
		"always_on": "AlwaysOnSampler", "always_off": "AlwaysOffSampler", "traceidratio": "TraceIDRatioBased{0.1}",
		"parentbased_traceidratio": "ParentBased{root:TraceIDRatioBased{0.1}", "parentbased_always_off": "ParentBased{root:AlwaysOffSampler", "": "ParentBased{root:AlwaysOnSampler",
	} {
		c, err := readConfig(settings(vars{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0.1"}))
		require.NoError(t, err)
		require.Contains(t, c.telemetry.Sampler.Description(), description)
	}
	c, err := readConfig(settings(vars{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "https://x", "OTEL_EXPORTER_OTLP_HEADERS": "a=1, b=two%20words", "OTEL_RESOURCE_ATTRIBUTES": "service.name=mine,x=y",
	}))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "1", "b": "two words"}, c.telemetry.Headers)
	require.Contains(t, c.telemetry.Attributes, attribute.String("service.name", "mine"))
	require.Contains(t, c.telemetry.Attributes, attribute.String("x", "y"))
}
