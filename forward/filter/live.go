package filter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/zeekdemo/zeekdemo/forward"
)

// CompileLive compiles an expression for frames as this machine's kernel has them
// when they pass a device: on Linux it keeps the VLAN tag beside the frame, so
// that "vlan 100" and offsets mean something else there than in a file. The
// program is to be attached to a socket, not run by [Program.Match].
//
// Tcpdump has to open the device for that. Where it may not, the program is the
// one for files: right for all but VLAN tags. Likewise for devices without a link
// layer, whose frames have no tags.
func CompileLive(ctx context.Context, expr, device string, lt forward.LinkType) (*Program, error) {
	if lt != forward.LinkEthernet || strings.ContainsRune(expr, 0) {
		return Compile(ctx, expr, lt, 0)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "tcpdump", "-ddd", "-p", "-i", device, "--", expr)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	inheritCapture(cmd)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && !strings.Contains(stderr.String(), "permission"):
		return nil, &Error{Expr: expr, LinkType: lt, Message: message(stderr.String(), exit)}
	case err != nil: // it may not open the device, or could not be run: then this says so
		return Compile(ctx, expr, lt, 0)
	}
	raw, err := parse(&stdout)
	if err != nil {
		return nil, fmt.Errorf("read tcpdump's program for filter %q: %w", expr, err)
	}
	return NewProgram(raw)
}
