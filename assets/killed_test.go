package assets_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// A sensor is killed in the middle of writing, twice, and starts again, which for Zeek
// is to open its logs with O_TRUNC; the collector comes only then. Every line that was
// on the disk is in Loki, once.
func TestWhatAKilledSensorWroteArrives(t *testing.T) {
	t.Parallel()
	b := newBench(t, "zeek", "loki", "collector")
	depot, sensor, loki := b.depot(), b.run("zeek"), b.run("loki")
	written := map[string]bool{}
	for range 3 {
		eventually(t, 60*time.Second, func() error { _, err := sensor.get(9991, "/metrics", nil); return err }, sensor)
		stop := sensor.disturb()
		known := len(written)
		eventually(t, 60*time.Second, func() error {
			depot.read("/logs/zeek", "weird", written)
			if len(written) < known+300 {
				return fmt.Errorf("%d lines are written", len(written)-known)
			}
			return nil
		}, sensor)
		sensor.kill()
		stop()
		depot.read("/logs/zeek", "weird", written)
		sensor.start()
	}
	collector := b.run("collector")
	eventually(t, 60*time.Second, func() error {
		got := map[string]int{}
		a, err := loki.ask(lokiPort, "/loki/api/v1/query_range", url.Values{"query": {`{sensor="zeek",log="weird"}`}, "limit": {"5000"}, "since": {"1h"}})
		if err != nil {
			return err
		}
		for _, s := range a.Data.Result {
			for _, v := range s.Values {
				got[fmt.Sprint(v[1])]++
			}
		}
		for line := range written {
			if got[line] != 1 {
				return fmt.Errorf("a line is in Loki %d times; %d of %d lines: %s", got[line], len(got), len(written), line)
			}
		}
		return nil
	}, loki, collector, sensor)
	t.Logf("%d lines", len(written))
}

// disturb sends the sensor what is no tunnel's, a datagram a millisecond, each of
// which makes a line of weird.log; until it is stopped.
func (i *instance) disturb() (stop func()) {
	i.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(i.address(), 4789)))
	if err != nil {
		i.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer conn.Close()
		for {
			select {
			case <-end:
				return
			case <-time.After(time.Millisecond):
				_, _ = conn.Write(make([]byte, 20)) // refused, once the sensor is dead
			}
		}
	}()
	return func() { close(end); <-ended }
}

// read adds the whole lines of a log's files in a folder.
func (i *instance) read(folder, log string, lines map[string]bool) {
	i.Helper()
	r, err := i.api.CopyFromContainer(i.Context(), i.id, client.CopyFromContainerOptions{SourcePath: folder})
	if err != nil {
		i.Fatalf("copy from %s: %v", i.service, err)
	}
	defer r.Content.Close()
	archive := tar.NewReader(r.Content)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			return // a file grew while it was copied: the next look has it
		}
		if !strings.HasPrefix(path.Base(header.Name), log+".") {
			continue
		}
		text, _ := io.ReadAll(archive)
		for line := range strings.Lines(string(text)) {
			if whole, ok := strings.CutSuffix(line, "\n"); ok {
				lines[whole] = true
			}
		}
	}
}
