// Package filter lets through only those frames that a pcap-filter(7)
// expression matches.
//
// The compiler is tcpdump's, run as a program: libpcap's own, without linking
// C. It reads nothing but the header of an empty capture of the link type, so
// it needs no privilege and no device. The program it prints is run by an
// interpreter of this package, because that of golang.org/x/net/bpf takes a
// frame's captured length for its length: "greater" and "less" would be wrong
// for frames that a snap length cut. The tests compare the interpreter with
// that one and with tcpdump itself.
package filter

import (
	"context"

	"golang.org/x/net/bpf"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Program is a compiled expression for one link type.
type Program struct{ raw []bpf.RawInstruction }

// Compile compiles a pcap-filter expression for frames of link type lt, of
// which up to snaplen bytes are captured (0 means 262144, tcpdump's default).
// Errors are tcpdump's own message; where there is no tcpdump they unwrap to
// exec.ErrNotFound and say how to install it.
func Compile(ctx context.Context, expr string, lt forward.LinkType, snaplen int) (*Program, error) {
	return compile(ctx, expr, lt, snaplen)
}

// Raw returns the instructions, for attaching them to a socket.
func (p *Program) Raw() []bpf.RawInstruction { return p.raw }
