package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A cluster's ports are the same everywhere, so these tests run in a network
// namespace of their own, in a process that is this test again. The nodes are this
// program as well.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("STANDIN_MAIN") != "":
		main()
	default:
		os.Exit(m.Run())
	}
}

// inNamespace runs the rest of a test in a network namespace with lo up, and
// reports whether this is that process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("STANDIN_INSIDE") == t.Name() {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "STANDIN_INSIDE="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil && os.Getenv("ZEEKDEMO_CI") == "" {
		t.Skip("SKIPPED: it needs a network namespace of its own: ", err)
	}
	if err != nil || testing.Verbose() {
		t.Logf("%s", out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return false
}

// cluster is running nodes and the folder of their logs.
type cluster struct {
	*testing.T
	dir string
	env []string
	out *os.File
}

// newCluster puts the two programs of an image into a folder.
func newCluster(t *testing.T, env ...string) *cluster {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"zeek":                          "#!/bin/sh\nSTANDIN_MAIN=1 exec " + self + ` "$@"` + "\n",
		"zeek-cluster-layout-generator": "#!/bin/sh\nexec zeek " + layoutFlag + ` "$@"` + "\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "bin", name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := &cluster{T: t, dir: filepath.Join(dir, "logs")}
	c.env = slices.Concat(os.Environ(), []string{"PATH=" + dir + "/bin:" + os.Getenv("PATH"), "TMPDIR=" + dir, "ZEEK_STANDIN_IDLE=1h"}, env)
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if c.out, err = os.Create(filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if text, err := os.ReadFile(c.out.Name()); err == nil && t.Failed() {
			t.Logf("%s", text)
		}
	})
	return c
}

// start runs a program in a folder of the cluster until the test's end.
func (c *cluster) start(folder string, env []string, words ...string) *exec.Cmd {
	c.Helper()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = folder, c.out, c.out
	cmd.Env = slices.Concat(c.env, env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	return cmd
}

const (
	clusterSource = "udp::127.0.0.1:4789:vxlan"
	clusterScript = "redef LogAscii::use_json = T;\n@load policy/frameworks/conn_key/packet_source/udp/vxlan_vni\n"
)

// startSensor runs them as the stack does, by process 1 of a sensor.
func (c *cluster) startSensor(workers int) *exec.Cmd {
	c.Helper()
	text, err := os.ReadFile("../../../assets/stack/zeek/sensor.sh")
	if err != nil {
		c.Fatal(err)
	}
	sensor := c.start(c.dir, []string{fmt.Sprintf("SENSOR_WORKERS=%d", workers)},
		"sh", "-c", string(text), "sensor", "zeek", "-i", clusterSource, "local", "-e", clusterScript)
	c.awaitWorkers(workers)
	return sensor
}

// startNodes runs each node by itself.
func (c *cluster) startNodes(workers int) (nodes []*exec.Cmd) {
	c.Helper()
	o := layoutOptions{loggers: 1, proxies: 1, workers: workers, address: "127.0.0.1", port: 27760, metricsPort: 9991}
	layout, err := parseLayout(o.layout())
	if err != nil {
		c.Fatal(err)
	}
	for _, n := range layout {
		dir := filepath.Join(c.dir, n.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			c.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, layoutFile), []byte(o.layout()), 0o644); err != nil {
			c.Fatal(err)
		}
		words := []string{filepath.Join(filepath.Dir(c.dir), "bin", "zeek"), backendScript}
		if n.kind == nodeWorker {
			words = append(words, "-i", clusterSource)
		}
		nodes = append(nodes, c.start(dir, []string{"CLUSTER_NODE=" + n.name}, append(words, "local", "-e", clusterScript)...))
	}
	c.awaitWorkers(workers)
	return nodes
}

// await polls until a thing is so.
func (c *cluster) await(what string, so func() bool) {
	c.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.Fatal(what)
		}
	}
}

func (c *cluster) awaitWorkers(n int) {
	c.Helper()
	c.await("the workers do not answer", func() bool {
		return !slices.ContainsFunc(c.received(n), func(packets int) bool { return packets < 0 })
	})
	c.await("the logger has no lines", func() bool {
		log, err := filepath.Glob(filepath.Join(c.dir, "*", "cluster.log"))
		_, err2 := os.Stat(filepath.Join(c.dir, "cluster.log"))
		return err == nil && len(log) > 0 || err2 == nil
	})
}

// received is what each worker's metrics say; -1 for one that does not answer.
func (c *cluster) received(workers int) (packets []int) {
	for i := range workers {
		n := -1
		name := fmt.Sprintf("worker-%d", i+1)
		if m := regexp.MustCompile(`zeek_net_received_packets_total\{node="` + name + `"\} (\d+)`).FindStringSubmatch(get(9994 + i)); m != nil {
			n, _ = strconv.Atoi(m[1])
		}
		packets = append(packets, n)
	}
	return packets
}

func get(port int) string { text, _ := fetch(port, "/metrics"); return text }

func fetch(port int, path string) (string, int) {
	r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return "", 0
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	return string(text), r.StatusCode
}

// sendFlows sends a packet of each of n flows, by a source port of its own, and
// waits until the workers have them.
func (c *cluster) sendFlows(n, workers int) []int {
	c.Helper()
	for i := range n {
		conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 20000 + i}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4789})
		if err != nil {
			c.Fatal(err)
		}
		if _, err := conn.Write(vxlanUDP(uint16(1000 + i))); err != nil {
			c.Fatal(err)
		}
		conn.Close()
	}
	var got []int
	c.await("not all packets were taken", func() bool {
		got = c.received(workers)
		sum := 0
		for _, packets := range got {
			sum += packets
		}
		return sum == n
	})
	return got
}

// vxlanUDP is a UDP packet from 10.0.0.1 and a port, in Ethernet in VXLAN.
func vxlanUDP(port uint16) []byte {
	b := []byte{8, 0, 0, 0, 0, 0, 7, 0}
	b = append(b, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 8, 0)
	b = append(b, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
	b = binary.BigEndian.AppendUint16(b, port)
	return append(b, 0, 9, 0, 12, 0, 0, 'd', 'a', 't', 'a')
}

// conns counts the lines of conn.log, and of what was rotated.
func (c *cluster) conns(folder string) int {
	names, err := filepath.Glob(filepath.Join(c.dir, folder, "conn*.log"))
	if err != nil {
		c.Fatal(err)
	}
	lines := 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			c.Fatal(err)
		}
		lines += bytes.Count(text, []byte("\n"))
	}
	return lines
}

func TestLayoutIsTheGenerators(t *testing.T) {
	var out bytes.Buffer
	if code := writeLayout(strings.Fields("-L 1 -P 1 -W 2 -a 127.0.0.1 -m 9991 -b 0.0.0.0"), &out, io.Discard); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	want, err := os.ReadFile(filepath.Join(sharedDir(t), "zeek9", "cluster", layoutFile))
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}

// In the order in which process 1 of a sensor stops them, no line is lost; and the
// kernel divided the flows.
func TestAClusterStoppedInOrderHasAllLines(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	c := newCluster(t)
	sensor := c.startSensor(3)
	for i, packets := range c.sendFlows(300, 3) {
		if packets < 50 {
			t.Errorf("worker %d has %d of 300 packets", i+1, packets)
		}
	}
	sensor.Process.Signal(syscall.SIGTERM)
	if err := sensor.Wait(); err != nil {
		t.Error(err)
	}
	if n := c.conns("."); n != 300 {
		t.Errorf("%d of 300 connections are in conn.log", n)
	}
}

// A logger rotates unless it is told otherwise, the last time at its end, and hands
// the files to a program that the image does not have.
func TestALoggerRotates(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	c := newCluster(t)
	nodes := c.startNodes(1)
	nodes[1].Process.Signal(syscall.SIGTERM)
	if err := nodes[1].Wait(); err != nil {
		t.Error(err)
	}
	finished, _ := filepath.Glob(filepath.Join(c.dir, "logger-1", "cluster.????-??-??-??-??-??.log"))
	open, _ := filepath.Glob(filepath.Join(c.dir, "logger-1", "cluster.log"))
	if len(finished) != 1 || len(open) != 0 {
		t.Errorf("finished: %q, left open: %q", finished, open)
	}
	c.await("nobody missed archive-log", func() bool {
		said, err := os.ReadFile(c.out.Name())
		return err == nil && bytes.Contains(said, []byte("archive-log: not found"))
	})
}

func TestAClusterStoppedAtOnceLosesLines(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	c := newCluster(t)
	nodes := c.startNodes(3)
	c.sendFlows(300, 3)
	for _, n := range nodes {
		n.Process.Signal(syscall.SIGTERM)
	}
	for _, n := range nodes {
		if err := n.Wait(); err != nil {
			t.Error(err)
		}
	}
	if n := c.conns("logger-1"); n >= 300 {
		t.Error("all connections are in conn.log: the real one loses most")
	}
}

// Its metrics are the real one's: no family that the node there does not have, and
// the node's name where it is there.
func TestAClustersMetricsAreZeeks(t *testing.T) {
	shared := sharedDir(t)
	if !inNamespace(t) {
		return
	}
	c := newCluster(t)
	c.startNodes(2)
	for port := 9991; port <= 9995; port++ {
		want, err := os.ReadFile(filepath.Join(shared, "zeek9", "cluster", fmt.Sprintf("metrics-%d.txt", port)))
		if err != nil {
			t.Fatal(err)
		}
		have, real := series(get(port)), series(string(want))
		if len(have) < 15 {
			t.Errorf("port %d: only %q", port, have)
		}
		for _, s := range have {
			if !slices.Contains(real, s) {
				t.Errorf("port %d: Zeek has no %s", port, s)
			}
		}
		if _, status := fetch(port, "/services.json"); (status == http.StatusOK) != (port == 9991) {
			t.Errorf("port %d: /services.json has status %d", port, status)
		}
	}
	text, _ := fetch(9991, "/services.json")
	var got []struct{ Targets []string }
	if err := json.Unmarshal([]byte(text), &got); err != nil || len(got) != 1 {
		t.Fatal(err, text)
	}
	slices.Sort(got[0].Targets)
	if want := "[127.0.0.1:9991 127.0.0.1:9992 127.0.0.1:9993 127.0.0.1:9994 127.0.0.1:9995]"; fmt.Sprint(got[0].Targets) != want {
		t.Errorf("targets %v, want %s", got[0].Targets, want)
	}
	c.checkListening(filepath.Join(shared, "zeek9", "cluster", "listening.txt"))
}

// checkListening compares the TCP ports that are listened on with those of a file.
func (c *cluster) checkListening(file string) {
	c.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		c.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`tcp 127.0.0.1:(\d+)`).FindAllStringSubmatch(string(text), -1) {
		want = append(want, m[1])
	}
	proc, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		c.Fatal(err)
	}
	var have []string
	for _, m := range regexp.MustCompile(`: 0100007F:(....) 00000000:0000 0A`).FindAllStringSubmatch(string(proc), -1) {
		port, _ := strconv.ParseUint(m[1], 16, 16)
		have = append(have, fmt.Sprint(port))
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(have, want) {
		c.Errorf("listens on %q, want %q", have, want)
	}
}

// series are the names of samples with the names of their labels, and the node's.
func series(text string) (all []string) {
	value := regexp.MustCompile(`([a-z_]+)="([^"]*)"`)
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, labels, _ := strings.Cut(lines.Text(), "{")
		if name == "" || name[0] == '#' {
			continue
		}
		name = strings.Fields(name)[0]
		var words []string
		for _, m := range value.FindAllStringSubmatch(labels, -1) {
			if m[1] == "node" {
				m[1] += "=" + m[2]
			}
			words = append(words, m[1])
		}
		slices.Sort(words)
		all = append(all, name+fmt.Sprint(words))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// What is sent to a logger that is not there waits in a bounded queue; the rest is
// lost and said so.
func TestLinesWaitForALogger(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	var stderr bytes.Buffer
	p := newPush([]string{address}, &stderr)
	for i := range (queueLength + 3) * batchLines {
		p.add("conn", fmt.Appendf(nil, "{%d}\n", i))
	}
	if got := strings.Count(stderr.String(), "error: Failed to send log write. HWM reached?\n"); got != 3 {
		t.Errorf("%d messages were refused, want 3", got)
	}
	s := newSensor(defaultScript(), newLogSet(t.TempDir()), seeds{}, nil)
	pull, err := listenLogs(address, s)
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	(&cluster{T: t}).await("not all lines came", func() bool { return s.snapshot().lines["conn"] == queueLength*batchLines })
	pull.close()
	if err := s.finish(); err != nil {
		t.Error(err)
	}
}

// A node that ends waits for a logger that is not there, but not for long.
func TestLinesForNoLoggerAreLost(t *testing.T) {
	p := newPush([]string{"127.0.0.1:1"}, io.Discard)
	p.add("conn", []byte("{}\n"))
	start := time.Now()
	p.close()
	if took := time.Since(start); took < linger || took > 10*linger {
		t.Errorf("it waited for %v", took)
	}
}
