package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"chatkeep/handler/admin"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

// operator calls handler admin.
type operator struct {
	t     *testing.T
	redis string // REDIS_URL, or empty
	more  []string
}

type told struct {
	code     int
	out, err string
}

func (o operator) do(answer string, args ...string) told {
	o.t.Helper()
	var out, errOut bytes.Buffer
	environment := map[string]string{"REDIS_URL": o.redis}
	for _, variable := range o.more {
		name, value, _ := strings.Cut(variable, "=")
		environment[name] = value
	}
	code := command(o.t.Context(), append([]string{"admin"}, args...), func(name string) string { return environment[name] },
		admin.Terminal{In: strings.NewReader(answer), IsInteractive: answer != "", Out: &out, Err: &errOut})
	return told{code, out.String(), errOut.String()}
}

// TestAdmin is an operator's work for two users, on one Redis and on a cluster: what is asked for one shows and changes nothing of the other.
func TestAdmin(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 0)
	for name, redisEnv := range map[string][]string{
		"one server": {"REDIS_URL=redis://" + redistest.Start(t).Addr},
		"a cluster":  {"REDIS_URL=redis://" + cluster.Addrs[0], "REDIS_CLUSTER=true"},
	} {
		t.Run(name, func(t *testing.T) {
			d := deploy(t, redisEnv...)
			o := operator{t, strings.TrimPrefix(redisEnv[0], "REDIS_URL="), redisEnv[1:]}
			ids := map[string][]string{}
			for _, who := range []string{"alice", "bob"} {
				for range 3 {
					id := d.start(who)
					d.must(200, "POST", "/api/chat/send", who, said(id, "Hello from "+who))
					ids[who] = append(ids[who], id)
				}
			}
			alice := []string{"-tenant", authtest.LocalTenant, "-subject", "alice"}
			with := func(args ...string) []string { return append(args, alice...) }
			export := d.exported("alice")
			expiries := d.must(200, "GET", "/api/chat/conversations/"+ids["alice"][0], "alice", "").text

			found := o.do("", with("find")...)
			require.Zero(t, found.code, found.err)
			found = o.do("", with("find", "-json")...)
			require.Equal(t, 3, strings.Count(found.out, "\n"))
			byObject := o.do("", "find", "-json", "-tenant", authtest.LocalTenant, "-object-id", objectIDOf(t, d.issuer.Token(authtest.LocalTenant, "alice", nil)))
			require.Equal(t, found.out, byObject.out, byObject.err)
			shown := o.do("", with("show", "-id", ids["alice"][0])...)
			require.Contains(t, shown.out, "Hello from alice")
			shown = o.do("", with("show", "-json", "-id", ids["alice"][0])...)
			require.JSONEq(t, expiries, shown.out, "it counts as an access, or says something else than the API")
			require.Equal(t, admin.Nothing, o.do("", with("show", "-id", ids["bob"][0])...).code, "another's conversation")
			require.Equal(t, export, o.do("", with("export")...).out)
			for _, answer := range []told{found, shown, byObject, o.do("", with("usage", "-json")...)} {
				require.NotContains(t, answer.out+answer.err, "bob")
			}
			var usage struct{ Bytes, Conversations, Keys, Memory int }
			require.NoError(t, json.Unmarshal([]byte(o.do("", with("usage", "-json")...).out), &usage))
			require.Equal(t, 3, usage.Conversations)
			require.Positive(t, usage.Bytes)
			require.Greater(t, usage.Memory, usage.Bytes)
			require.GreaterOrEqual(t, usage.Keys, 3*2+4)
			top := o.do("", "usage").out
			require.Contains(t, top, "2 users")
			require.Contains(t, top, "alice")
			require.Contains(t, top, "bob")
			require.Zero(t, o.do("", "check").code)

			require.Equal(t, admin.Refused, o.do("", with("erase")...).code, "nobody confirmed")
			require.Equal(t, admin.Refused, o.do("no\n", with("erase")...).code)
			require.Zero(t, o.do("", with("erase", "-dry-run")...).code)
			require.Equal(t, export, o.do("", with("export")...).out, "it was erased all the same")
			erased := o.do("yes\n", with("erase", "-json")...)
			require.Zero(t, erased.code, erased.err)
			require.JSONEq(t, `{"deleted":3,"keysRemaining":0}`, erased.out)
			_, logged, _ := strings.Cut(erased.err, "{")
			require.Contains(t, logged, "an operator has erased")
			require.NotContains(t, logged, "alice", "the log names a user")
			require.Equal(t, admin.Nothing, o.do("", with("erase", "-yes")...).code)
			require.Equal(t, admin.Nothing, o.do("", with("find")...).code)
			require.Equal(t, 3, strings.Count(o.do("", "find", "-json", "-tenant", authtest.LocalTenant, "-subject", "bob").out, "\n"))
			d.must(404, "GET", "/api/chat/conversations/"+ids["alice"][0], "alice", "")
		})
	}
}

func TestTheManualOfAdmin(t *testing.T) {
	manual, err := os.ReadFile("../docs/admin.md")
	require.NoError(t, err)
	require.Contains(t, string(manual), "```text\n"+operator{t: t}.do("", "help").out+"```\n", "docs/admin.md says something else than handler admin help")
}

func TestAdminIsNotReachableOverHTTP(t *testing.T) {
	d := deploy(t)
	for _, path := range []string{"/admin", "/admin/find", "/api/admin", "/api/chat/admin", "/api/chat/admin/erase"} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			for _, url := range []string{d.host.URL, d.host.HandlerURL()} {
				request, err := http.NewRequestWithContext(t.Context(), method, url+path, http.NoBody)
				require.NoError(t, err)
				request.Header.Set("Authorization", "Bearer "+d.issuer.Token(authtest.LocalTenant, "alice", nil))
				answer, err := http.DefaultClient.Do(request)
				require.NoError(t, err)
				_ = answer.Body.Close()
				require.Equal(t, 404, answer.StatusCode, "%s %s", method, path)
			}
		}
	}
}

// exported is what export answers.
func (d *deployment) exported(user string) string {
	d.t.Helper()
	request, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, d.host.URL+"/api/chat/export", http.NoBody)
	require.NoError(d.t, err)
	request.Header.Set("Authorization", "Bearer "+d.issuer.Token(authtest.LocalTenant, user, nil))
	answer, err := http.DefaultClient.Do(request)
	require.NoError(d.t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	require.NoError(d.t, err)
	return string(text)
}

// objectIDOf reads the claim oid.
func objectIDOf(t *testing.T, token string) string {
	t.Helper()
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	require.NoError(t, err)
	var c struct{ OID string }
	require.NoError(t, json.Unmarshal(claims, &c))
	return c.OID
}

// What is wrong with a call is said, and nothing is done.
func TestAdminRefuses(t *testing.T) {
	o := operator{t, "redis://" + redistest.Start(t).Addr, nil}
	for _, args := range []string{
		"find", "find -tenant t", "find -subject s", "find -tenant t -subject s -object-id o", "find -tenant t -subject s more", "find -nonsense",
		"show -tenant t -subject s", "erase", "nonsense", "check -yes", "usage -tenant t",
	} {
		said := o.do("", strings.Fields(args)...)
		require.Equal(t, admin.Refused, said.code, args)
		require.Contains(t, said.err, "wrong use", args)
		require.Empty(t, said.out, args)
	}
	require.Equal(t, admin.Nothing, o.do("", "find", "-tenant", "t", "-object-id", "o").code)
	for _, args := range [][]string{{}, {"help"}, {"-h"}, {"--help"}} {
		said := operator{t: t}.do("", args...)
		require.Zero(t, said.code)
		require.Contains(t, said.out, "Exit codes")
	}
	withoutRedis := operator{t: t}.do("", "check")
	require.Equal(t, admin.Refused, withoutRedis.code)
	require.Contains(t, withoutRedis.err, "REDIS_URL")
	require.Equal(t, admin.Refused, command(t.Context(), []string{"serve"}, func(string) string { return "" }, admin.Terminal{Err: &bytes.Buffer{}}))
}

// A key without an expiry is found, and one whose Redis is down is a failure.
func TestAdminCheck(t *testing.T) {
	server := redistest.Start(t)
	o := operator{t, "redis://" + server.Addr, []string{"REDIS_TIMEOUT=200ms", "REDIS_DIAL_TIMEOUT=200ms"}}
	server.CLI("hset", "chat:{abc}:c:1", "a", "b")
	server.CLI("set", "another application's", "1")
	said := o.do("", "check")
	require.Equal(t, admin.Nothing, said.code)
	require.Contains(t, said.out, "1 keys without an expiry")
	require.Contains(t, said.out, "c:*")
	server.Kill()
	said = o.do("", "check")
	require.Equal(t, admin.Failed, said.code)
	require.Contains(t, said.err, "failed:")
}
