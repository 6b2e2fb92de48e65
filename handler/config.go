package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"chatkeep/handler/api"
	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/redis/go-redis/v9"
)

// config is everything that can be set.
type config struct {
	port      int
	logLevel  slog.Level
	underHost bool // the Functions host started us, and decides about a restart by the exit code
	auth      auth.Config
	edge      api.Edge
	redis     *store.Connection // nil: in memory
	entra     *entra            // nil: Redis knows us by a password, or not at all
	timeout   time.Duration     // of one call of the store
	replicas  int               // that must have a write before it is acknowledged
	limits    chat.Limits
	chat      chat.Settings
	grace     time.Duration // for running turns at the end
}

// longestRequest leaves the store a few seconds before Azure's front end gives up.
const longestRequest = 225 * time.Second

// readConfig reads all settings. Its error names every variable that is wrong.
func readConfig(getenv func(string) string) (config, error) {
	env := &environment{getenv: getenv}
	c := config{
		port:      env.whole("FUNCTIONS_CUSTOMHANDLER_PORT", 8080, 1, 65535),
		underHost: env.text("FUNCTIONS_CUSTOMHANDLER_PORT", "") != "",
		logLevel:  env.logLevel(),
		auth:      env.auth(),
		edge:      env.edge(),
		timeout:   env.duration("REDIS_TIMEOUT", time.Second, 50*time.Millisecond, time.Minute),
		limits: chat.Limits{
			TTL:           time.Duration(env.whole("REDIS_TTL", 2_592_000, 1, 315_360_000)) * time.Second,
			Messages:      int64(env.whole("MAX_MESSAGES_PER_CONVERSATION", 10_000, 2, 1_000_000)),
			Conversations: int64(env.whole("MAX_CONVERSATIONS_PER_USER", 10_000, 1, 1_000_000)),
		},
		chat: chat.Settings{
			Context:      env.whole("AGENT_CONTEXT_MESSAGES", 50, 0, 1000),
			AgentTimeout: env.duration("AGENT_TIMEOUT", 200*time.Second, 10*time.Millisecond, longestRequest),
			TurnWait:     env.duration("TURN_WAIT", 10*time.Second, 0, longestRequest),
			TurnLease:    env.duration("TURN_LEASE", 30*time.Second, time.Second, time.Hour),

			IdempotencyTTL: time.Duration(env.whole("IDEMPOTENCY_TTL", 86_400, 60, 31_536_000)) * time.Second,
		},
		grace: env.duration("SHUTDOWN_GRACE", 10*time.Second, 0, time.Hour),
	}
	c.replicas = env.whole("REDIS_WAIT_REPLICAS", 0, 0, 10)
	c.redis = env.redis()
	c.entra = env.entra(c.redis)
	if c.chat.AgentTimeout+c.chat.TurnWait > longestRequest {
		env.refuse("AGENT_TIMEOUT", fmt.Sprintf("and TURN_WAIT must be at most %v together: Azure cuts a request after 230s", longestRequest))
	}
	if agent := env.text("AGENT", "echo"); agent != "echo" {
		env.refuse("AGENT", "must be echo")
	}
	return c, errors.Join(env.errs...)
}

// logLevel reads how much is logged; debug adds why a caller was refused.
func (e *environment) logLevel() slog.Level {
	switch e.text("LOG_LEVEL", "info") {
	case "debug":
		return slog.LevelDebug
	case "info":
	default:
		e.refuse("LOG_LEVEL", "must be info or debug")
	}
	return slog.LevelInfo
}

// redis reads how to reach Redis; nil means memory, which must be meant where it would lose people's data.
func (e *environment) redis() *store.Connection {
	rawURL, host := e.text("REDIS_URL", ""), e.text("REDIS_HOSTNAME", "")
	port := e.whole("REDIS_PORT", 6380, 1, 65535)
	password := e.text("REDIS_PASSWORD", "")
	inAzure := e.text("WEBSITE_INSTANCE_ID", "") != "" || e.text("CONTAINER_NAME", "") != ""
	memory := e.text("STORE", "")
	c := &store.Connection{
		Cluster:        e.yes("REDIS_CLUSTER"),
		Sentinel:       e.text("REDIS_SENTINEL_MASTER", ""),
		DialTimeout:    e.duration("REDIS_DIAL_TIMEOUT", 5*time.Second, 10*time.Millisecond, time.Minute),
		CommandTimeout: e.duration("REDIS_COMMAND_TIMEOUT", time.Second, 10*time.Millisecond, time.Minute),
		PoolTimeout:    e.duration("REDIS_POOL_TIMEOUT", time.Second, 10*time.Millisecond, time.Minute),
		PoolSize:       e.whole("REDIS_POOL_SIZE", 20, 1, 10_000),
		Lifetime:       30 * time.Minute, // so that connections spread again after a fail-over
	}
	if memory != "" && memory != "memory" {
		e.refuse("STORE", "must be memory or not set")
	}
	switch {
	case rawURL != "" && host != "":
		e.refuse("REDIS_URL", "and REDIS_HOSTNAME are both set: keep one")
	case memory != "" && (rawURL != "" || host != ""):
		e.refuse("STORE", "is memory, but REDIS_URL or REDIS_HOSTNAME names a Redis: keep one")
	case c.Sentinel != "" && (c.Cluster || rawURL == ""):
		e.refuse("REDIS_SENTINEL_MASTER", "needs a REDIS_URL that names a Sentinel, and no REDIS_CLUSTER")
	case rawURL != "":
		e.redisURL(rawURL, c)
	case host != "":
		c.Network, c.Addr = "tcp", net.JoinHostPort(host, strconv.Itoa(port))
		c.Password = password
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
		if strings.ContainsAny(host, ":/@ ") {
			e.refuse("REDIS_HOSTNAME", "must be a host name alone, without scheme or port")
		}
		if password == "" && e.text("REDIS_AUTH", "") != "entra" {
			e.refuse("REDIS_PASSWORD", "must be set with REDIS_HOSTNAME, or REDIS_AUTH=entra")
		}
	case inAzure && memory == "":
		e.refuse("REDIS_URL", "is not set, nor is REDIS_HOSTNAME: in Azure conversations would be lost on restart. STORE=memory says that this is meant")
	default:
		return nil
	}
	return c
}

// entra is how Redis knows us by a token of Entra ID.
type entra struct {
	username string // empty: the token's object id
	clientID string // of a user-assigned identity; empty: the system-assigned one
	inAzure  bool   // there is a managed identity; elsewhere the Azure CLI's login is used
}

// entra reads how Redis knows us; nil means by its password.
func (e *environment) entra(c *store.Connection) *entra {
	id := &entra{
		username: e.text("REDIS_USERNAME", ""), clientID: e.text("AZURE_CLIENT_ID", ""), inAzure: e.text("IDENTITY_ENDPOINT", "") != "",
	}
	switch e.text("REDIS_AUTH", "password") {
	case "password":
		if id.username != "" {
			e.refuse("REDIS_USERNAME", "goes with REDIS_AUTH=entra: a password's user name is part of REDIS_URL")
		}
		return nil
	case "entra":
	default:
		e.refuse("REDIS_AUTH", "must be password or entra")
		return nil
	}
	switch {
	case c == nil:
		e.refuse("REDIS_AUTH", "is entra, but neither REDIS_HOSTNAME nor REDIS_URL names a Redis")
		return nil
	case c.Password != "":
		e.refuse("REDIS_AUTH", "is entra, but REDIS_PASSWORD or REDIS_URL holds a password: remove it")
	case c.TLS == nil:
		e.refuse("REDIS_AUTH", "is entra, which needs TLS: use REDIS_HOSTNAME, or rediss:// in REDIS_URL")
	}
	c.Lifetime = store.EntraLifetime
	return id
}

// redisURL reads redis://, rediss:// or unix://. Its messages never quote the URL, which holds a password.
func (e *environment) redisURL(raw string, c *store.Connection) {
	options, err := redis.ParseURL(raw)
	u, urlErr := url.Parse(raw)
	if err != nil || urlErr != nil {
		e.refuse("REDIS_URL", "must look like rediss://:password@host:6380, with / + = in the password percent-encoded")
		return
	}
	azure := slices.ContainsFunc(azureRedis, func(suffix string) bool {
		return strings.HasSuffix(strings.ToLower(u.Hostname()), suffix)
	})
	if azure && u.Scheme != "rediss" {
		e.refuse("REDIS_URL", "must begin with rediss:// for a Redis in Azure, or passwords and messages travel in the clear")
	}
	if azure && u.Port() == "" {
		e.refuse("REDIS_URL", "must name the port: 6380 for Azure Cache for Redis, 10000 for Azure Managed Redis")
	}
	c.Network, c.Addr, c.DB, c.Username, c.Password = options.Network, options.Addr, options.DB, options.Username, options.Password
	c.TLS = options.TLSConfig
	if c.Cluster && c.DB != 0 {
		e.refuse("REDIS_URL", "names a database, but a cluster has only database 0")
	}
}

// azureRedis are the domains of Azure Cache for Redis and Azure Managed Redis.
var azureRedis = []string{
	".redis.cache.windows.net", ".redisenterprise.cache.azure.net", ".redis.azure.net",
	".redis.cache.usgovcloudapi.net", ".redis.cache.chinacloudapi.cn",
}

// edge reads what stands between callers and us.
func (e *environment) edge() api.Edge {
	edge := api.Edge{FrontDoorID: e.text("FRONT_DOOR_ID", ""), Origins: e.list("CORS_ORIGINS")}
	if edge.FrontDoorID != "" && !guid.MatchString(edge.FrontDoorID) {
		e.refuse("FRONT_DOOR_ID", "must be the profile's frontDoorId, a GUID in lower case")
	}
	for _, origin := range edge.Origins {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || u.Scheme+"://"+u.Host != origin {
			e.refuse("CORS_ORIGINS", "must be exact origins, such as https://chat.example.com, without * or a path")
		}
	}
	return edge
}

var (
	guid  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	scope = regexp.MustCompile(`^[!#-\[\]-~]+$`) // RFC 6749, section 3.3
)

// auth reads whose tokens are accepted. There is no setting that accepts others.
func (e *environment) auth() auth.Config {
	c := auth.Config{
		Issuer: e.text("AUTH_ISSUER", ""), Audiences: e.list("AUTH_AUDIENCE"), KeysURL: e.text("AUTH_JWKS_URL", ""),
		Tenants: e.list("ALLOWED_TENANT_IDS"), Scope: e.text("AUTH_REQUIRED_SCOPE", "access_as_user"),
		Clients: e.list("ALLOWED_CLIENT_IDS"),
	}
	if tenant := e.text("AUTH_TENANT_ID", ""); tenant != "" {
		switch {
		case !guid.MatchString(tenant):
			e.refuse("AUTH_TENANT_ID", "must be a GUID in lower case")
		case c.Issuer != "" || c.KeysURL != "" || c.Tenants != nil:
			e.refuse("AUTH_TENANT_ID", "stands for AUTH_ISSUER, AUTH_JWKS_URL and ALLOWED_TENANT_IDS: do not set those too")
		}
		c.Issuer = "https://login.microsoftonline.com/" + tenant + "/v2.0"
		c.KeysURL = "https://login.microsoftonline.com/" + tenant + "/discovery/v2.0/keys"
		c.Tenants = []string{tenant}
	}
	if c.Issuer == "" {
		e.refuse("AUTH_ISSUER", "or AUTH_TENANT_ID must be set: it says whose tokens are accepted")
	}
	if len(c.Audiences) == 0 {
		e.refuse("AUTH_AUDIENCE", "must be set: it is the client id of this API's app registration")
	}
	if !goodKeysURL(c.KeysURL) {
		e.refuse("AUTH_JWKS_URL", "must be an https URL, an http URL on loopback, or a file path")
	}
	if strings.Contains(c.Issuer, "{tenantid}") && len(c.Tenants) == 0 {
		e.refuse("ALLOWED_TENANT_IDS", "must name the tenants that AUTH_ISSUER's {tenantid} may stand for")
	}
	if slices.ContainsFunc(c.Tenants, func(tenant string) bool { return !guid.MatchString(tenant) }) {
		e.refuse("ALLOWED_TENANT_IDS", "must be GUIDs in lower case")
	}
	if !scope.MatchString(c.Scope) {
		e.refuse("AUTH_REQUIRED_SCOPE", "must be one scope, without quotes and spaces")
	}
	return c
}

func goodKeysURL(raw string) bool {
	if raw != "" && !strings.Contains(raw, "://") {
		return true // a file
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	return u.Scheme == "https" || u.Scheme == "http" && loopback
}

// environment reads variables and gathers what is wrong with them. An empty variable counts as not set.
type environment struct {
	getenv func(string) string
	errs   []error
}

func (e *environment) refuse(name, why string) {
	e.errs = append(e.errs, fmt.Errorf("%s %s", name, why))
}

func (e *environment) text(name, absent string) string {
	if value := strings.TrimSpace(e.getenv(name)); value != "" {
		return value
	}
	return absent
}

// list reads values separated by commas.
func (e *environment) list(name string) []string {
	var all []string
	for value := range strings.SplitSeq(e.getenv(name), ",") {
		if value = strings.TrimSpace(value); value != "" {
			all = append(all, value)
		}
	}
	return all
}

func (e *environment) yes(name string) bool {
	switch e.text(name, "false") {
	case "true":
		return true
	case "false":
	default:
		e.refuse(name, "must be true or false")
	}
	return false
}

func (e *environment) whole(name string, absent, least, most int) int {
	text := e.text(name, "")
	if text == "" {
		return absent
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		e.refuse(name, fmt.Sprintf("must be a whole number from %d to %d", least, most))
	}
	return n
}

func (e *environment) duration(name string, absent, least, most time.Duration) time.Duration {
	text := e.text(name, "")
	if text == "" {
		return absent
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		e.refuse(name, fmt.Sprintf("must be a duration from %v to %v, such as 10s or 250ms", least, most))
	}
	return d
}
