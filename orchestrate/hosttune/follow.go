package hosttune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
)

// SensorBuffer is the receive buffer that the stack's sensors ask for, in bytes
// (udp_recv_buffer_size in their script).
const SensorBuffer = 32 << 20

// clockTick is USER_HZ, in which the kernel tells when a process began: 100 a
// second on every architecture that runs containers.
const clockTick = 100

// Late is a sensor whose socket was opened before the limit was raised, and why
// that is known.
type Late struct {
	Sensor Place  `json:"-"`
	Name   string `json:"sensor"`
	Reason string `json:"reason"`
}

// SocketBuffer returns the receive buffer of a sensor's smallest socket, in the
// bytes of kernel memory that it may hold. Where it cannot be told, ok is false.
type SocketBuffer func(Place) (bytes int, ok bool)

// LocalSockets asks the kernel, which takes root on the sensor's machine.
func LocalSockets(p Place) (bytes int, ok bool) {
	w, err := sockets.Open(sockets.OfProcess(p.Namespace.PID), netip.AddrPortFrom(netip.IPv4Unspecified(), p.Port), sockets.AsksForMuch)
	if err != nil {
		return 0, false
	}
	defer w.Close()
	list, err := w.Read(nil)
	if err != nil || len(list) == 0 || !w.Exact() {
		return 0, false
	}
	bytes = list[0].Buffer
	for _, s := range list {
		bytes = min(bytes, s.Buffer)
	}
	return bytes, true
}

// LateSensors returns those that have less of a receive buffer than they would
// get if they were started now. What tells is the socket itself, where it can
// be asked; else whether the sensor's process is older than our change of
// rmem_max.
func LateSensors(ctx context.Context, m Machine, r Record, sensors []Place, ask SocketBuffer) ([]Late, error) {
	const setting = "net.core.rmem_max"
	limit := Item{Setting: setting, Path: sysctlPath(setting), Where: Host, kind: number, place: Place{Name: Host}}
	now, err := read(ctx, m, limit)
	if err != nil {
		return nil, err
	}
	most, err := strconv.Atoi(now)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", setting, err)
	}
	granted := 2 * min(most, SensorBuffer) // the kernel doubles what is asked for (sock_setsockopt)
	var late []Late
	for _, s := range sensors {
		if bytes, ok := ask(s); ok {
			if bytes < granted {
				late = append(late, Late{s, s.Name, fmt.Sprintf("its socket has a buffer of %s, a new one gets %s", mebibytes(bytes), mebibytes(granted))})
			}
			continue
		}
		e, recorded := r.find(limit)
		if !recorded || !e.ours(now) {
			continue
		}
		begun, err := processStart(ctx, m, s.Namespace.PID)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return nil, err
		}
		if begun < e.At {
			late = append(late, Late{s, s.Name, "it was started before " + setting + " was raised"})
		}
	}
	return late, nil
}

func mebibytes(n int) string {
	return strconv.FormatFloat(float64(n)/(1<<20), 'g', 3, 64) + " MiB"
}

// processStart tells when a process began, in seconds of the machine's uptime:
// the 22nd field of its stat (proc_pid_stat(5)). The second, its name, is in
// parentheses and may hold anything.
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
	fields := strings.Fields(content[strings.LastIndexByte(content, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("read %s: %w", file, fs.ErrInvalid)
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return float64(ticks) / clockTick, nil
}
