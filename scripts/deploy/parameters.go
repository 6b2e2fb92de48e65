package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	declaration = regexp.MustCompile(`(?m)^param (\w+) (.+?)( = .*)?$`)
	placeholder = regexp.MustCompile(`^\$\{([A-Z0-9_]+)(?:=(.*))?\}$`)
)

// parameters are those of infra/main.parameters.json, read from the environment, each of the type that infra/main.bicep declares. It
// fails when one is unknown or missing, or has another type, and when the environment has a CHATKEEP_ variable that nothing reads.
// Those in later may be missing.
func parameters(later ...string) (map[string]any, error) {
	bicep, err := os.ReadFile("infra/main.bicep")
	if err != nil {
		return nil, fmt.Errorf("run it in the root of the project: %w", err)
	}
	file, err := os.ReadFile("infra/main.parameters.json")
	if err != nil {
		return nil, err
	}
	return resolve(string(bicep), file, os.Environ(), later)
}

func resolve(bicep string, file []byte, environ, later []string) (map[string]any, error) {
	var read struct {
		Parameters map[string]struct{ Value any }
	}
	if err := json.Unmarshal(file, &read); err != nil {
		return nil, fmt.Errorf("infra/main.parameters.json: %w", err)
	}
	environment := make(map[string]string)
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		environment[name] = value
	}
	types, required := make(map[string]string), make(map[string]bool)
	for _, d := range declaration.FindAllStringSubmatch(strings.ReplaceAll(bicep, "\r\n", "\n"), -1) {
		types[d[1]], required[d[1]] = d[2], d[3] == ""
	}

	known := map[string]bool{"CHATKEEP_PAUSE_SECONDS": true}
	resolved := make(map[string]any)
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(read.Parameters)) {
		kind, declared := types[name]
		if !declared {
			wrong = append(wrong, fmt.Errorf("infra/main.parameters.json: main.bicep has no parameter %s", name))
			continue
		}
		text, is := read.Parameters[name].Value.(string)
		if !is {
			resolved[name] = read.Parameters[name].Value
			continue
		}
		where := name
		if variable := placeholder.FindStringSubmatch(text); variable != nil {
			where = variable[1]
			known[where] = true
			if text = environment[where]; text == "" {
				text = variable[2]
			}
		} else if strings.Contains(text, "${") {
			wrong = append(wrong, fmt.Errorf("infra/main.parameters.json: %s must be one ${VARIABLE=default}", name))
		}
		if text == "" && required[name] && !slices.Contains(later, name) {
			wrong = append(wrong, fmt.Errorf("%s must be set", where))
		}
		value, err := typed(kind, text)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", where, err))
		}
		resolved[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if strings.HasPrefix(name, "CHATKEEP_") && !known[name] {
			wrong = append(wrong, fmt.Errorf("%s is set, but no parameter is read from it", name))
		}
	}
	if len(wrong) > 0 {
		return nil, usageError(errors.Join(wrong...).Error())
	}
	return resolved, nil
}

func typed(kind, text string) (any, error) {
	switch kind {
	case "int":
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("'%s' is no whole number", text)
		}
		return n, nil
	case "bool":
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("'%s' is neither true nor false", text)
		}
		return text == "true", nil
	}
	return text, nil
}

// parametersFile writes them for the Azure CLI, which takes other types from a file alone. The caller removes it.
func parametersFile(given map[string]any) (string, error) {
	values := make(map[string]map[string]any)
	for name, value := range given {
		values[name] = map[string]any{"value": value}
	}
	text, err := json.Marshal(map[string]any{
		"$schema":        "https://schema.management.azure.com/schemas/2019-04-01/deploymentParameters.json#",
		"contentVersion": "1.0.0.0", "parameters": values,
	})
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp("", "chatkeep-*.parameters.json")
	if err != nil {
		return "", err
	}
	_, err = file.Write(text)
	return file.Name(), errors.Join(err, file.Close())
}
