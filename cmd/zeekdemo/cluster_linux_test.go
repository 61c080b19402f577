package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// A sensor of three workers takes every packet, each worker its share; it stops and
// starts without a lost line, and tells of a worker that is killed; and it becomes one
// process again. Of the stack only the sensor changes.
func TestSensorOfThreeWorkers(t *testing.T) {
	mix := testenv.Shared(t, "pcaps", "mix.pcap")
	p := stackTest(t)
	p.must(t, "up", "--pull", "never", "--workers", "3")
	if s := p.must(t, "status").stdout; !regexp.MustCompile(`(?m)^zeek +running +healthy .* vxlan, 3 workers `).MatchString(s) {
		t.Errorf("status:\n%s", s)
	}
	takenByAll(t, p, mix)
	stoppedInOrder(t, p)
	killedWorker(t, p, mix)

	before := containers(t)
	p.must(t, "up", "--pull", "never")
	for name, state := range containers(t) {
		if changed := state != before[name]; changed != (name == "zeek" || name == "exporter-zeek") {
			t.Errorf("one worker again: %s changed: %t", name, changed)
		}
	}
	if a := parseAccount(t, p.must(t, "replay", mix, "--pace", "max", "--limit", "10000", "--json").stdout); a.Lossless.Ledger.Taken != 10_000 || len(a.Lossless.Sockets) != 1 {
		t.Errorf("one worker: %+v", a.Lossless)
	}
}

// takenByAll replays a capture and looks who took it.
func takenByAll(t *testing.T, p program, capture string) {
	t.Helper()
	a := parseAccount(t, p.must(t, "replay", capture, "--pace", "max", "--json").stdout)
	if a.Verdict != "complete" || !a.Lossless.Governed || a.Lossless.Ledger.Taken != packetsInMix || len(a.Lossless.Sockets) != 3 {
		t.Errorf("%+v", a)
	}
	eventually(t, 30*time.Second, "every worker tells Prometheus of its share", func() error {
		all := 0
		for i := range 3 {
			n, err := packetsOf(fmt.Sprintf("worker-%d", i+1))
			if err != nil {
				return err
			}
			if n < packetsInMix/10 {
				return fmt.Errorf("worker-%d had %d of %d packets", i+1, n, packetsInMix)
			}
			all += n
		}
		if all < packetsInMix {
			return fmt.Errorf("%d of %d packets", all, packetsInMix)
		}
		return nil
	})
}

// packetsOf asks Prometheus what a node of the VXLAN sensor has received.
func packetsOf(node string) (int, error) {
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	query := fmt.Sprintf(`zeek_net_received_packets_total{sensor="zeek",node=%q}`, node)
	if err := fetch("http://127.0.0.1:19090/api/v1/query?"+url.Values{"query": {query}}.Encode(), &answer); err != nil {
		return 0, err
	}
	if len(answer.Data.Result) != 1 {
		return 0, fmt.Errorf("%d series of %s", len(answer.Data.Result), node)
	}
	return strconv.Atoi(fmt.Sprint(answer.Data.Result[0].Value[1]))
}

// stoppedInOrder stops the sensor with connections still open, and looks for every one
// of them in the logs.
func stoppedInOrder(t *testing.T, p program) {
	t.Helper()
	var r run
	if err := json.Unmarshal([]byte(p.must(t, "replay", "--pace", "max", "--json").stdout), &r); err != nil {
		t.Fatal(err)
	}
	docker(t, "stop", "zeekdemo-zeek-1")
	if code := docker(t, "inspect", "--format", "{{.State.ExitCode}}", "zeekdemo-zeek-1"); code != "0" {
		t.Errorf("the sensor ended with code %s", code)
	}
	p.must(t, "up", "--pull", "never", "--workers", "3")
	lines := docker(t, "exec", "zeekdemo-zeek-1", "sh", "-c", fmt.Sprintf(`cat /logs/zeek/conn*.log | grep -c '"id.ctx.vxlan_vni":%d[,}]'`, r.Run))
	if want := fmt.Sprint(len(samples.Connections())); lines != want {
		t.Errorf("%s connections are in the logs after a stop, want %s", lines, want)
	}
}

// datagramsTaken is how many UDP datagrams the VXLAN sensor's namespace has taken.
func datagramsTaken(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(docker(t, "exec", "zeekdemo-zeek-1", "awk", "/^Udp: [0-9]/ {print $2}", "/proc/net/snmp"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// killedWorker kills a worker in the middle of a run, which goes on: it names the
// worker, and does not say that everything was taken.
func killedWorker(t *testing.T, p program, capture string) {
	t.Helper()
	before := datagramsTaken(t)
	cmd := exec.Command(p.path, "replay", capture, "--pps", "3000", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the workers are at work", func() error {
		if n := datagramsTaken(t) - before; n < 3000 {
			return fmt.Errorf("%d datagrams taken", n)
		}
		return nil
	})
	docker(t, "exec", "zeekdemo-zeek-1", "sh", "-c", "kill -KILL $(cat /tmp/nodes/worker-2.pid)")
	var document json.RawMessage
	if err := json.NewDecoder(out).Decode(&document); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	a := parseAccount(t, string(document))
	if code := cmd.ProcessState.ExitCode(); code != 3 || !strings.Contains(a.Lossless.Ledger.Verdict, "worker-2 at 0.0.0.0:4789") {
		t.Errorf("exit code %d, %s", code, a.Lossless.Ledger.Verdict)
	}
	eventually(t, 30*time.Second, "the worker listens again", func() error {
		if s := p.run(t, "status").stdout; !regexp.MustCompile(`(?m)^zeek +running +healthy `).MatchString(s) {
			return fmt.Errorf("status:\n%s", s)
		}
		return nil
	})
	if said := docker(t, "logs", "zeekdemo-zeek-1"); !strings.Contains(said, "sensor: worker-2 ended by itself, exit code 137; what it had not finished is lost\n") {
		t.Errorf("the sensor does not say that its worker was killed:\n%s", said)
	}
}

// A cluster sees of captures what one process does: of connections, of many protocols,
// of a file that came in parts, of fragments and of tunnels.
func TestVerifyACluster(t *testing.T) {
	p := verifyTest(t)
	captures := []string{"verify", "--workers", "3", "--json"}
	for _, name := range []string{"bro.org.pcap", "206_example_b.pcap", "ipv6-fragmented-dns.pcap", "erspan.pcap", "irc-dcc-send.pcapng"} {
		captures = append(captures, testenv.Shared(t, "pcaps", name))
	}
	var doc verified
	if err := json.Unmarshal([]byte(p.must(t, captures...).stdout), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Verdict != "equal" || len(doc.Captures) != 5 {
		t.Errorf("%+v", doc)
	}
}
