package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// logged is what the program's own code writes to its log: messages with their level, which is empty where the code chooses it, and fields.
type logged struct {
	levels map[string]string
	fields map[string]bool
	vitals map[string]bool // fields of the line of vitals, which docs/telemetry.md has
}

func allLogged(t *testing.T) logged {
	t.Helper()
	l := logged{levels: map[string]string{}, fields: map[string]bool{}, vitals: map[string]bool{"msg": true}}
	for _, field := range []string{"time", "level", "msg", "requestId", "traceId", "cause"} { // of package logs
		l.fields[field] = true
	}
	notDeployed := map[string]bool{"authtest": true, "hosttest": true, "redistest": true, "nodetest": true, "playground": true}
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && notDeployed[entry.Name()]:
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			l.note(call)
			if name, isNamed := firstText(call); isNamed && path == "telemetry/vitals.go" {
				l.vitals[name] = true
			}
			return true
		})
		return nil
	}))
	return l
}

// note notes a call of a method of a log, which is always called log.
func (l logged) note(call *ast.CallExpr) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !isLog(method.X) {
		return
	}
	for i, arg := range call.Args {
		msg, ok := textOf(arg)
		if !ok {
			continue
		}
		l.levels[msg] = strings.ToUpper(strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(method.Sel.Name, "Context"), "Log"), "Attrs"))
		for k := i + 1; k < len(call.Args); k += 2 {
			if key, ok := textOf(call.Args[k]); ok {
				l.fields[key] = true
			}
		}
		return
	}
}

func firstText(call *ast.CallExpr) (string, bool) {
	if len(call.Args) == 0 {
		return "", false
	}
	return textOf(call.Args[0])
}

func isLog(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "log"
	case *ast.SelectorExpr:
		return x.Sel.Name == "log"
	default:
		return false
	}
}

func textOf(x ast.Expr) (string, bool) {
	literal, ok := x.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return text, err == nil
}

// rows are those of a table of the page, by the beginning of its head, each cut into cells.
func rows(t *testing.T, page, head string) [][]string {
	t.Helper()
	_, table, found := strings.Cut(page, "\n| "+head)
	require.True(t, found, head)
	table, _, _ = strings.Cut(table, "\n\n")
	var all [][]string
	for _, row := range strings.Split(table, "\n")[2:] {
		all = append(all, strings.Split(strings.Trim(row, "| "), " | "))
	}
	return all
}

// codeIn is what stands in a cell as code.
func codeIn(cell string) []string {
	var all []string
	for _, found := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		all = append(all, found[1])
	}
	return all
}

// The page names every line that can be written, with its level, every field and every cause, and no others.
func TestThePageSaysWhatIsLogged(t *testing.T) {
	page, written := operations(t), allLogged(t)
	var messages, fields, causes []string
	for _, row := range rows(t, page, "`level` | `msg`") {
		for _, msg := range codeIn(row[1]) {
			messages = append(messages, msg)
			assert.Contains(t, row[0], written.levels[msg], msg)
		}
	}
	for _, row := range rows(t, page, "field |") {
		fields = append(fields, codeIn(row[0])...)
	}
	for _, row := range rows(t, page, "`cause` |") {
		causes = append(causes, codeIn(row[0])...)
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(written.levels)), messages)
	require.ElementsMatch(t, slices.Collect(maps.Keys(written.fields)), fields)
	require.ElementsMatch(t, allCauses(t), causes)
}

// allCauses are the constants of package logs.
func allCauses(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "logs/cause.go", nil, 0)
	require.NoError(t, err)
	var all []string
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
			if text, ok := textOf(spec.Values[0]); ok {
				all = append(all, text)
			}
		}
		return true
	})
	return all
}

// The workbook and the alerts look for lines and fields that are written.
func TestQueriesReadWhatIsLogged(t *testing.T) {
	written := allLogged(t)
	var queries []string
	text, err := os.ReadFile("../infra/modules/workbook.json")
	require.NoError(t, err)
	var workbook struct {
		Items []struct{ Content struct{ Query string } }
	}
	require.NoError(t, json.Unmarshal(text, &workbook))
	for _, item := range workbook.Items {
		queries = append(queries, item.Content.Query)
	}
	text, err = os.ReadFile("../infra/modules/alerts.bicep")
	require.NoError(t, err)
	for _, found := range regexp.MustCompile(`(?s)query: '''(.*?)'''`).FindAllStringSubmatch(string(text), -1) {
		queries = append(queries, found[1])
	}
	read := 0
	for _, query := range queries {
		if !strings.Contains(query, "parse_json(message)") {
			continue
		}
		read++
		known := written.fields
		if strings.Contains(query, "'vitals'") {
			known = written.vitals
		}
		for _, field := range regexp.MustCompile(`\bline\.(\w+)`).FindAllStringSubmatch(query, -1) {
			assert.True(t, known[field[1]], "%s is in no line, but in: %s", field[1], query)
		}
		for _, list := range regexp.MustCompile(`\bline\.msg\) (?:==|in) ([^\n]*)`).FindAllStringSubmatch(query, -1) {
			for _, msg := range regexp.MustCompile(`'([^']*)'`).FindAllStringSubmatch(list[1], -1) {
				assert.Contains(t, written.levels, msg[1], query)
			}
		}
	}
	require.Equal(t, 7, read)
}
