package mirror

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// lab is a host between a client behind its interface c0 and a sensor behind s0.
// All three are namespaces of their own.
type lab struct {
	*testing.T
	host, client, sensor string
	mirrored             atomic.Int64 // datagrams that hold a mark
	receiver             *net.UDPConn // the sensor's
}

const (
	sensorHere  = "10.2.0.2:4789"
	sensorThere = "10.2.0.3:4789"
	mark        = "this is to be mirrored"
)

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{T: t, host: testenv.Namespace(t), client: testenv.Namespace(t), sensor: testenv.Namespace(t)}
	for _, line := range []string{
		"-n HOST link add s0 mtu 9000 type veth peer name eth0 mtu 9000 netns SENSOR",
		"-n HOST addr add 10.2.0.1/24 dev s0",
		"-n HOST addr add fd02::1/64 dev s0 nodad", "-n SENSOR addr add fd02::2/64 dev eth0 nodad",
		"-n SENSOR addr add 10.2.0.2/24 dev eth0", "-n SENSOR addr add 10.2.0.3/24 dev eth0",
		"-n HOST link set s0 up", "-n SENSOR link set eth0 up",
	} {
		testenv.IP(t, strings.NewReplacer("HOST", l.host, "SENSOR", l.sensor).Replace(line))
	}
	l.plug()
	testenv.Inside(t, l.sensor, func() error { l.receiver = testenv.ListenUDP(t, "0.0.0.0:4789", 8<<20); return nil })
	go func() {
		for buf := make([]byte, 1<<16); ; {
			n, err := l.receiver.Read(buf)
			if err != nil {
				return
			}
			if bytes.Contains(buf[:n], []byte(mark)) {
				l.mirrored.Add(1)
			}
		}
	}()
	return l
}

// plug connects the client.
func (l *lab) plug() {
	l.Helper()
	for _, line := range []string{
		"-n HOST link add c0 type veth peer name eth0 netns CLIENT", "-n HOST addr add 10.1.0.1/24 dev c0", "-n CLIENT addr add 10.1.0.2/24 dev eth0",
		"-n CLIENT link set eth0 up", "-n HOST link set c0 up",
	} {
		testenv.IP(l.T, strings.NewReplacer("HOST", l.host, "CLIENT", l.client).Replace(line))
	}
}

// onHost does something in the host's namespace.
func (l *lab) onHost(do func() error) { l.Helper(); testenv.Inside(l.T, l.host, do) }

// talk has the client send a mark to the host, and waits until the sensor has it.
func (l *lab) talk() {
	l.Helper()
	was := l.mirrored.Load()
	l.utter()
	eventually(l.T, "the sensor gets it", func() bool { return l.mirrored.Load() > was })
}

// talkInVain does so where nobody has it, and waits until it has left the tunnels.
func (l *lab) talkInVain() {
	l.Helper()
	was := packets(l.mirrors())
	l.utter()
	eventually(l.T, "it is mirrored", func() bool { return packets(l.mirrors()) > was })
}

// utter has the client send a mark to the host.
func (l *lab) utter() {
	l.Helper()
	testenv.Inside(l.T, l.client, func() error {
		c, err := net.Dial("udp", "10.1.0.1:7")
		if err == nil {
			defer c.Close()
			_, err = c.Write([]byte(mark))
		}
		return err
	})
}

// process runs in a namespace as a container's does, until the test is over or it
// is killed.
func process(t *testing.T, namespace string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	testenv.Inside(t, namespace, cmd.Start)
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// mirrors are those of the host.
func (l *lab) mirrors() (list []tcmirror.Mirror) {
	l.Helper()
	l.onHost(func() (err error) { list, err = tcmirror.List(); return err })
	return list
}

// run runs a mirror in the host's namespace until interrupt is called. What follows
// the beginning is done meanwhile.
func (l *lab) run(m func(context.Context) (*Document, error), heard *listener, meanwhile func()) (doc *Document, err error) {
	l.Helper()
	ctx, interrupt := context.WithCancel(l.Context())
	defer interrupt()
	over := make(chan struct{})
	go func() {
		defer close(over)
		testenv.Inside(l.T, l.host, func() error { doc, err = m(ctx); return nil })
	}()
	begun := func() bool {
		select {
		case <-over:
			return true
		default:
			return strings.Contains(heard.all(), "ends it")
		}
	}
	eventually(l.T, "it begins", begun)
	if strings.Contains(heard.all(), "ends it") {
		meanwhile()
	}
	interrupt()
	<-over
	return doc, err
}

// container is the sensor's: a process in its namespace, with an address.
func (l *lab) container(id, address string, pid int) orchestrate.Container {
	c := newStack().containers[0]
	c.ID, c.PID = id, pid
	c.Addresses = map[string]netip.Addr{orchestrate.MonitoringNetwork: netip.MustParseAddrPort(address).Addr()}
	return c
}

// intruder is an observer that does something before it looks at the flows.
type intruder struct {
	listener
	before func()
}

func (i *intruder) Flows(read func() []delivery.Flow) func() {
	i.before()
	return i.listener.Flows(read)
}
