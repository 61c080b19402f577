package tcpdump

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
)

// dump is one tcpdump that runs.
type dump struct {
	name    string
	cmd     *exec.Cmd
	source  *pcapfile.Files
	stderr  *lockedBuffer
	packets atomic.Uint64
	bytes   atomic.Uint64
	stopped atomic.Bool
	ended   chan struct{} // closed when it has ended; dropped is valid then
	dropped uint64
}

// lockedBuffer may be read while a process writes it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns what was written so far.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start starts one and waits until it captures, or says why it does not.
func start(name, expression string) (*dump, error) {
	if strings.HasPrefix(name, "-") {
		return nil, &Error{Interface: strconv.Quote(name), Err: errors.New("want an interface's name")}
	}
	args := []string{"-i", name, "-w", "-", "-U", "-s", "0", "--"}
	if expression != "" {
		args = append(args, expression)
	}
	d := &dump{name: name, cmd: exec.Command("tcpdump", args...), stderr: &lockedBuffer{}, ended: make(chan struct{})}
	d.cmd.Stderr = d.stderr
	out, err := d.cmd.StdoutPipe()
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		e := &Error{Interface: name, Err: err}
		if errors.Is(err, exec.ErrNotFound) {
			e.Advice = "install tcpdump"
		}
		return nil, e
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
func (d *dump) failure() error {
	said := strings.Join(strings.FieldsFunc(strings.ReplaceAll(d.stderr.String(), "tcpdump: ", ""), func(r rune) bool { return r == '\n' }), "; ")
	e := &Error{Interface: d.name, Err: errors.New("tcpdump: " + said)}
	if lower := strings.ToLower(said); strings.Contains(lower, "permission") || strings.Contains(lower, "not permitted") {
		e.Advice = "run it with sudo (or, on macOS, install Wireshark's ChmodBPF)"
	}
	return e
}

// wait waits for its end, which reading has met with readErr, and returns why it
// ended unless it was stopped.
func (d *dump) wait(readErr error) error {
	_ = d.cmd.Wait() // what it said is better
	d.dropped = droppedBy(d.stderr.String())
	if d.stopped.Load() {
		return nil
	}
	err := d.failure()
	if !errors.Is(readErr, io.EOF) {
		err = errors.Join(err, readErr)
	}
	return err
}

// droppedBy adds up what tcpdump says at its end.
func droppedBy(said string) (sum uint64) {
	line := regexp.MustCompile(`(?m)^(\d+) packets? dropped by (kernel|interface)`)
	for _, m := range line.FindAllStringSubmatch(said, -1) {
		n, _ := strconv.ParseUint(m[1], 10, 64)
		sum += n
	}
	return sum
}

func (d *dump) counts() afpacket.Counts {
	c := afpacket.Counts{Interface: d.name, Packets: d.packets.Load(), Bytes: d.bytes.Load()}
	select {
	case <-d.ended:
		c.Dropped = d.dropped
	default:
	}
	return c
}
