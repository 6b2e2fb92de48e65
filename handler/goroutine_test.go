package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A panic in a goroutine ends the process, so each is started by its package's spawn, which recovers.
func TestEveryGoroutineIsStartedBySpawn(t *testing.T) {
	forTests := map[string]bool{"authtest": true, "hosttest": true, "redistest": true}
	spawning := map[string]bool{}
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && forTests[entry.Name()]:
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if isSpawn(n) {
				require.True(t, recovers(n), "%s: spawn does not recover", path)
				spawning[file.Name.Name] = true
				return false
			}
			_, isGo := n.(*ast.GoStmt)
			selector, ok := n.(*ast.SelectorExpr)
			isMethod := ok && (selector.Sel.Name == "Go" || selector.Sel.Name == "AfterFunc")
			if isGo || isMethod {
				require.Fail(t, "a goroutine is not started by spawn", files.Position(n.Pos()).String())
			}
			return true
		})
		return nil
	}))
	require.Equal(t, map[string]bool{"main": true, "auth": true, "chat": true, "store": true}, spawning)
}

func isSpawn(n ast.Node) bool {
	function, ok := n.(*ast.FuncDecl)
	return ok && function.Recv == nil && function.Name.Name == "spawn"
}

// recovers tells whether a function calls recover, or recovered, which does.
func recovers(function ast.Node) bool {
	found := false
	ast.Inspect(function, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		name, ok := call.Fun.(*ast.Ident)
		found = found || ok && (name.Name == "recover" || name.Name == "recovered")
		return true
	})
	return found
}

func TestAPanicEndsItsGoroutineAlone(t *testing.T) {
	var log bytes.Buffer
	var all sync.WaitGroup
	spawn(&all, slog.New(slog.NewJSONHandler(&log, nil)), func() { panic("what alice said") })
	all.Wait()
	require.Equal(t, 1, strings.Count(log.String(), "\n"))
	require.Contains(t, log.String(), "goroutine_test.go")
	require.NotContains(t, log.String(), "alice")
}
