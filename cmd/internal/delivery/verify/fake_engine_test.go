package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/sidecar"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// fakeEngine makes containers in this process: sensors are sockets on loopback,
// offline runs read their capture. Addresses of its containers are out of reach,
// so that the ways are by sidecar and published.
type fakeEngine struct {
	orchestrate.Engine // what verifying needs not
	tb                 testing.TB
	remote             bool
	forgotten          int  // containers that a client that has gone left behind
	deaf               bool // nobody listens at a published port
	// fail is what goes wrong at which step, such as "start live" or "remove run";
	// at is called at each.
	fail map[string]error
	at   func(step string)
	// ended says how containers end; those that are not named end well.
	ended map[string]orchestrate.Ended
	stack []orchestrate.Container // what runs beside the verification
	// namespace, if it is set, is where sensors listen.
	namespace func(c *oneShot) orchestrate.Container

	sidecars atomic.Int32 // that run

	mu    sync.Mutex
	made  map[string]*oneShot // those that are there
	all   []orchestrate.OneShot
	steps []string
}

// oneShot is a container.
type oneShot struct {
	orchestrate.OneShot
	what   string // "live", "sent" or "captured"
	sensor *sensor
	traffic
}

func newFake(tb testing.TB) *fakeEngine {
	return &fakeEngine{tb: tb, made: map[string]*oneShot{}, fail: map[string]error{}, ended: map[string]orchestrate.Ended{}}
}

// Containers are the stack's.
func (e *fakeEngine) Containers(context.Context, string) ([]orchestrate.Container, error) {
	return e.stack, nil
}

// step is one call of the engine, which may fail.
func (e *fakeEngine) step(name string) error {
	if e.at != nil {
		e.at(name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.steps = append(e.steps, name)
	return e.fail[name]
}

func (e *fakeEngine) get(id string) *oneShot {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.made[id]
}

// left are the containers that have not been removed.
func (e *fakeEngine) left() (names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.made {
		names = append(names, id)
	}
	return names
}

// sparc64 is a machine that is certainly not this one: programs for sidecars are
// given.
const sparc64 = "sparcv9"

func (e *fakeEngine) Info(context.Context) (orchestrate.EngineInfo, error) {
	return orchestrate.EngineInfo{OS: "linux", Arch: sparc64, Remote: e.remote}, e.step("info")
}

// Exec answers cat /proc/net/udp.
func (e *fakeEngine) Exec(_ context.Context, id string, cmd []string, stdout, stderr io.Writer) (int, error) {
	c := e.get(id)
	if strings.Join(cmd, " ") != "cat /proc/net/udp" || c == nil {
		fmt.Fprintln(stderr, "no such thing")
		return 1, nil
	}
	fmt.Fprintf(stdout, "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"+
		"    1: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0\n")
	return 0, e.step("look " + c.what)
}

func (e *fakeEngine) CreateOneShot(_ context.Context, p orchestrate.Project, o orchestrate.OneShot) (string, error) {
	_, what, _ := strings.Cut(o.Name, "-")
	if o.Service != "zeek" || o.Run == "" || len(p.Compose) == 0 {
		e.tb.Errorf("made of %+v", o)
	}
	e.mu.Lock()
	e.made[o.ContainerName()] = &oneShot{OneShot: o, what: what}
	e.all = append(e.all, o)
	e.mu.Unlock()
	return o.ContainerName(), e.step("create " + what)
}

func (e *fakeEngine) StartOneShot(_ context.Context, id string) (orchestrate.Container, error) {
	c := e.get(id)
	made := orchestrate.Container{ID: id, Name: id, State: "running"}
	if c.Capture != "" {
		return made, e.step("start " + c.what)
	}
	if e.namespace != nil {
		made = e.namespace(c)
		made.ID, made.Name = id, id
		return made, e.step("start " + c.what)
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return made, err
	}
	testenv.SetReadBuffer(e.tb, conn, 8<<20)
	c.sensor = listen(conn)
	if c.Publish {
		made.Ports = []orchestrate.PublishedPort{{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: e.port(c), ContainerPort: 4789, Protocol: "udp"}}
	}
	return made, e.step("start " + c.what)
}

// port is where a sensor's port is published.
func (e *fakeEngine) port(c *oneShot) uint16 {
	if !e.deaf {
		return c.sensor.address().Port()
	}
	closed, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		e.tb.Fatal(err)
	}
	defer closed.Close()
	return uint16(closed.LocalAddr().(*net.UDPAddr).Port)
}

func (e *fakeEngine) WaitOneShot(ctx context.Context, id string) (orchestrate.Ended, error) {
	c := e.get(id)
	if err := e.step("wait " + c.what); err != nil || ctx.Err() != nil {
		return orchestrate.Ended{}, errors.Join(err, ctx.Err())
	}
	var err error
	c.traffic, err = readOffline(c.Capture)
	return e.ended[c.what], err
}

func (e *fakeEngine) StopOneShot(_ context.Context, id string, _ time.Duration) (orchestrate.Ended, error) {
	c := e.get(id)
	if n := e.sidecars.Load(); n > 0 {
		e.tb.Errorf("%d sidecars run while their sensor is stopped", n)
	}
	if c.sensor != nil {
		c.sensor.stop(e.tb)
		c.traffic, c.sensor = c.sensor.traffic, nil
	}
	return e.ended[c.what], e.step("stop " + c.what)
}

func (e *fakeEngine) OneShotLogs(_ context.Context, id string) (io.ReadCloser, error) {
	c := e.get(id)
	if err := e.step("logs " + c.what); err != nil {
		return nil, err
	}
	return c.archive(c.Capture == "")
}

func (e *fakeEngine) RemoveOneShots(ctx context.Context, r orchestrate.Removal) (n int, err error) {
	step := "remove run"
	switch {
	case r.ID != "":
		step = "remove " + e.get(r.ID).what
	case r.Gone != nil:
		step, n = "remove forgotten", e.forgotten
	}
	if ctx.Err() != nil {
		e.tb.Errorf("%s: by a context that has ended", step)
	}
	if err := e.step(step); err != nil {
		return n, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, c := range e.made {
		if id == r.ID || r.Run != "" && c.Run == r.Run {
			if c.sensor != nil {
				c.sensor.stop(e.tb)
			}
			delete(e.made, id)
			n++
		}
	}
	return n, nil
}

// withSidecars is an engine that runs sidecars, in this process.
type withSidecars struct {
	*fakeEngine
	interpose func(forward.Sink) forward.Sink // before their way out
	// tamper changes what goes into them after the job, mute what they tell; nil
	// for nothing.
	tamper func(io.Reader) io.Reader
	mute   func(io.Writer) io.Writer
}

var (
	_ orchestrate.OneShots        = (*fakeEngine)(nil)
	_ orchestrate.CompanionEngine = withSidecars{}
)

func (e withSidecars) CreateCompanion(_ context.Context, spec orchestrate.CompanionSpec) (string, error) {
	if len(spec.(orchestrate.SidecarSpec).Args) != 1 || spec.(orchestrate.SidecarSpec).Args[0] != sidecar.Command {
		e.tb.Errorf("made of %+v", spec.(orchestrate.SidecarSpec))
	}
	return spec.(orchestrate.SidecarSpec).Sensor, e.step("create sidecar")
}

func (e withSidecars) Companions(context.Context, orchestrate.CompanionKind) ([]orchestrate.Companion, error) {
	return nil, nil
}

func (e withSidecars) RemoveCompanion(context.Context, string) error { return e.step("remove sidecar") }

// StartSidecar runs the other end; the sensor's loopback is where that is here.
func (e withSidecars) StartCompanion(_ context.Context, id string) (orchestrate.SidecarStreams, error) {
	if err := e.step("start sidecar"); err != nil {
		return orchestrate.SidecarStreams{}, err
	}
	to := e.get(id).sensor.address()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	ended := make(chan struct{})
	e.sidecars.Add(1)
	go func() {
		in, err := redirected(inR, to)
		if e.tamper != nil {
			in = e.tamper(in)
		}
		var out io.Writer = outW
		if e.mute != nil {
			out = e.mute(out)
		}
		if err == nil {
			err = sidecar.Server{In: in, Out: out, Interpose: e.interpose}.Serve(context.Background())
		}
		if err != nil {
			fmt.Fprintln(errW, "zeekdemo:", err)
		}
		outW.Close()
		errW.Close()
		inR.Close()
		e.sidecars.Add(-1)
		close(ended)
	}()
	return orchestrate.SidecarStreams{ID: id, Stdin: inW, Stdout: outR, Stderr: errR, Close: inW.Close,
		Wait: func(ctx context.Context) (int, error) {
			select {
			case <-ended:
				return 0, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}}, nil
}

// redirected changes the destination of the job, which is the first record of a
// relay's stream: kind, length in four bytes, document.
func redirected(in io.Reader, to netip.AddrPort) (io.Reader, error) {
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.LittleEndian.Uint32(head[1:]))
	if _, err := io.ReadFull(in, body); err != nil {
		return nil, err
	}
	var job sidecar.Job
	if err := json.Unmarshal(body, &job); err != nil {
		return nil, err
	}
	job.Destination = to
	body, err := json.Marshal(job)
	binary.LittleEndian.PutUint32(head[1:], uint32(len(body)))
	return io.MultiReader(bytes.NewReader(head[:]), bytes.NewReader(body), in), err
}
