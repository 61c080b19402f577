package orchestrate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Store is one of the places where the stack keeps what it has seen. The janitor
// looks at them every twenty seconds (assets/stack/janitor/janitor.sh).
type Store struct {
	Name    string        `json:"name"` // loki, prometheus, collector, or a sensor whose files it holds
	Bytes   int64         `json:"bytes"`
	Most    int64         `json:"bytes_at_most,omitempty"` // its share of the disk; 0 where it has none
	Oldest  *time.Time    `json:"oldest,omitempty"`        // when the oldest file in it was written; none in an empty one
	Keep    time.Duration `json:"-"`                       // age that is deleted now, less than was asked for where its share is short; 0: none
	KeepSec float64       `json:"kept_seconds,omitempty"`  // the same
	Refuses bool          `json:"refuses,omitempty"`       // its share is used up: it takes nothing until there is room
}

// janitorName is the service that looks at the stores.
const janitorName = "janitor"

// storesTimeout bounds the question to the janitor.
const storesTimeout = 5 * time.Second

// Stores reads the janitor's last account. An error says why it is not known.
func Stores(ctx context.Context, engine Engine) ([]Store, error) {
	containers, err := byService(ctx, engine)
	if err != nil {
		return nil, err
	}
	c, ok := containers[janitorName]
	if !ok || !c.Running() {
		return nil, errors.New("ask for the size of the stores: the janitor does not run")
	}
	ctx, cancel := context.WithTimeout(ctx, storesTimeout)
	defer cancel()
	var out strings.Builder
	code, err := engine.Exec(ctx, c.ID, []string{"cat", "/tmp/stores"}, &out, io.Discard)
	if err == nil && code != 0 {
		err = errors.New("the janitor has not looked yet")
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the size of the stores: %w", err)
	}
	return parseStores(out.String())
}

// parseStores reads lines of a name, KiB, KiB at most, the second of the oldest file
// or "-", seconds kept, and perhaps "refuses".
func parseStores(text string) ([]Store, error) {
	var list []Store
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue // when it was written, or a store that could not be looked at
		}
		used, usedErr := strconv.ParseInt(fields[1], 10, 54)
		most, mostErr := strconv.ParseInt(fields[2], 10, 54)
		keep, keepErr := strconv.ParseInt(fields[4], 10, 33)
		if err := errors.Join(usedErr, mostErr, keepErr); err != nil {
			return nil, fmt.Errorf("read the janitor's account: %w", err)
		}
		s := Store{Name: fields[0], Bytes: used << 10, Most: most << 10, Keep: time.Duration(keep) * time.Second, KeepSec: float64(keep), Refuses: len(fields) > 5}
		if second, err := strconv.ParseInt(fields[3], 10, 64); err == nil {
			oldest := time.Unix(second, 0)
			s.Oldest = &oldest
		}
		list = append(list, s)
	}
	return list, nil
}
