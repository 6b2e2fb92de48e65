package telemetry

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// bounds part the durations that are counted together: ten to a decade, from 0.1 ms to 300 s. Those that the semantic conventions propose
// are among them.
var bounds = func() (all []time.Duration) {
	const longest = 300 * time.Second
	for decade := 100 * time.Microsecond; ; decade *= 10 {
		for _, hundredths := range []int64{100, 125, 150, 200, 250, 300, 400, 500, 600, 750} {
			bound := time.Duration(int64(decade) / 100 * hundredths)
			if bound > longest {
				return all
			}
			all = append(all, bound)
		}
	}
}()

// parts is how many parts the bounds make.
const parts = 67

// histogram counts durations by part. Its zero value is ready; it is safe for concurrent use.
type histogram struct {
	counts [parts]atomic.Uint64
	sum    atomic.Int64 // ns
}

func (h *histogram) add(d time.Duration) {
	part, _ := slices.BinarySearch(bounds, d) // a bound belongs to the part below it
	h.counts[part].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) now() Distribution {
	d := Distribution{Sum: time.Duration(h.sum.Load())}
	for part := range h.counts {
		d.counts[part] = h.counts[part].Load()
	}
	return d
}

// Distribution is how many durations of which length were counted.
type Distribution struct {
	Sum    time.Duration
	counts [parts]uint64
}

// Count is how many there were.
func (d Distribution) Count() (n uint64) {
	for _, count := range d.counts {
		n += count
	}
	return n
}

// UpTo is how many were at most as long as each of some bounds, of which every one is a bound of ours, and longer than the bound before;
// at last how many were longer than all.
func (d Distribution) UpTo(coarse []time.Duration) []uint64 {
	counts := make([]uint64, len(coarse)+1)
	for part, count := range d.counts {
		place := len(coarse)
		if part < len(bounds) {
			place, _ = slices.BinarySearch(coarse, bounds[part])
		}
		counts[place] += count
	}
	return counts
}

// Quantile is the duration that a share q of them do not exceed, within a third of its length; 0: there were none.
func (d Distribution) Quantile(q float64) time.Duration {
	rank := q * float64(d.Count())
	if rank == 0 {
		return 0
	}
	var below float64
	var least time.Duration
	for part, bound := range bounds {
		count := float64(d.counts[part])
		if below+count >= rank {
			return least + time.Duration((rank-below)/count*float64(bound-least))
		}
		below, least = below+count, bound
	}
	return least
}

func (d Distribution) plus(other Distribution) Distribution {
	d.Sum += other.Sum
	for part, count := range other.counts {
		d.counts[part] += count
	}
	return d
}

func (d Distribution) minus(other Distribution) Distribution {
	d.Sum -= other.Sum
	for part, count := range other.counts {
		d.counts[part] -= count
	}
	return d
}

// family is a histogram for each kind. Its zero value is ready; it is safe for concurrent use.
type family[K comparable] struct {
	mu  sync.RWMutex
	all map[K]*histogram
}

func (f *family[K]) of(kind K) *histogram {
	f.mu.RLock()
	h, ok := f.all[kind]
	f.mu.RUnlock()
	if ok {
		return h
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = make(map[K]*histogram)
	}
	if h, ok = f.all[kind]; !ok {
		h = new(histogram)
		f.all[kind] = h
	}
	return h
}

func (f *family[K]) now() map[K]Distribution {
	f.mu.RLock()
	defer f.mu.RUnlock()
	all := make(map[K]Distribution, len(f.all))
	for kind, h := range f.all {
		all[kind] = h.now()
	}
	return all
}
