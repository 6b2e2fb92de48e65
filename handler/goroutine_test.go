package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A panic in a goroutine ends the process, so each is started by package panics, which recovers.
func TestEveryGoroutineIsStartedByPanics(t *testing.T) {
	elsewhere := map[string]bool{"authtest": true, "hosttest": true, "redistest": true, "nodetest": true, "panics": true}
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && elsewhere[entry.Name()]:
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			_, isGo := n.(*ast.GoStmt)
			selector, ok := n.(*ast.SelectorExpr)
			isMethod := ok && (selector.Sel.Name == "Go" || selector.Sel.Name == "AfterFunc") && !isPackage(selector.X, "panics")
			if isGo || isMethod {
				require.Fail(t, "a goroutine is not started by panics.Go", files.Position(n.Pos()).String())
			}
			return true
		})
		return nil
	}))
}

func isPackage(x ast.Expr, name string) bool {
	ident, ok := x.(*ast.Ident)
	return ok && ident.Name == name
}
