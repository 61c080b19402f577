package main

import (
	"net/netip"
	"slices"
)

// maxPending bounds the datagrams whose fragments are kept; beyond it all are
// forgotten, which a stand-in can afford.
const maxPending = 1024

// fragmentKey names the datagram a fragment is part of.
type fragmentKey struct {
	src, dst netip.Addr
	id       uint32
	proto    uint8
	vnis     vnis
}

// fragment is a piece of a datagram's payload.
type fragment struct {
	off  int
	more bool
	data []byte
}

// fragments are the incomplete datagrams.
type fragments struct {
	pending map[fragmentKey][]fragment
}

// add keeps a copy of f and returns the whole payload once nothing is missing.
func (fs *fragments) add(key fragmentKey, f fragment) []byte {
	if fs.pending == nil || len(fs.pending) >= maxPending {
		fs.pending = make(map[fragmentKey][]fragment)
	}
	f.data = slices.Clone(f.data)
	parts := append(fs.pending[key], f)
	slices.SortStableFunc(parts, func(a, b fragment) int { return a.off - b.off })
	fs.pending[key] = parts
	whole := join(parts)
	if whole != nil {
		delete(fs.pending, key)
	}
	return whole
}

// join concatenates sorted parts, or returns nil where one is missing.
func join(parts []fragment) []byte {
	var whole []byte
	for _, p := range parts {
		if p.off > len(whole) {
			return nil
		}
		if fresh := len(whole) - p.off; fresh < len(p.data) {
			whole = append(whole, p.data[fresh:]...)
		}
		if !p.more && len(whole) == p.off+len(p.data) {
			return whole
		}
	}
	return nil
}
