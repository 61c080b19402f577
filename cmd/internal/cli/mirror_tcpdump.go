package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Where a system has no packet rings, its own tcpdump captures: it is allowed to,
// or asks to be, and writes a capture into a pipe.

// tcpdumpCapture is a liveCapture by one tcpdump for each interface. Their frames
// come as they arrive.
type tcpdumpCapture struct {
	dumps       []*tcpdump
	frames      chan copiedFrame
	interrupted atomic.Bool
	woken       chan struct{}
	readers     sync.WaitGroup
}

// tcpdump is one that runs.
type tcpdump struct {
	name    string
	cmd     *exec.Cmd
	source  *pcapfile.Files
	stderr  *lockedBuffer
	packets atomic.Uint64
	bytes   atomic.Uint64
	stopped atomic.Bool
	ended   chan struct{} // closed when it has ended; err and dropped are valid then
	err     error
	dropped uint64
}

type copiedFrame struct {
	frame forward.Frame
	err   error
}

// lockedBuffer may be read while a process writes it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

var _ liveCapture = (*tcpdumpCapture)(nil)

// ahead is how many frames of tcpdump's are held in memory.
const ahead = 4096

// openTcpdump starts to capture with tcpdump.
func openTcpdump(names []string, expression string, say func(string)) (liveCapture, error) {
	c := &tcpdumpCapture{frames: make(chan copiedFrame, ahead), woken: make(chan struct{}, 1)}
	for _, name := range names {
		d, err := startTcpdump(name, expression)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.dumps = append(c.dumps, d)
		say("Capturing on " + name + " with tcpdump")
		c.readers.Go(func() { c.read(d) })
	}
	go func() {
		c.readers.Wait()
		c.frames <- copiedFrame{err: io.EOF}
	}()
	return c, nil
}

// tcpdumpFilter adds to an expression what keeps the tunnel's packets out, and those
// of the streams by which frames leave.
func tcpdumpFilter(expression string, tunnels []afpacket.Tunnel, streams []netip.AddrPort) string {
	var parts []string
	if expression != "" {
		parts = append(parts, "("+expression+")")
	}
	for _, t := range tunnels {
		parts = append(parts, fmt.Sprintf("not (udp and dst host %s and dst port %d)", t.To.Addr().Unmap().WithZone(""), t.To.Port()))
	}
	for _, s := range streams {
		parts = append(parts, fmt.Sprintf("not (tcp and host %s and port %d)", s.Addr().Unmap().WithZone(""), s.Port()))
	}
	return strings.Join(parts, " and ")
}

// startTcpdump starts one and waits until it captures, or says why it does not.
func startTcpdump(name, expression string) (*tcpdump, error) {
	if strings.HasPrefix(name, "-") {
		return nil, usagef("interface %q: want its name", name)
	}
	args := []string{"-i", name, "-w", "-", "-U", "-s", "0", "--"}
	if expression != "" {
		args = append(args, expression)
	}
	d := &tcpdump{name: name, cmd: exec.Command("tcpdump", args...), stderr: &lockedBuffer{}, ended: make(chan struct{})}
	d.cmd.Stderr = d.stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", name, err)
	}
	if err := d.cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			err = orchestrate.WithHint(err, "install tcpdump")
		}
		return nil, fmt.Errorf("capture on %s: %w", name, err)
	}
	// The capture's header comes when the device has been opened.
	if d.source, err = pcapfile.OpenAll([]string{"-"}, pcapfile.Options{Stdin: out}); err != nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		return nil, d.failure()
	}
	return d, nil
}

// failure is what tcpdump said when it did not capture.
func (d *tcpdump) failure() error {
	said := strings.Join(strings.FieldsFunc(strings.ReplaceAll(d.stderr.String(), "tcpdump: ", ""), func(r rune) bool { return r == '\n' }), "; ")
	err := fmt.Errorf("capture on %s: tcpdump: %s", d.name, said)
	if lower := strings.ToLower(said); strings.Contains(lower, "permission") || strings.Contains(lower, "not permitted") {
		return orchestrate.WithHint(err, "run it with sudo (or, on macOS, install Wireshark's ChmodBPF)")
	}
	return err
}

// read copies the frames of one tcpdump until it ends.
func (c *tcpdumpCapture) read(d *tcpdump) {
	var f forward.Frame
	var err error
	for {
		if err = d.source.Next(&f); err != nil {
			break
		}
		d.packets.Add(1)
		d.bytes.Add(uint64(len(f.Data)))
		copied := f
		copied.Data = bytes.Clone(f.Data)
		c.frames <- copiedFrame{frame: copied}
	}
	waitErr := d.cmd.Wait()
	d.dropped = droppedBy(d.stderr.String())
	if !d.stopped.Load() {
		d.err = d.failure()
		if !errors.Is(err, io.EOF) {
			d.err = errors.Join(d.err, err)
		}
		_ = waitErr // what it said is better
		c.frames <- copiedFrame{err: d.err}
	}
	close(d.ended)
}

// droppedLine is what tcpdump says at its end.
var droppedLine = regexp.MustCompile(`(?m)^(\d+) packets? dropped by (kernel|interface)`)

func droppedBy(said string) (sum uint64) {
	for _, m := range droppedLine.FindAllStringSubmatch(said, -1) {
		n, _ := strconv.ParseUint(m[1], 10, 64)
		sum += n
	}
	return sum
}

// Sources implements liveCapture: it is one source.
func (c *tcpdumpCapture) Sources() []forward.Source { return []forward.Source{c} }

// Next implements forward.Source.
func (c *tcpdumpCapture) Next(f *forward.Frame) error {
	for {
		if c.interrupted.Load() {
			return context.Canceled
		}
		select {
		case next := <-c.frames:
			*f = next.frame
			return next.err
		case <-c.woken:
		}
	}
}

// Ready implements forward.Readier.
func (c *tcpdumpCapture) Ready() bool { return len(c.frames) > 0 || c.interrupted.Load() }

// Exclude does nothing: where tcpdump captures, the sensor is in a virtual machine
// or elsewhere, and the filter names all that it was to exclude at the start.
func (c *tcpdumpCapture) Exclude([]afpacket.Tunnel) error { return nil }

// Counts implements liveCapture. What the kernel dropped is known at the end only.
func (c *tcpdumpCapture) Counts() (list []afpacket.Counts, err error) {
	for _, d := range c.dumps {
		count := afpacket.Counts{Interface: d.name, Packets: d.packets.Load(), Bytes: d.bytes.Load()}
		select {
		case <-d.ended:
			count.Dropped = d.dropped
		default:
		}
		list = append(list, count)
	}
	return list, nil
}

// Stop implements liveCapture: tcpdump writes what it has and says what was
// dropped when it is interrupted.
func (c *tcpdumpCapture) Stop() error {
	var errs []error
	for _, d := range c.dumps {
		d.stopped.Store(true)
		if err := d.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, fmt.Errorf("stop tcpdump on %s: %w", d.name, err))
		}
	}
	return errors.Join(errs...)
}

// Interrupt implements liveCapture.
func (c *tcpdumpCapture) Interrupt(on bool) {
	c.interrupted.Store(on)
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// tcpdumpGrace is how long tcpdump may take to end.
const tcpdumpGrace = 2 * time.Second

// Close implements liveCapture.
func (c *tcpdumpCapture) Close() error {
	_ = c.Stop() // it may have ended
	limit := time.After(tcpdumpGrace)
	for _, d := range slices.Clone(c.dumps) {
		for open := true; open; {
			select {
			case <-c.frames: // nobody else takes them any more
			case <-d.ended:
				open = false
			case <-limit:
				_ = d.cmd.Process.Kill()
				limit = nil
			}
		}
	}
	return nil
}
