package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// errPanic is what a panic in a goroutine comes to for those who wait for it.
var errPanic = errors.New("panic")

// spawn starts every goroutine of this package. A panic ends do alone. The log gets its type and place: its value may quote a token.
func spawn(log *slog.Logger, do func()) {
	go func() {
		defer func() {
			if bug := recover(); bug != nil {
				stack := debug.Stack()
				log.Error("panic", "type", fmt.Sprintf("%T", bug), "stack", string(stack[:min(len(stack), 4096)]))
			}
		}()
		do()
	}()
}
