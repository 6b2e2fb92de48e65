package store

import (
	"context"
	"sync"
)

// shares bound how many calls of one owner use Redis at once, so that others always find a connection. First come, first served.
type shares struct {
	each int // calls of one owner at once; 0: any number

	mu  sync.Mutex
	all map[string]*share // by the owner's tag
}

type share struct {
	places chan struct{}
	users  int // inside or waiting; guarded by shares.mu
}

func newShares(each int) *shares {
	return &shares{each: each, all: make(map[string]*share)}
}

// enter returns when fewer than each calls of the owner are inside, or with ctx's error. Inside, the caller must call leave once.
func (s *shares) enter(ctx context.Context, tag string) (leave func(), err error) {
	if s.each == 0 {
		return func() {}, nil
	}
	s.mu.Lock()
	mine, ok := s.all[tag]
	if !ok {
		mine = &share{places: make(chan struct{}, s.each)}
		s.all[tag] = mine
	}
	mine.users++
	s.mu.Unlock()
	forget := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if mine.users--; mine.users == 0 {
			delete(s.all, tag)
		}
	}
	select {
	case mine.places <- struct{}{}:
		return func() { <-mine.places; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
}
