package preload

import "sync/atomic"

// meter is how far a Source is, for others to read.
type meter struct {
	done  atomic.Int64
	total int64
}

func (m *meter) set(done, total int64) {
	m.done.Store(done)
	m.total = total
}

func (m *meter) add(n int64) { m.done.Add(n) }

func (m *meter) get() (done, total int64) { return m.done.Load(), m.total }
