package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// incident is a failure that docs/operations.md has a section for, on the local stack.
type incident struct {
	*deployment
	id    string // of a conversation from before
	lines func() []string
	end   func() // mends it
}

// incidents make each failure of the page, by the title of its section.
var incidents = map[string]func(*testing.T) *incident{
	"Redis is down": func(t *testing.T) *incident {
		server := redistest.Start(t)
		i := happen(t, "REDIS_URL=redis://"+server.Addr)
		server.Kill()
		i.end = server.Restart
		return i
	},
	"Redis hangs": func(t *testing.T) *incident {
		server := redistest.Start(t)
		i := happen(t, "REDIS_URL=redis://"+server.Addr)
		server.Pause()
		t.Cleanup(server.Resume)
		i.end = server.Resume
		return i
	},
	"Redis is full": func(t *testing.T) *incident {
		server := redistest.Start(t, "--maxmemory-policy", "noeviction")
		i := happen(t, "REDIS_URL=redis://"+server.Addr)
		server.CLI("config", "set", "maxmemory", "1")
		i.end = func() { server.CLI("config", "set", "maxmemory", "0") }
		return i
	},
	"Redis is a read-only replica": func(t *testing.T) *incident {
		server := redistest.Start(t)
		i := happen(t, "REDIS_URL=redis://"+server.Addr)
		server.CLI("replicaof", "127.0.0.1", "1")
		i.end = func() { server.CLI("replicaof", "no", "one") }
		return i
	},
	"Redis does not let us in": func(t *testing.T) *incident {
		server := redistest.Start(t)
		i := happen(t, "REDIS_URL=redis://"+server.Addr)
		server.CLI("config", "set", "requirepass", "another")
		server.CLI("-a", "another", "client", "kill", "type", "normal", "skipme", "yes")
		i.end = func() { server.CLI("-a", "another", "config", "set", "requirepass", "") }
		return i
	},
	"Redis may drop conversations": func(t *testing.T) *incident {
		server := redistest.Start(t, "--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru")
		return happen(t, "REDIS_URL=redis://"+server.Addr)
	},
	"Signing keys cannot be read": func(t *testing.T) *incident {
		d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr, "AUTH_JWKS_URL=http://"+nobody(t)+"/keys")
		return &incident{deployment: d, lines: d.host.Stdout}
	},
	"Every caller gets 401": func(t *testing.T) *incident {
		d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr, "LOG_LEVEL=debug", "AUTH_AUDIENCE=22222222-2222-2222-2222-222222222222")
		return &incident{deployment: d, lines: d.host.Stdout}
	},
	"Every caller gets 403": func(t *testing.T) *incident {
		d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr, "LOG_LEVEL=debug", "FRONT_DOOR_ID=22222222-2222-2222-2222-222222222222")
		return &incident{deployment: d, lines: d.host.Stdout}
	},
	"One user gets 429": func(t *testing.T) *incident {
		i := happen(t, "REDIS_URL=redis://"+redistest.Start(t).Addr, "MAX_TURNS_PER_MINUTE=1", "LOG_LEVEL=debug")
		return i
	},
	"The agent is down": func(t *testing.T) *incident {
		return happen(t, askModel(t, "http://"+nobody(t))...)
	},
	"The agent turns calls away": func(t *testing.T) *incident {
		model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusTooManyRequests)
		}))
		t.Cleanup(model.Close)
		return happen(t, askModel(t, model.URL)...)
	},
	"The agent is slow": func(t *testing.T) *incident {
		model := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or the end of its connection is not noticed
			<-r.Context().Done()
		}))
		t.Cleanup(model.Close)
		return happen(t, append(askModel(t, model.URL), "AGENT_FIRST_BYTE_TIMEOUT=100ms")...)
	},
	"The Functions host is too old": func(t *testing.T) *incident {
		return happen(t, "REDIS_URL=redis://"+redistest.Start(t).Addr)
	},
	"Nothing answers": func(t *testing.T) *incident {
		command := exec.CommandContext(t.Context(), filepath.Join(packaged(t), "handler"))
		command.Env = []string{"FUNCTIONS_CUSTOMHANDLER_PORT=" + freePort(t), "AUTH_TENANT_ID=contoso.com"}
		out, err := command.Output()
		require.Error(t, err)
		return &incident{lines: func() []string { return strings.Split(string(out), "\n") }}
	},
}

// happen is a deployment that has worked until now.
func happen(t *testing.T, env ...string) *incident {
	t.Helper()
	d := deploy(t, env...)
	return &incident{deployment: d, id: d.start("alice"), lines: d.host.Stdout}
}

// nobody is an address at which nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func askModel(t *testing.T, url string) []string {
	t.Helper()
	return []string{"REDIS_URL=redis://" + redistest.Start(t).Addr, "AGENT=openai", "OPENAI_BASE_URL=" + url, "OPENAI_MODEL=m", "OPENAI_API_KEY=k"}
}

// ask makes a request as the page names them. It returns its status with a problem's code or health's status, and all of its text.
func (i *incident) ask(what string) (answer, text string, err error) {
	id := cmp.Or(i.id, "00000000-0000-7000-8000-000000000000")
	var r reply
	switch what {
	case "start":
		r, err = i.call("POST", "/api/chat/start", "alice", `{"title":"Trip"}`)
	case "send":
		r, err = i.call("POST", "/api/chat/send", "alice", said(id, "Hello"))
	case "get":
		r, err = i.call("GET", "/api/chat/conversations/"+id, "alice", "")
	case "health":
		r, err = i.call("GET", "/health", "", "")
	case "invocation": // as no host of today calls
		var response *http.Response
		response, err = http.Post(i.host.HandlerURL()+"/send", "application/json", strings.NewReader(`{"Data":{},"Metadata":{}}`))
		if err == nil {
			err = json.NewDecoder(response.Body).Decode(&struct{ Code *string }{&r.Code})
			r.status = response.StatusCode
			_ = response.Body.Close()
		}
	default:
		err = errors.New("the page names a request that the test does not know: " + what)
	}
	if what == "health" {
		r.Code = r.Status
	}
	return strings.TrimSpace(fmt.Sprint(r.status, " ", r.Code)), r.text, err
}

// isLogged reports whether a line of the log has all that the page says of it.
func (i *incident) isLogged(want map[string]any) bool {
	return slices.ContainsFunc(i.lines(), func(text string) bool {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) != nil {
			return false
		}
		for key, value := range want {
			if line[key] != value {
				return false
			}
		}
		return true
	})
}

// operations is docs/operations.md.
func operations(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../docs/operations.md")
	require.NoError(t, err)
	return string(page)
}

// runbook is what the page says is seen of each failure, by title.
func runbook(t *testing.T) map[string][]string {
	t.Helper()
	_, page, found := strings.Cut(operations(t), "\n## Runbook\n")
	require.True(t, found)
	page, _, _ = strings.Cut(page, "\n## ")
	seen := make(map[string][]string)
	for _, section := range strings.Split(page, "\n### ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		block := regexp.MustCompile("(?s)```\n(.*?)\n```").FindStringSubmatch(text)
		require.NotNil(t, block, title)
		require.Contains(t, text, "\n**Do:** ", title)
		seen[title] = strings.Split(block[1], "\n")
	}
	return seen
}

// lineOf is a line as the page has it.
func lineOf(t *testing.T, text string) map[string]any {
	t.Helper()
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &line), text)
	return line
}

// What the page says is seen of each failure is seen, and no other warning or error.
func TestTheRunbookIsTrue(t *testing.T) {
	seen := runbook(t)
	require.ElementsMatch(t, slices.Collect(maps.Keys(incidents)), slices.Collect(maps.Keys(seen)))
	for title, block := range seen {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			i := incidents[title](t)
			allowed := make(map[any]bool)
			var after []map[string]any
			for _, row := range block {
				what, want, _ := strings.Cut(row, " ")
				switch want = strings.TrimSpace(want); what {
				case "log":
					line := lineOf(t, want)
					allowed[line["msg"]] = true
					i.eventually(t, func(c *assert.CollectT) {
						assert.True(c, i.isLogged(line), "%s\n%s", want, strings.Join(i.lines(), "\n"))
					})
				case "after":
					after = append(after, lineOf(t, want))
				default:
					i.answers(t, what, want)
				}
			}
			for _, text := range i.lines() {
				var line struct{ Level, Msg string }
				_ = json.Unmarshal([]byte(text), &line) // the last may be empty
				require.False(t, (line.Level == "WARN" || line.Level == "ERROR") && !allowed[line.Msg], "the page does not say: %s", text)
			}
			require.Equal(t, i.end == nil, after == nil)
			if i.end == nil {
				return
			}
			i.end()
			i.answers(t, "health", "200 healthy")
			i.answers(t, "start", "201")
			for _, line := range after {
				i.eventually(t, func(c *assert.CollectT) {
					assert.True(c, i.isLogged(line), "%s\n%s", line, strings.Join(i.lines(), "\n"))
				})
			}
		})
	}
}

// answers waits until a request is answered as the page says: status, code, and after a comma what else is in it.
func (i *incident) answers(t *testing.T, what, want string) {
	t.Helper()
	want, rest, _ := strings.Cut(want, ", ")
	i.eventually(t, func(c *assert.CollectT) {
		answer, text, err := i.ask(what)
		assert.NoError(c, err)
		assert.Equal(c, want, answer, what)
		assert.Contains(c, text, rest, what)
	})
}

func (i *incident) eventually(t *testing.T, check func(*assert.CollectT)) {
	t.Helper()
	require.EventuallyWithT(t, check, 20*time.Second, 20*time.Millisecond)
}
