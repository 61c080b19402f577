package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
)

// seeds are the numbers from which Zeek seeds its random numbers and the hashes
// of its tables: one and twenty, a line each in a file that --save-seeds writes.
// Whatever Zeek takes from a hash (the order of a set, which element of a table
// comes first, the identifiers of connections and files) is the same in two
// processes of equal seeds that see the same, and differs in all others.
type seeds [21]uint32

// newSeeds reads the file of --load-seeds or, without one, of ZEEK_SEED_FILE, or
// draws the seeds of this process, and saves them where --save-seeds says.
func newSeeds(o options, getenv func(string) string) (seeds, error) {
	var s seeds
	for i := range s {
		s[i] = rand.Uint32()
	}
	if name := cmp.Or(o.loadSeeds, getenv("ZEEK_SEED_FILE")); name != "" {
		if err := s.load(name); err != nil {
			return s, fmt.Errorf("could not load seeds from file %s: %w", name, err)
		}
	}
	if o.saveSeeds != "" {
		return s, os.WriteFile(o.saveSeeds, s.text(), 0o644)
	}
	return s, nil
}

func (s *seeds) load(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	in := strings.NewReader(string(text))
	for i := range s {
		if _, err := fmt.Fscan(in, &s[i]); err != nil {
			return fmt.Errorf("number %d of %d: %w", i+1, len(s), err)
		}
	}
	return nil
}

func (s *seeds) text() []byte {
	var b []byte
	for _, v := range s {
		b = fmt.Appendln(b, v)
	}
	return b
}

// hash is a keyed hash of the text.
func (s *seeds) hash(text string) [sha256.Size]byte {
	b := make([]byte, 0, 4*len(s)+len(text))
	for _, v := range s {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return sha256.Sum256(append(b, text...))
}

// set returns the elements in the order of a hash table.
func (s *seeds) set(elements ...string) []string {
	sorted := slices.Clone(elements)
	slices.SortFunc(sorted, func(a, b string) int {
		x, y := s.hash(a), s.hash(b)
		return slices.Compare(x[:], y[:])
	})
	return sorted
}

// identifier is a letter and 96 bits of the text's hash in base 62, without
// leading zeros, as Zeek writes them.
func (s *seeds) identifier(letter byte, text string) string {
	h := s.hash(text)
	return string(base62(base62([]byte{letter}, binary.BigEndian.Uint64(h[:])), uint64(binary.BigEndian.Uint32(h[8:]))))
}

func base62(b []byte, v uint64) []byte {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for ; v > 0; v /= uint64(len(digits)) {
		b = append(b, digits[v%uint64(len(digits))])
	}
	return b
}
