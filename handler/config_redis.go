package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"chatkeep/handler/store"
)

// entra is how Redis knows us by a token of Entra ID.
type entra struct {
	username string // empty: the token's object id
	clientID string // of a user-assigned identity; empty: the system-assigned one
	inAzure  bool   // there is a managed identity; elsewhere the Azure CLI's login is used
}

// redisNames is what the settings say about which Redis it is.
type redisNames struct {
	url, host, password string
	port                int
	auth                string // password or entra
	store               string // empty or memory
}

// redis reads how to reach Redis and how it knows us.
func (e *environment) redis(c *config) {
	var r store.Connection
	var n redisNames
	id := entra{inAzure: e.text("IDENTITY_ENDPOINT") != ""}
	const least, most = 10 * time.Millisecond, time.Minute
	e.read("Redis",
		setting{
			"REDIS_URL", "",
			"`redis://` or `rediss://user:password@host:port/database`, in Azure only `rediss://`; or `unix://user:password@/path/of/socket`", text(&n.url),
		},
		setting{"REDIS_HOSTNAME", "", "instead of the URL: the host name, always with TLS", text(&n.host)},
		setting{"REDIS_PORT", "6380", "with `REDIS_HOSTNAME`; Azure Managed Redis has 10000", integer(&n.port, 1, 65535)},
		setting{"REDIS_PASSWORD", "", "with `REDIS_HOSTNAME`: the access key", text(&n.password)},
		setting{
			"REDIS_AUTH", "password", "`entra`: no password, but a token of the managed identity, or outside Azure of `az login`",
			oneOf(&n.auth, "password", "entra"),
		},
		setting{"REDIS_USERNAME", "", "with `REDIS_AUTH=entra`: the identity's object id, when it is not to be read from the token", text(&id.username)},
		setting{"AZURE_CLIENT_ID", "", "with `REDIS_AUTH=entra`: the client id of a user-assigned identity", text(&id.clientID)},
		setting{"REDIS_CLUSTER", "false", "true for a cluster (Azure Managed Redis with the OSS policy)", boolean(&r.Cluster)},
		setting{
			"REDIS_SENTINEL_MASTER", "",
			"the master's name, when `REDIS_URL` names a Sentinel; both with or without TLS, the user of the URL is the servers', and not with `REDIS_AUTH=entra`",
			text(&r.Sentinel),
		},
		setting{
			"REDIS_WAIT_REPLICAS", "0", "a write is acknowledged when so many replicas have it, else 503; slower, and without them nothing can be written; 0: none",
			integer(&c.replicas, 0, 10),
		},
		setting{"REDIS_TIMEOUT", "1s", "for one call of the store with its retries; then 503", duration(&c.timeout, 50*time.Millisecond, most)},
		setting{"REDIS_DIAL_TIMEOUT", "5s", "for a connection, which goes on when its caller has given up", duration(&r.DialTimeout, least, most)},
		setting{"REDIS_COMMAND_TIMEOUT", "1s", "for one reply", duration(&r.CommandTimeout, least, most)},
		setting{"REDIS_POOL_TIMEOUT", "1s", "for a free connection", duration(&r.PoolTimeout, least, most)},
		setting{"REDIS_POOL_SIZE", "20", "connections at most, per node of a cluster", integer(&r.PoolSize, 1, 10_000)},
		setting{
			"STORE", "", "`memory` says that losing conversations on restart is meant, where Azure would refuse it",
			oneOf(&n.store, "memory"),
		},
	)
	r.Lifetime = 30 * time.Minute // so that connections spread again after a fail-over

	switch {
	case n.url != "" && n.host != "":
		e.refuse("REDIS_URL", "and REDIS_HOSTNAME are both set: keep one")
	case n.store != "" && (n.url != "" || n.host != ""):
		e.refuse("STORE", "is memory, but REDIS_URL or REDIS_HOSTNAME names a Redis: keep one")
	case n.url != "":
		e.redisURL(n.url, &r)
		if n.password != "" && n.password != r.Password {
			e.refuse("REDIS_PASSWORD", "is not the password of REDIS_URL: write it there, and remove this one")
		}
	case n.host != "":
		r.Network, r.Addr, r.Password, r.TLS = "tcp", net.JoinHostPort(n.host, strconv.Itoa(n.port)), n.password, tlsTo(n.host)
		if strings.ContainsAny(n.host, ":/@?# ") {
			e.refuse("REDIS_HOSTNAME", "must be a host name alone, without scheme or port")
		}
		if n.password == "" && n.auth != "entra" {
			e.refuse("REDIS_PASSWORD", "must be set with REDIS_HOSTNAME, or REDIS_AUTH=entra")
		}
	default:
		e.noRedis(n, id, r)
	}
	if r.Addr == "" { // none is named, or it was refused
		return
	}
	if r.Sentinel != "" && (r.Cluster || n.url == "") {
		e.refuse("REDIS_SENTINEL_MASTER", "needs a REDIS_URL that names a Sentinel, and no REDIS_CLUSTER")
	}
	c.redis = &r
	if n.auth == "entra" {
		e.entra(&r, id)
		c.entra = &id
	} else if id.username != "" && id.username != r.Username {
		e.refuse("REDIS_USERNAME", "goes with REDIS_AUTH=entra: a password's user name is part of REDIS_URL")
	}
}

// noRedis checks that memory is meant where it would lose people's data, and that nothing speaks of a Redis.
func (e *environment) noRedis(n redisNames, id entra, r store.Connection) {
	if e.inAzure() && n.store == "" {
		e.refuse("REDIS_URL", "is not set, nor is REDIS_HOSTNAME: in Azure conversations would be lost on restart. STORE=memory says that this is meant")
	}
	for _, of := range []struct {
		name  string
		isSet bool
	}{
		{"REDIS_PASSWORD", n.password != ""},
		{"REDIS_AUTH", n.auth == "entra"},
		{"REDIS_USERNAME", id.username != ""},
		{"REDIS_CLUSTER", r.Cluster},
		{"REDIS_SENTINEL_MASTER", r.Sentinel != ""},
	} {
		if of.isSet {
			e.refuse(of.name, "is set, but neither REDIS_HOSTNAME nor REDIS_URL names a Redis")
		}
	}
}

func (e *environment) inAzure() bool {
	return e.text("WEBSITE_INSTANCE_ID") != "" || e.text("CONTAINER_NAME") != ""
}

// entra checks that Redis can know us by a token.
func (e *environment) entra(r *store.Connection, id entra) {
	switch {
	case r.Sentinel != "":
		e.refuse("REDIS_AUTH", "is entra, but REDIS_SENTINEL_MASTER is set: no Redis of Azure has a Sentinel. Remove one of them")
	case r.Password != "":
		e.refuse("REDIS_AUTH", "is entra, but REDIS_PASSWORD or REDIS_URL holds a password: remove it")
	case r.Username != "" && r.Username != id.username:
		e.refuse("REDIS_USERNAME", "is not the user of REDIS_URL: with REDIS_AUTH=entra write the user here, and remove that one")
	case r.TLS == nil:
		e.refuse("REDIS_AUTH", "is entra, which needs TLS: use REDIS_HOSTNAME, or rediss:// in REDIS_URL")
	}
	r.Lifetime = store.EntraLifetime
}

// azure are the domains of Azure's services, in all its clouds.
var azure = []string{
	".azure.net", ".azure.com", ".windows.net", ".azure.us", ".usgovcloudapi.net", ".azure.cn", ".chinacloudapi.cn", ".cloudapi.de",
}

var parameter = regexp.MustCompile(`^[a-z_]+$`)

// redisURL reads scheme, user, password, host, port and database. The rest of what a URL may hold is refused, for it would do nothing,
// or more than it seems. No message quotes the URL, which holds a password.
func (e *environment) redisURL(raw string, r *store.Connection) {
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.Fragment != "" {
		e.refuse("REDIS_URL", "must look like rediss://user:password@host:6380, with / ? # + = in the password percent-encoded")
		return
	}
	if u.RawQuery != "" || u.ForceQuery {
		e.refuse("REDIS_URL", "must have no query"+parameters(u)+": what can be set beside the URL has a setting of its own")
		return
	}
	r.Username = u.User.Username()
	r.Password, _ = u.User.Password()
	switch u.Scheme {
	case "redis", "rediss":
		e.redisHost(u, r)
	case "unix":
		r.Network, r.Addr = "unix", u.Path
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			e.refuse("REDIS_URL", "must name a socket as unix:///path/of/socket")
		}
	default:
		e.refuse("REDIS_URL", "must begin with rediss://, redis:// or unix://")
	}
}

// redisHost reads a URL that begins with redis:// or rediss://.
func (e *environment) redisHost(u *url.URL, r *store.Connection) {
	host, port := u.Hostname(), u.Port()
	isAzures := slices.ContainsFunc(azure, func(domain string) bool {
		return strings.HasSuffix(strings.TrimSuffix(strings.ToLower(host), "."), domain)
	})
	switch {
	case u.Scheme == "rediss":
		r.TLS = tlsTo(host)
	case isAzures || e.inAzure() && (!isLoopback(host) || e.text("WEBSITE_INSTANCE_ID") != ""): // CONTAINER_NAME alone is set elsewhere too
		e.refuse("REDIS_URL", "must begin with rediss:// in Azure and for its hosts, or passwords and messages travel in the clear")
	case !isLoopback(host):
		e.warn("REDIS_URL begins with redis://, and its host is not this machine: passwords and messages travel in the clear")
	}
	if isAzures && port == "" {
		e.refuse("REDIS_URL", "must name the port: 6380 for Azure Cache for Redis, 10000 for Azure Managed Redis")
	}
	if port == "" {
		port = "6379"
	}
	if n, err := strconv.Atoi(port); host == "" || err != nil || n < 1 || n > 65535 {
		e.refuse("REDIS_URL", "must name a host, and a port from 1 to 65535")
	}
	r.Network, r.Addr = "tcp", net.JoinHostPort(host, port)
	if database := strings.TrimPrefix(u.Path, "/"); database != "" {
		n, err := strconv.ParseUint(database, 10, 31)
		if err != nil {
			e.refuse("REDIS_URL", "must end with the port, or with the number of a database, such as /0")
		}
		r.DB = int(n)
	}
	if r.Cluster && r.DB != 0 {
		e.refuse("REDIS_URL", "names a database, but a cluster has only database 0")
	}
}

// parameters names those of a query, unless it is a part of a password in which ? was not percent-encoded.
func parameters(u *url.URL) string {
	var names []string
	for part := range strings.SplitSeq(u.RawQuery, "&") {
		name, _, _ := strings.Cut(part, "=")
		if strings.Contains(u.RawQuery, "@") || !parameter.MatchString(name) {
			return ", and a ? in the password is written %3F"
		}
		names = append(names, name)
	}
	return fmt.Sprintf(" (%s)", strings.Join(names, ", "))
}

// tlsTo is how we speak to a Redis with TLS. It names the host, for the nodes of a cluster are known by addresses alone.
func tlsTo(host string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: strings.TrimSuffix(host, ".")}
}
