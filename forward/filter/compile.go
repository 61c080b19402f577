package filter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"golang.org/x/net/bpf"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
)

// defaultSnapLen is tcpdump's own.
const defaultSnapLen = 262144

// installHint follows the message that tcpdump is missing.
const installHint = "filters need it: install tcpdump (Debian: apt-get install tcpdump; macOS: it is there)"

// rejectsAll is libpcap's message (gencode.c) for an expression that no packet
// of a link type can match.
const rejectsAll = "expression rejects all packets"

// Error is an expression that tcpdump refused.
type Error struct {
	Expr     string
	LinkType forward.LinkType
	Message  string // tcpdump's own
}

// Error gives the expression, the link type and tcpdump's message.
func (e *Error) Error() string {
	return fmt.Sprintf("compile filter %q for %s: %s", e.Expr, encap.LinkTypeName(e.LinkType), e.Message)
}

// RejectsAll reports whether the expression is right, but no frame of the link
// type can match it: "ip6" on a link that carries IPv4 only.
func (e *Error) RejectsAll() bool { return e.Message == rejectsAll }

// Compile compiles a pcap-filter expression for frames of link type lt, of
// which up to snaplen bytes are captured (0 means 262144, tcpdump's default).
// What tcpdump refuses is an [*Error]; where there is no tcpdump the error
// unwraps to exec.ErrNotFound and says how to install it.
func Compile(ctx context.Context, expr string, lt forward.LinkType, snaplen int) (*Program, error) {
	if snaplen <= 0 {
		snaplen = defaultSnapLen
	}
	if strings.ContainsRune(expr, 0) {
		return nil, fmt.Errorf("compile filter %q: it contains a zero byte", expr)
	}
	out, err := tcpdump(ctx, expr, lt, snaplen)
	if err != nil {
		return nil, err
	}
	raw, err := parse(bytes.NewReader(out))
	if err != nil {
		return nil, fmt.Errorf("read tcpdump's program for filter %q: %w", expr, err)
	}
	return NewProgram(raw)
}

// tcpdump runs the compiler. "--" ends the options, so that an expression that
// begins with "-" cannot become one.
func tcpdump(ctx context.Context, expr string, lt forward.LinkType, snaplen int) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "tcpdump", "-ddd", "-r", "-", "--", expr)
	cmd.Stdin = bytes.NewReader(emptyCapture(lt, snaplen))
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return stdout.Bytes(), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("compile filter %q: %w", expr, context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("run tcpdump: %w; %s", exec.ErrNotFound, installHint)
	case errors.As(err, &exit):
		return nil, &Error{Expr: expr, LinkType: lt, Message: message(stderr.String(), exit)}
	}
	return nil, fmt.Errorf("run tcpdump: %w", err)
}

// emptyCapture is a pcap file header and nothing else.
func emptyCapture(lt forward.LinkType, snaplen int) []byte {
	head := make([]byte, 24)
	le := binary.LittleEndian
	le.PutUint32(head, 0xa1b2c3d4)
	le.PutUint16(head[4:], 2)
	le.PutUint16(head[6:], 4)
	le.PutUint32(head[16:], uint32(snaplen))
	le.PutUint32(head[20:], uint32(lt))
	return head
}

// message takes what matters from tcpdump's standard error: its lines begin
// with the program's name, other lines tell what it reads.
func message(stderr string, exit *exec.ExitError) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "tcpdump: "); ok {
			lines = append(lines, text)
		}
	}
	if len(lines) == 0 {
		return fmt.Sprintf("tcpdump ended with %v: %s", exit, strings.TrimSpace(stderr))
	}
	return strings.Join(lines, "; ")
}

// parse reads the output of tcpdump -ddd: the number of instructions, then each
// as four decimal numbers, and checks that the program is sound.
func parse(r io.Reader) ([]bpf.RawInstruction, error) {
	in := bufio.NewReader(r)
	var n int
	if _, err := fmt.Fscanln(in, &n); err != nil {
		return nil, fmt.Errorf("number of instructions: %w", err)
	}
	if n < 1 || n > maxInstructions {
		return nil, fmt.Errorf("%d instructions", n)
	}
	raw := make([]bpf.RawInstruction, n)
	for i := range raw {
		ins := &raw[i]
		if _, err := fmt.Fscanln(in, &ins.Op, &ins.Jt, &ins.Jf, &ins.K); err != nil {
			return nil, fmt.Errorf("instruction %d: %w", i, err)
		}
	}
	return raw, nil
}

// maxInstructions bounds a program. The kernel takes 4096 (BPF_MAXINSNS), a
// file filter may be longer.
const maxInstructions = 1 << 20
