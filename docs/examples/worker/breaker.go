package main

import (
	"sync"
	"time"
)

// A Breaker is open for a while after three failures in a row. Then one request tries.
type Breaker struct {
	pause time.Duration

	mutex      sync.Mutex
	failures   int
	closedFrom time.Time
}

// Allows says whether a server may be asked now.
func (b *Breaker) Allows() bool {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.failures < 3 {
		return true
	}
	if time.Now().Before(b.closedFrom) {
		return false
	}
	b.closedFrom = time.Now().Add(b.pause)
	return true
}

// Ended tells how a request ended that the breaker had allowed.
func (b *Breaker) Ended(failed bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if !failed {
		b.failures = 0
		return
	}
	b.failures++
	b.closedFrom = time.Now().Add(b.pause)
}
