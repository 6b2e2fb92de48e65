package hosttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// script is what a script root holds.
type script struct {
	executable string
	functions  []function    // sorted by name
	timeout    time.Duration // of one call; 0 for none
}

// function is a function.json that the host serves.
type function struct {
	name    string
	methods []string
	route   *regexp.Regexp
}

var functionName = regexp.MustCompile(`^(?i)[a-z][a-z0-9_-]{0,127}$`)

// load reads host.json and the function.json of every direct child of the script root.
func load(dist string) (script, error) {
	var host struct {
		Version         string
		FunctionTimeout string
		CustomHandler   struct {
			Description               struct{ DefaultExecutablePath string }
			EnableProxyingHTTPRequest bool `json:"enableProxyingHttpRequest"`
		}
		Extensions struct{ HTTP struct{ RoutePrefix *string } }
	}
	if err := readJSON(filepath.Join(dist, "host.json"), &host); err != nil {
		return script{}, err
	}
	s := script{executable: host.CustomHandler.Description.DefaultExecutablePath}
	if host.Version != "2.0" || s.executable == "" || !host.CustomHandler.EnableProxyingHTTPRequest {
		return script{}, errors.New("host.json: not a proxied custom handler of version 2.0")
	}
	var err error
	if s.timeout, err = parseTimeout(host.FunctionTimeout); err != nil {
		return script{}, fmt.Errorf("host.json: functionTimeout: %w", err)
	}
	prefix := "api"
	if p := host.Extensions.HTTP.RoutePrefix; p != nil {
		prefix = *p
	}
	files, err := filepath.Glob(filepath.Join(dist, "*", "function.json"))
	if err != nil || len(files) == 0 {
		return script{}, errors.New("no functions: the process would never be started")
	}
	taken := make(map[string]string)
	for _, file := range files {
		f, template, err := loadFunction(file, prefix)
		if err != nil {
			return script{}, fmt.Errorf("%s: %w", file, err)
		}
		for _, method := range f.methods {
			key := method + " " + strings.ToLower(template)
			if other := taken[key]; other != "" {
				return script{}, fmt.Errorf("%s and %s both have %s", other, f.name, key)
			}
			taken[key] = f.name
		}
		s.functions = append(s.functions, f)
	}
	slices.SortFunc(s.functions, func(a, b function) int { return strings.Compare(a.name, b.name) })
	return s, nil
}

// parseTimeout reads hh:mm:ss, with a fraction if need be, or -1 for no limit. Nothing means the default of Flex, 30 minutes.
func parseTimeout(text string) (time.Duration, error) {
	switch text {
	case "":
		return 30 * time.Minute, nil
	case "-1":
		return 0, nil
	}
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return 0, fmt.Errorf("%q is not hh:mm:ss", text)
	}
	var seconds float64
	for _, part := range parts {
		n, err := strconv.ParseFloat(part, 64)
		if err != nil {
			return 0, err
		}
		seconds = seconds*60 + n
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

func loadFunction(file, prefix string) (function, string, error) {
	var config struct {
		Bindings []struct {
			Type, Direction, Name, AuthLevel string
			Methods                          []string
			Route                            *string
		}
	}
	if err := readJSON(file, &config); err != nil {
		return function{}, "", err
	}
	f := function{name: filepath.Base(filepath.Dir(file))}
	if !functionName.MatchString(f.name) || strings.EqualFold(f.name, "host") {
		return function{}, "", errors.New("bad function name")
	}
	if len(config.Bindings) != 2 || config.Bindings[0].Type != "httpTrigger" || config.Bindings[0].Direction != "in" ||
		config.Bindings[1].Type != "http" || config.Bindings[1].Direction != "out" {
		return function{}, "", errors.New("proxying needs one httpTrigger and one http output")
	}
	trigger := config.Bindings[0]
	if trigger.AuthLevel != "anonymous" {
		return function{}, "", errors.New("authLevel is not anonymous: the host would ask for a key")
	}
	template := f.name
	if trigger.Route != nil && *trigger.Route != "" {
		template = *trigger.Route
	}
	for _, reserved := range []string{"admin", "runtime"} {
		if strings.HasPrefix(strings.ToLower(template), reserved) {
			return function{}, "", fmt.Errorf("a route must not begin with %s", reserved)
		}
	}
	template = strings.Trim(path.Join(prefix, template), "/")
	var err error
	if f.route, err = compileRoute(template); err != nil {
		return function{}, "", err
	}
	for _, method := range trigger.Methods {
		f.methods = append(f.methods, strings.ToUpper(method))
	}
	return f, template, nil
}

func readJSON(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
