package hosttune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"strconv"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
)

// SensorBuffer is the receive buffer that the stack's sensors ask for, in bytes
// (udp_recv_buffer_size in their script).
const SensorBuffer = 32 << 20

// Late is a sensor whose socket was opened before the limit was raised, and why
// that is known.
type Late struct {
	Sensor Place  `json:"-"`
	Name   string `json:"sensor"`
	Reason string `json:"reason"`
}

// SocketBuffer returns the receive buffer of a sensor's smallest socket, or, of
// docker-proxy's on the port that is published for it, in the bytes of kernel
// memory that it may hold. Where it cannot be told, known is false; where there
// is no such socket, it is larger than any.
type SocketBuffer func(p Place, proxy bool) (bytes int, known bool)

// LocalSockets asks the kernel, which takes root on the sensor's machine.
func LocalSockets(p Place, proxy bool) (bytes int, known bool) {
	place, at, asking := sockets.OfProcess(p.Namespace.PID), netip.AddrPortFrom(netip.IPv4Unspecified(), p.Port), sockets.AsksForMuch
	if proxy {
		place, at, asking = sockets.Place{}, p.Published, sockets.AsksForNothing
	}
	if !at.IsValid() {
		return math.MaxInt, true // not published
	}
	w, err := sockets.Open(place, at, asking)
	if errors.Is(err, sockets.ErrNoSocket) {
		return math.MaxInt, true
	}
	if err != nil {
		return 0, false
	}
	defer w.Close()
	list, err := w.Read(nil)
	if err != nil || !w.Exact() {
		return 0, false
	}
	bytes = math.MaxInt
	for _, s := range list {
		bytes = min(bytes, s.Buffer)
	}
	return bytes, true
}

// queue is a receive queue on the way to a sensor, whose size was settled when
// its socket was opened.
type queue struct {
	whose   string
	setting Item
	granted int // what a socket gets that is opened now
	proxy   bool
}

// LateSensors returns those that have less of a receive buffer, or their
// docker-proxy has, than they would get if they were started now. What tells is
// the socket itself, where it can be asked; else whether the sensor's process
// is older than our change of the setting.
func LateSensors(ctx context.Context, m Machine, r Record, sensors []Place, ask SocketBuffer) ([]Late, error) {
	queues := []queue{
		{whose: "its socket", setting: Item{Setting: "net.core.rmem_max"}},
		{whose: "docker-proxy's socket for it", setting: Item{Setting: "net.core.rmem_default"}, proxy: true},
	}
	for i := range queues {
		q := &queues[i]
		q.setting.Path, q.setting.Where, q.setting.kind = sysctlPath(q.setting.Setting), Host, number
		now, err := read(ctx, m, q.setting)
		if err == nil {
			q.granted, err = strconv.Atoi(now)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", q.setting.Setting, err)
		}
		if q.setting.Now = now; !q.proxy {
			q.granted = 2 * min(q.granted, SensorBuffer) // the kernel doubles what is asked for (sock_setsockopt)
		}
	}
	var late []Late
	for _, s := range sensors {
		for _, q := range queues {
			reason, err := q.late(ctx, m, r, s, ask)
			if err != nil {
				return nil, err
			}
			if reason != "" {
				late = append(late, Late{s, s.Name, reason})
				break
			}
		}
	}
	return late, nil
}

// late says why a sensor should be restarted for a queue; empty if it need not.
func (q queue) late(ctx context.Context, m Machine, r Record, s Place, ask SocketBuffer) (string, error) {
	if bytes, known := ask(s, q.proxy); known {
		if bytes < q.granted {
			return fmt.Sprintf("%s has a buffer of %s, a new one gets %s", q.whose, mebibytes(bytes), mebibytes(q.granted)), nil
		}
		return "", nil
	}
	e, recorded := r.find(q.setting)
	if !recorded || !e.ours(q.setting.Now) {
		return "", nil
	}
	begun, err := processStart(ctx, m, s.Namespace.PID)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // it has just ended
	}
	if err == nil && begun < e.At {
		return "it was started before " + q.setting.Setting + " was raised", nil
	}
	return "", err
}

func mebibytes(n int) string {
	return strconv.FormatFloat(float64(n)/(1<<20), 'g', 3, 64) + " MiB"
}

// processStart tells when a process began, in seconds of the machine's uptime.
func processStart(ctx context.Context, m Machine, pid int) (float64, error) {
	file := fmt.Sprintf("/proc/%d/stat", pid)
	files, err := m.Read(ctx, nsenter.Namespace{}, file)
	if err != nil {
		return 0, err
	}
	content, ok := files[file]
	if !ok {
		return 0, fmt.Errorf("read %s: %w", file, fs.ErrNotExist)
	}
	p, err := procfs.Stat(content)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return float64(p.Started) / procfs.TicksPerSecond, nil
}
