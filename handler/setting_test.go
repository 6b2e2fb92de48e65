package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the settings into README.md and local.settings.json.example")

// table is all settings, by area.
func table() []area {
	env := &environment{getenv: func(string) string { return "" }}
	env.config()
	return env.areas
}

func TestDefaultsAreGood(t *testing.T) {
	for _, a := range table() {
		for _, s := range a.settings {
			require.NotEmpty(t, s.meaning, s.name)
			if s.fallback != "" {
				require.True(t, s.read(s.fallback), s.name)
			}
		}
	}
}

func TestLimitsAreTheLastThatAreTaken(t *testing.T) {
	for _, a := range table() {
		for _, s := range a.settings {
			if s.limits == "" {
				continue
			}
			require.Contains(t, s.wants, s.limits, "the error states the limits")
			least, most, _ := strings.Cut(s.limits, " to ")
			beyond := []string{"", "-1", "-1s", "1000000000000", "9999h", "1e3", "many", "1.5", "1 s", "s"}
			if n, err := strconv.Atoi(least); err == nil {
				m, err := strconv.Atoi(most)
				require.NoError(t, err)
				beyond = append(beyond, strconv.Itoa(n-1), strconv.Itoa(m+1), least+"s")
			} else {
				shortest, err := time.ParseDuration(least)
				require.NoError(t, err)
				longest, err := time.ParseDuration(most)
				require.NoError(t, err)
				beyond = append(beyond, (shortest - 1).String(), (longest + 1).String(), "1")
			}
			require.True(t, s.read(least), s.name)
			require.True(t, s.read(most), s.name)
			for _, text := range beyond {
				require.False(t, s.read(text), "%s=%s", s.name, text)
			}
		}
	}
}

// README's table is made from the settings: go test ./handler -run TestSettingsAre -update writes it, and the example.
func TestSettingsAreDocumented(t *testing.T) {
	rows := []string{"| variable | default | from, to | meaning |", "|---|---|---|---|"}
	for _, a := range table() {
		rows = append(rows, fmt.Sprintf("| **%s** | | | |", a.title))
		for _, s := range a.settings {
			rows = append(rows, strings.ReplaceAll(fmt.Sprintf("| `%s` | %s | %s | %s |", s.name, cmp.Or(s.fallback, "–"), s.limits, s.meaning), "|  |", "| |"))
		}
	}
	want := strings.Join(rows, "\n") + "\n"
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	old := regexp.MustCompile(`(?m)^\| variable \|.*\n(\|.*\n)+`).FindString(string(text))
	if *update && old != "" {
		require.NoError(t, os.WriteFile("../README.md", []byte(strings.Replace(string(text), old, want, 1)), 0o644))
		return
	}
	require.Equal(t, want, old)
}

// The example has every setting that does something under the func CLI, with its default where it needs no other to run there.
func TestSettingsAreInTheExample(t *testing.T) {
	byHost := map[string]bool{"FUNCTIONS_CUSTOMHANDLER_PORT": true, "PORT": true, "HOST": true}
	values := map[string]string{
		"AUTH_ISSUER": "http://127.0.0.1:7072", "AUTH_AUDIENCE": "11111111-2222-3333-4444-555555555555", // what make run's issuer serves
		"AUTH_JWKS_URL": "http://127.0.0.1:7072/keys",
		"REDIS_URL":     "redis://127.0.0.1:6379",
	}
	areas := []string{`    "FUNCTIONS_WORKER_RUNTIME": "custom",
    "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "1114112",
    "AzureWebJobsDisableHomepage": "true"`} // the host's own
	for _, a := range table() {
		var lines []string
		for _, s := range a.settings {
			if !byHost[s.name] {
				lines = append(lines, fmt.Sprintf("    %q: %q", s.name, cmp.Or(values[s.name], s.fallback)))
			}
		}
		areas = append(areas, strings.Join(lines, ",\n"))
	}
	want := "{\n  \"IsEncrypted\": false,\n  \"Values\": {\n" + strings.Join(areas, ",\n\n") + "\n  }\n}\n"
	if *update {
		require.NoError(t, os.WriteFile("../local.settings.json.example", []byte(want), 0o644))
	}
	text, err := os.ReadFile("../local.settings.json.example")
	require.NoError(t, err)
	require.Equal(t, want, string(text))

	var example struct{ Values map[string]string }
	require.NoError(t, json.Unmarshal(text, &example))
	_, err = readConfig(func(name string) string { return example.Values[name] })
	require.NoError(t, err)
}

// The pages of the agents name each of their settings, and none that there is not, and what an echo can be told.
func TestThePagesOfTheAgentsAreTrue(t *testing.T) {
	var pages strings.Builder
	for _, name := range []string{"agents.md", "agents-copilotstudio.md", "streaming.md"} {
		page, err := os.ReadFile("../docs/" + name)
		require.NoError(t, err)
		pages.WriteString(string(page))
	}
	known := make(map[string]bool)
	for _, a := range table() {
		for _, s := range a.settings {
			known[s.name] = true
			if s.name == "AGENT" || regexp.MustCompile("^(AGENT|OPENAI|COPILOTSTUDIO)_").MatchString(s.name) {
				require.Contains(t, pages.String(), "`"+s.name)
			}
		}
	}
	for _, name := range regexp.MustCompile(`\b[A-Z]+(_[A-Z]+)+\b`).FindAllString(pages.String(), -1) {
		require.True(t, known[name], name)
	}
	source, err := os.ReadFile("agent/echo.go")
	require.NoError(t, err)
	told := func(text, form string) (all []string) {
		for _, found := range regexp.MustCompile(form).FindAllStringSubmatch(text, -1) {
			all = append(all, found[1])
		}
		return all
	}
	require.ElementsMatch(t, told(string(source), `case "(/[a-z]+)"`), told(pages.String(), "(?m)^\\| `(/[a-z]+)` "))
}

// What main reads beside the settings is the platform's.
func TestNothingElseIsRead(t *testing.T) {
	known := map[string]bool{"WEBSITE_INSTANCE_ID": true, "CONTAINER_NAME": true, "IDENTITY_ENDPOINT": true}
	for _, a := range table() {
		for _, s := range a.settings {
			require.False(t, known[s.name], "%s is stated twice", s.name)
			known[s.name] = true
		}
	}
	_, _ = readConfig(func(name string) string {
		require.True(t, known[name], name)
		return ""
	})
}

func TestLimitsAreWrittenShort(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "50ms": 50 * time.Millisecond, "1s": time.Second, "225s": longestCall, "60s": time.Minute, "1h": time.Hour,
	} {
		require.Equal(t, want, short(d))
	}
}
