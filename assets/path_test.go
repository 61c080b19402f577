package assets_test

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// logLines makes n lines as a sensor writes them, one each millisecond. Like
// Zeek's uids, the tag makes the start of each file different from all others,
// by which the collector knows them.
func logLines(tag string, first time.Time, n int) string {
	var text strings.Builder
	for i := range n {
		ts := first.Add(time.Duration(i) * time.Millisecond)
		fmt.Fprintf(&text, `{"ts":%d.%06d,"uid":"%s%06d","id.ctx.vxlan_vni":9,"proto":"tcp"}`+"\n", ts.Unix(), ts.Nanosecond()/1000, tag, i)
	}
	return text.String()
}

// Loki is killed, the sensors go on writing, the collector is killed as well:
// when both are back, every line is there, once.
func TestNothingIsLostOrDoubledOnTheWayToLoki(t *testing.T) {
	t.Parallel()
	b := newBench(t, "loki", "collector")
	depot, loki, collector := b.depot(), b.run("loki"), b.run("collector")
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	conn := logLines("C", start, 1000)
	depot.write("/logs", map[string]string{"zeek/conn.log": conn})
	eventually(t, 60*time.Second, func() error { return lokiHolds(loki, 1000, start) }, loki, collector)

	loki.kill()
	depot.write("/logs", map[string]string{"zeek/dns.log": logLines("D", start, 2000)})
	eventually(t, 30*time.Second, func() error { return waits(collector) }, collector)
	collector.kill()
	depot.write("/logs", map[string]string{"zeek/conn.log": conn + logLines("C", start.Add(time.Second), 500)})

	collector.start()
	loki.start()
	eventually(t, 90*time.Second, func() error { return lokiHolds(loki, 3500, start) }, loki, collector)
}

// waits wants the collector to hold lines that Loki has not taken.
func waits(collector *instance) error {
	metrics, err := collector.get(collectorPort, "/metrics", nil)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(metrics)) {
		if strings.HasPrefix(line, "otelcol_exporter_queue_size{") && !strings.HasSuffix(line, " 0\n") {
			return nil
		}
	}
	return errors.New("nothing waits in the collector")
}

// What an old capture or a broken clock does to times: a line is stored at its
// own time for a year, in whatever order lines come; beyond that, and in the
// future, at the time of reading; never is it dropped.
func TestTimesOfLines(t *testing.T) {
	t.Parallel()
	b := newBench(t, "loki", "collector")
	depot, loki := b.depot(), b.run("loki")
	now := time.Now().Truncate(time.Second)
	day := 24 * time.Hour
	own := []time.Duration{0, -2 * time.Hour, -time.Minute, -300 * day, -90 * time.Minute, -363 * day, -time.Second, -3 * day}
	reading := []time.Duration{-800 * day, -366 * day, 2 * time.Hour}
	var text strings.Builder
	for _, offset := range slices.Concat(own, reading) {
		text.WriteString(logLines("C", now.Add(offset), 1))
	}
	text.WriteString("{\"no\":\"ts\"}\nnot JSON at all\n")
	depot.write("/logs", map[string]string{"zeek/conn.log": text.String()})
	collector := b.run("collector")

	times := map[string]time.Time{}
	eventually(t, 60*time.Second, func() error {
		a, err := loki.ask(lokiPort, "/loki/api/v1/query_range", url.Values{
			"query": {`{service_name="zeek", sensor="zeek", log="conn"}`}, "start": {seconds(now.Add(-364 * day))}, "limit": {"1000"},
		})
		if err != nil {
			return err
		}
		for _, s := range a.Data.Result {
			for _, value := range s.Values {
				var nanoseconds int64
				fmt.Sscan(fmt.Sprint(value[0]), &nanoseconds)
				times[fmt.Sprint(value[1])] = time.Unix(0, nanoseconds)
			}
		}
		if want := strings.Count(text.String(), "\n"); len(times) != want {
			return fmt.Errorf("%d of %d lines are in Loki", len(times), want)
		}
		return nil
	}, loki, collector)
	for line, stored := range times {
		ts := timeOf(line)
		if slices.Contains(own, ts.Sub(now)) {
			if !stored.Equal(ts) {
				t.Errorf("line of %v is stored at %v", ts, stored)
			}
		} else if stored.Before(now) || stored.After(time.Now()) {
			t.Errorf("line %q is stored at %v, want the time of reading", line, stored)
		}
	}
}

// A sensor starts without a privilege and on a read-only root, writes into its
// own folder of the volume, which the engine makes, and becomes healthy; so it
// does again after a restart.
func TestSensorsStart(t *testing.T) {
	t.Parallel()
	b := newBench(t, "zeek")
	for _, service := range []string{"zeek", "zeek-geneve"} {
		t.Run(service, func(t *testing.T) {
			sensor := b.run(service)
			healthy := func() error {
				if h := sensor.inspect().State.Health; h == nil || h.Status != container.Healthy {
					return fmt.Errorf("%s is not healthy: %+v", service, h)
				}
				_, err := sensor.get(9991, "/metrics", nil)
				return err
			}
			eventually(t, 60*time.Second, healthy, sensor)
			if _, err := sensor.api.ContainerStatPath(t.Context(), sensor.id, client.ContainerStatPathOptions{Path: "/logs/" + service}); err != nil {
				t.Errorf("the sensor's folder: %v", err)
			}
			grace := int(time.Duration(*b.project.Services[service].StopGracePeriod).Seconds())
			if _, err := sensor.api.ContainerRestart(t.Context(), sensor.id, client.ContainerRestartOptions{Timeout: &grace}); err != nil {
				t.Fatal(err)
			}
			eventually(t, 60*time.Second, healthy, sensor)
			if _, err := sensor.api.ContainerStop(t.Context(), sensor.id, client.ContainerStopOptions{Timeout: &grace}); err != nil {
				t.Fatal(err)
			}
			if state := sensor.inspect().State; state.ExitCode != 0 || state.OOMKilled {
				t.Errorf("stopped with exit code %d, out of memory %v:\n%s", state.ExitCode, state.OOMKilled, sensor.logs())
			}
		})
	}
}
