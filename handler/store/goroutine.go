package store

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
)

// spawn starts every goroutine of this package. A panic ends do alone. The log gets its type and place: its value may quote a user.
func spawn(all *sync.WaitGroup, log *slog.Logger, do func()) {
	all.Go(func() {
		defer func() {
			if bug := recover(); bug != nil {
				stack := debug.Stack()
				log.Error("panic", "type", fmt.Sprintf("%T", bug), "stack", string(stack[:min(len(stack), 4096)]))
			}
		}()
		do()
	})
}
