package assets_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// taker is a Loki that takes lines, or refuses for now.
type taker struct {
	mu       sync.Mutex
	refuses  bool
	requests int
	lines    map[string]int // how often each came, by its uid
}

var uids = regexp.MustCompile(`"uid":"([A-Z]\d+)"`)

func (l *taker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	zipped, err := gzip.NewReader(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	body, err := io.ReadAll(zipped) // in protobuf a text is as it is
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	if err != nil || l.refuses {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	for _, m := range uids.FindAllSubmatch(body, -1) {
		l.lines[string(m[1])]++
	}
}

// refuse sets what it does from now on.
func (l *taker) refuse(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuses, l.requests = on, 0
}

// holds wants so many different lines, and tells how many came more than once.
func (l *taker) holds(want int) (again int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := range maps.Values(l.lines) {
		if n > 1 {
			again++
		}
	}
	if len(l.lines) != want {
		err = fmt.Errorf("%d of %d lines have come", len(l.lines), want)
	}
	return again, err
}

// tried wants it to have refused something since it began to.
func (l *taker) tried() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.requests == 0 {
		return fmt.Errorf("nobody has asked since")
	}
	return nil
}

// Whatever ends, nothing that is in a file is lost: the collector stores a position
// only when Loki has taken what is before it. Loki refuses, the disk for the
// positions is full, the collector is stopped or killed with lines in its hands.
func TestTheFilesAreTheBuffer(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*instance)
		full bool
	}{
		{"killed", (*instance).kill, false},
		{"asked to stop", (*instance).stop, false},
		{"killed, its disk full", (*instance).kill, true},
		{"asked to stop, its disk full", (*instance).stop, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "collector")
			loki := &taker{lines: map[string]int{}}
			b.serve("3100", loki)
			if tt.full {
				b.smallVolume("collector-state", "1m")
			}
			depot, collector := b.depot(), b.run("collector", "loki:"+b.gateway.String())
			start := time.Now().Add(-time.Minute).Truncate(time.Second)
			conn := logLines("C", start, 1050)
			depot.write("/logs", map[string]string{"zeek/conn.log": conn})
			arrived := func(want int) func() error {
				return func() error { _, err := loki.holds(want); return err }
			}
			eventually(t, 30*time.Second, arrived(1050), collector)
			if tt.full {
				collector.fill("/state")
			}

			loki.refuse(true)
			depot.write("/logs", map[string]string{"zeek/conn.log": conn + logLines("E", start.Add(5*time.Second), 250), "zeek/dns.log": logLines("D", start, 2000)})
			eventually(t, 30*time.Second, loki.tried, collector)
			tt.end(collector)
			depot.write("/logs", map[string]string{"zeek-geneve/logger-2/conn.log": logLines("F", start, 10)})
			loki.refuse(false)
			collector.start()
			eventually(t, 60*time.Second, arrived(3310), collector)
			if again, _ := loki.holds(3310); !tt.full && again > 0 {
				t.Errorf("%d lines came again though their positions could be stored", again)
			}
		})
	}
}

// stop ends the service as Compose does.
func (i *instance) stop() {
	i.Helper()
	if _, err := i.api.ContainerStop(i.Context(), i.id, client.ContainerStopOptions{}); err != nil {
		i.Fatalf("stop %s: %v", i.service, err)
	}
}

// smallVolume makes one of the project's volumes in memory, with a size that it
// cannot exceed.
func (b *bench) smallVolume(name, size string) {
	b.Helper()
	full := b.name + "-" + name
	if _, err := b.api.VolumeCreate(b.Context(), client.VolumeCreateOptions{Name: full, Driver: "local",
		DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=" + size}}); err != nil {
		b.Fatalf("create volume: %v", err)
	}
	b.cleanup("volume", func(ctx context.Context) error {
		_, err := b.api.VolumeRemove(ctx, full, client.VolumeRemoveOptions{})
		return err
	})
}

// fill writes into a folder until nothing more goes in.
func (i *instance) fill(folder string) {
	i.Helper()
	for size, n := 256<<10, 0; size >= 4<<10; n++ {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		if err := errors.Join(w.WriteHeader(&tar.Header{Name: fmt.Sprintf("filler%d", n), Mode: 0o644, Size: int64(size)}),
			write(w, size), w.Close()); err != nil {
			i.Fatal(err)
		}
		if _, err := i.api.CopyToContainer(i.Context(), i.id, client.CopyToContainerOptions{DestinationPath: folder, Content: &archive}); err != nil {
			size /= 2
		}
	}
}

func write(w io.Writer, size int) error {
	_, err := w.Write(bytes.Repeat([]byte{1}, size))
	return err
}

// With the real Loki: a sensor writes a thousand lines a second, and the collector is
// killed again and again. It sends again what came since it last stored its positions;
// each line is shown once, from Loki's memory and from its store.
func TestLinesThatAreSentAgainAreShownOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, "loki", "collector")
	depot, loki, collector := b.depot(), b.run("loki"), b.run("collector")
	start := time.Now().Add(-5 * time.Minute).Truncate(time.Second)
	var text strings.Builder
	lines := 0
	write := func() {
		const more = 500
		text.WriteString(logLines("C", start.Add(time.Duration(lines)*time.Millisecond), more))
		lines += more
		depot.write("/logs", map[string]string{"zeek/conn.log": text.String()})
	}
	write()
	eventually(t, 60*time.Second, func() error { return lokiHolds(loki, lines, start) }, loki, collector)
	for range 5 {
		for range 4 {
			write()
			before := sent(loki)
			eventually(t, 30*time.Second, func() error {
				if n := sent(loki); n < before+100 {
					return fmt.Errorf("Loki has been sent %d lines, %d before", n, before)
				}
				return nil
			}, loki, collector)
		}
		collector.kill()
		write()
		collector.start()
	}
	eventually(t, 90*time.Second, func() error { return lokiHolds(loki, lines, start) }, loki, collector)
	t.Logf("%d lines, %d of them sent again", lines, sent(loki)-lines)
	loki.stop() // it writes what it has in memory to its store
	loki.start()
	eventually(t, 90*time.Second, func() error { return lokiHolds(loki, lines, start) }, loki, collector)
}

// sent is how many lines Loki was sent since it started.
func sent(loki *instance) (n int) {
	metrics, _ := loki.get(lokiPort, "/metrics", nil)
	for line := range strings.Lines(string(metrics)) {
		if strings.HasPrefix(line, "loki_distributor_lines_received_total{") {
			var more float64
			fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &more)
			n += int(more)
		}
	}
	return n
}
