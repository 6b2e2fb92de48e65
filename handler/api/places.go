package api

import (
	"sync"

	"chatkeep/handler/chat"
)

// places bound how many requests of one owner are in progress at once, so that nobody has all of this process. They are safe for
// concurrent use.
type places struct {
	each int // at least 1

	mu    sync.Mutex
	taken map[chat.Owner]int // of those who have a request in progress
}

func newPlaces(each int) *places {
	return &places{each: each, taken: make(map[chat.Owner]int)}
}

// enter returns false when all of the owner's places are taken. After true, leave must be called once.
func (p *places) enter(owner chat.Owner) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[owner] >= p.each {
		return false
	}
	p.taken[owner]++
	return true
}

func (p *places) leave(owner chat.Owner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken[owner]--
	if p.taken[owner] == 0 {
		delete(p.taken, owner)
	}
}
