package doctor

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// version is a version's numbers.
type version [3]int

// parseVersion reads up to three numbers off the start: "29.5.1-rc.1",
// "20.10.24+dfsg1", "1.41", "v28.0.0".
func parseVersion(text string) (v version, err error) {
	end := strings.IndexFunc(strings.TrimPrefix(text, "v"), func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	numbers := strings.TrimPrefix(text, "v")
	if end >= 0 {
		numbers = numbers[:end]
	}
	for i, part := range strings.Split(strings.TrimRight(numbers, "."), ".") {
		if i == len(v) {
			break
		}
		if v[i], err = strconv.Atoi(part); err != nil {
			return v, fmt.Errorf("read version %q: %w", text, err)
		}
	}
	return v, nil
}

// mustVersion is for versions in this source.
func mustVersion(text string) version {
	v, err := parseVersion(text)
	if err != nil {
		panic(err)
	}
	return v
}

// compare is negative if v is older than w.
func (v version) compare(w version) int {
	for i := range v {
		if c := cmp.Compare(v[i], w[i]); c != 0 {
			return c
		}
	}
	return 0
}
