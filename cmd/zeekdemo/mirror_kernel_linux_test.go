package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// A link leads from an interface of this machine to a client in a namespace.
type link struct {
	*testing.T
	name, client, host string
}

func newLink(t *testing.T) link {
	l := link{t, fmt.Sprintf("zml%d", os.Getpid()), testenv.Namespace(t), "10.213.77.1"}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", l.name).Run() })
	for _, line := range []string{"link add NAME type veth peer name eth0 netns CLIENT", "addr add 10.213.77.1/24 dev NAME", "link set NAME up",
		"-n CLIENT addr add 10.213.77.2/24 dev eth0", "-n CLIENT link set eth0 up"} {
		testenv.IP(t, strings.NewReplacer("NAME", l.name, "CLIENT", l.client).Replace(line))
	}
	return l
}

// objects are the queueing disciplines and filters of the link, and its tunnels.
func (l link) objects() string {
	l.Helper()
	text := ""
	for _, line := range []string{"tc qdisc show dev NAME", "tc filter show dev NAME ingress", "tc filter show dev NAME egress"} {
		args := strings.Fields(strings.ReplaceAll(line, "NAME", l.name))
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			l.Fatalf("%v: %v", args, err)
		}
		text += string(out)
	}
	tunnels, err := exec.Command("ip", "-o", "link", "show", "type", "vxlan").Output()
	if err != nil {
		l.Fatal(err)
	}
	for line := range strings.Lines(string(tunnels)) {
		if strings.Contains(line, " if="+l.name+" ") { // their aliases tell
			text += line
		}
	}
	return text
}

// shown are the mirrors of the link that status shows.
func (l link) shown(p program) (list []kernelMirror) {
	l.Helper()
	for _, m := range parseMirror(l.T, p.must(l.T, "status", "--json").stdout).Mirrors {
		if m.Interface == l.name {
			list = append(list, m)
		}
	}
	return list
}

// fetch has the client fetch that many bytes from this machine by TCP.
func (l link) fetch(bytes int) {
	l.Helper()
	listener, err := net.Listen("tcp", l.host+":0")
	if err != nil {
		l.Fatal(err)
	}
	defer listener.Close()
	go func() {
		c, err := listener.Accept()
		if err == nil {
			_, _ = c.Write(make([]byte, bytes))
			c.Close()
		}
	}()
	testenv.Inside(l, l.client, func() error {
		c, err := net.DialTimeout("tcp", listener.Addr().String(), 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if n, err := io.Copy(io.Discard, c); err != nil || n != int64(bytes) {
			return fmt.Errorf("%d bytes, %w", n, err)
		}
		return nil
	})
}

// seen waits until the sensor has logged a connection in which that many bytes
// were fetched, in the run.
func seen(t *testing.T, p program, run uint32, bytes int) {
	t.Helper()
	eventually(t, logWait(t), "the connection is logged", func() error {
		// It fails until there is a log.
		for line := range strings.Lines(p.run(t, "logs", "zeek", "--log", "conn").stdout) {
			if strings.Contains(line, fmt.Sprintf(`"id.ctx.vxlan_vni":%d`, run)) && strings.Contains(line, fmt.Sprintf(`"resp_bytes":%d`, bytes)) {
				return nil
			}
		}
		return fmt.Errorf("no connection of run %d with %d bytes", run, bytes)
	})
}

// kernelMirror is what these scenarios read of a mirror, by `mirror --json` and
// `status --json`.
type kernelMirror struct {
	Run, VNI  uint32
	How       string
	Verdict   string
	Interface string
	Sensor    string
	Detached  bool
	Mirrors   []kernelMirror
	Lossless  struct {
		Ledger struct{ Sent, Taken, Lost uint64 }
	}
}

func parseMirror(t *testing.T, document string) (m kernelMirror) {
	t.Helper()
	if err := json.Unmarshal([]byte(document), &m); err != nil {
		t.Fatalf("%v: %s", err, document)
	}
	return m
}

// The kernel mirrors an interface into the sensor, with nobody running; the
// mirror is shown, follows the sensor to another address, survives the stack, and
// leaves nothing behind.
func TestAMirrorStaysInTheKernel(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "tc")
	p, l := stackTest(t), newLink(t)
	p.must(t, "up", "--pull", "never")
	before := l.objects()
	t.Cleanup(func() { _ = exec.Command(p.path, "mirror", "--stop", l.name).Run() })

	run := parseMirror(t, p.must(t, "mirror", l.name, "--detach", "--json").stdout)
	if run.How != "kernel" || len(run.Mirrors) != 1 || !run.Mirrors[0].Detached {
		t.Errorf("%+v", run)
	}
	l.fetch(50_001)
	seen(t, p, run.Run, 50_001)
	shown := l.shown(p)
	if len(shown) != 1 || shown[0].VNI != run.Run || shown[0].Sensor != run.Mirrors[0].Sensor {
		t.Errorf("status shows %+v", shown)
	}
	p.fails(t, []string{"mirrored there already", "mirror --stop " + l.name}, "mirror", l.name, "--how", "kernel")

	// Somebody else takes the sensor's address.
	network := docker(t, "inspect", "--format", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", "zeekdemo-zeek-1")
	network = strings.Fields(network)[0]
	image := docker(t, "inspect", "--format", "{{.Image}}", "zeekdemo-zeek-1")
	docker(t, "rm", "-f", "zeekdemo-zeek-1")
	squatter := docker(t, "run", "-d", "--network", network, "--entrypoint", "sleep", image, "300")
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", squatter).Run() })
	up := p.must(t, "up", "--pull", "never")
	moved := l.shown(p)
	if len(moved) != 1 || moved[0].Sensor == run.Mirrors[0].Sensor || !strings.Contains(up.stderr, "The mirror of "+l.name+" goes to zeek at "+moved[0].Sensor) {
		t.Errorf("after the sensor moved: %+v\n%s", moved, up.stderr)
	}
	docker(t, "rm", "-f", squatter)
	l.fetch(50_002)
	seen(t, p, run.Run, 50_002)

	down := p.must(t, "down", "--volumes")
	if !strings.Contains(down.stderr, "mirror --stop") {
		t.Errorf("down does not tell that a mirror is left: %s", down.stderr)
	}
	p.must(t, "up", "--pull", "never") // another bridge, perhaps the same address
	l.fetch(50_003)
	seen(t, p, run.Run, 50_003)

	if out := p.must(t, "mirror", "--stop", l.name).stdout; !strings.Contains(out, l.name+" is no longer mirrored") {
		t.Errorf("%s", out)
	}
	if got := l.objects(); got != before {
		t.Errorf("left:\n%s\nbefore:\n%s", got, before)
	}
	attended(t, p, l, before)
}

// attended lets the program look after the mirror: it reports what the sensor
// took; killed, it leaves what the next one removes.
func attended(t *testing.T, p program, l link, before string) {
	start := func() (*exec.Cmd, *bytes.Buffer) {
		var stdout bytes.Buffer
		cmd := exec.Command(p.path, "mirror", l.name, "--how", "kernel", "--json")
		cmd.Stdout = &stdout
		stderr, err := cmd.StderrPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		said := make([]byte, 0, 4096)
		for b := make([]byte, 512); !bytes.Contains(said, []byte("Ctrl-C ends it")); {
			n, err := stderr.Read(b)
			if said = append(said, b[:n]...); err != nil {
				t.Fatalf("%s: %v", said, err)
			}
		}
		go func() { _, _ = io.Copy(io.Discard, stderr) }()
		return cmd, &stdout
	}
	cmd, stdout := start()
	l.fetch(50_004)
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	m := parseMirror(t, stdout.String())
	if ledger := m.Lossless.Ledger; cmd.ProcessState.ExitCode() != 0 || m.Verdict != "complete" || ledger.Sent < 40 || ledger.Taken != ledger.Sent {
		t.Errorf("exit code %d: %s", cmd.ProcessState.ExitCode(), stdout)
	}
	if got := l.objects(); got != before {
		t.Errorf("interrupted, left:\n%s\nbefore:\n%s", got, before)
	}
	cmd, _ = start()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if l.objects() == before {
		t.Error("a killed mirror leaves nothing: this shows nothing")
	}
	p.must(t, "mirror", "--stop", l.name)
	if got := l.objects(); got != before {
		t.Errorf("killed, then stopped, left:\n%s\nbefore:\n%s", got, before)
	}
}
