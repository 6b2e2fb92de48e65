// Package panics keeps a bug from ending the process, and what it quotes out of the log.
package panics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
)

// maxStack bounds what a panic writes to the log, in bytes.
const maxStack = 4096

// Error is what a call that panicked returns. It says the type of the panic's value, but only of a runtime.Error what it says: any other
// may quote a user.
type Error struct{ text string }

func (e *Error) Error() string { return "panic: " + e.text }

// Of returns the error of a panic's value.
func Of(bug any) *Error {
	if fault, ok := bug.(runtime.Error); ok {
		return &Error{fault.Error()}
	}
	return &Error{fmt.Sprintf("%T", bug)}
}

// Is tells whether an error is, or wraps, that of a call that panicked.
func Is(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

// Recover calls do, and returns its error or, when it panics, an *Error. It logs the panic with its stack, as one of ctx's request.
func Recover(ctx context.Context, log *slog.Logger, do func() error) (err error) {
	defer func() {
		if bug := recover(); bug != nil {
			err = Of(bug)
			log.ErrorContext(ctx, "panic", "err", err, "stack", Stack())
		}
	}()
	return do()
}

// Stack returns the stack of the goroutine that calls it, cut to what a log line can hold.
func Stack() string {
	stack := debug.Stack()
	return string(stack[:min(len(stack), maxStack)])
}

// Go calls do in a goroutine that all waits for. Every goroutine of the program starts here, so that a panic ends do alone.
func Go(all *sync.WaitGroup, log *slog.Logger, do func()) {
	all.Go(func() {
		_ = Recover(context.Background(), log, func() error { do(); return nil })
	})
}
