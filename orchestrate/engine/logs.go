package engine

import (
	"strings"
	"sync"

	"github.com/docker/compose/v5/pkg/api"
)

// consumer receives Compose's log lines, from one goroutine per container, and
// passes them on one at a time.
type consumer struct {
	project string
	line    func(service, line string)
	mu      sync.Mutex
}

var _ api.LogConsumer = (*consumer)(nil)

// Log takes a line of standard output. Compose names containers without the
// project, with their number: zeek-1.
func (c *consumer) Log(name, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	service := strings.TrimPrefix(name, c.project+"-")
	if i := strings.LastIndexByte(service, '-'); i > 0 {
		service = service[:i]
	}
	for line := range strings.Lines(message) {
		c.line(service, strings.TrimRight(line, "\r\n"))
	}
}

// Err takes a line of standard error.
func (c *consumer) Err(name, message string) { c.Log(name, message) }

// Status takes remarks such as "exited with code 0".
func (c *consumer) Status(name, message string) { c.Log(name, message) }
