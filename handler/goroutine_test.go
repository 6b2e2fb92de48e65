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
		cancels := cancelsIn(file)
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && isAfterFunc(call) && isOneOf(call.Args[1], cancels) {
				return false // after a while a context is cancelled, which cannot panic
			}
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

func isAfterFunc(call *ast.CallExpr) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	return ok && isPackage(selector.X, "time") && selector.Sel.Name == "AfterFunc"
}

// cancelsIn are the names that a file gives to what context.WithCancel cancels by.
func cancelsIn(file *ast.File) map[string]bool {
	all := make(map[string]bool)
	ast.Inspect(file, func(n ast.Node) bool {
		assigned, ok := n.(*ast.AssignStmt)
		if !ok || len(assigned.Lhs) != 2 || len(assigned.Rhs) != 1 {
			return true
		}
		call, ok := assigned.Rhs[0].(*ast.CallExpr)
		if !ok {
			return true
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		cancel, isIdent := assigned.Lhs[1].(*ast.Ident)
		if ok && isIdent && isPackage(selector.X, "context") && selector.Sel.Name == "WithCancel" {
			all[cancel.Name] = true
		}
		return true
	})
	return all
}

func isOneOf(x ast.Expr, names map[string]bool) bool {
	ident, ok := x.(*ast.Ident)
	return ok && names[ident.Name]
}
