package sidecar

import (
	"encoding/json"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Command is the hidden command that runs inside a sidecar.
const Command = "sidecar"

// protocol is the version of job and messages. Both ends must have the same:
// --sidecar-binary may be of another release.
const protocol = 7

// Job is what the client wants sent.
type Job struct {
	Protocol    int               `json:"protocol"`    // set by Run
	Destination netip.AddrPort    `json:"destination"` // on the namespace's loopback
	Nodes       orchestrate.Nodes `json:"nodes"`       // of the sensor
	Config      encap.Config      `json:"config"`
	Pace        pace.Spec         `json:"pace"`
	CPU         transmit.CPU      `json:"cpu"`
	Limit       uint64            `json:"limit"`
	Duration    time.Duration     `json:"duration"`
	Lossless    watch.Mode        `json:"lossless"`
	Waiting     watch.Waiting     `json:"waiting"`
	Journal     bool              `json:"journal"` // tell what was sent when
}

// Message is what the sidecar tells, one a line: the first when it is about to
// send, then how far it is, the last with Final.
type Message struct {
	Taken        int64                `json:"taken"` // bytes of frame records, the client's credit
	Transmission transmit.Description `json:"transmission"`
	Kernel       transmit.Stats       `json:"kernel"`
	Report       forward.Report       `json:"report"`
	Journal      []byte               `json:"journal,omitempty"` // continues the one before, see package record
	News         []string             `json:"news,omitempty"`    // lines for who watches the run
	Account      *watch.Account       `json:"account,omitempty"` // with Final
	Final        bool                 `json:"final,omitempty"`
	Error        string               `json:"error,omitempty"`
	Loss         bool                 `json:"loss,omitempty"` // Error is a loss: see watch.LossError
}

// begin is the message that the next one is read into: what that leaves out stays
// as it was. Lists are the message's own, for others read this one meanwhile, and
// decoding writes into the list that is there.
func (m Message) begin() Message {
	next := Message{Transmission: m.Transmission, Kernel: m.Kernel, Report: m.Report}
	next.Transmission.Reasons = slices.Clone(m.Transmission.Reasons)
	next.Kernel.Fallbacks = slices.Clone(m.Kernel.Fallbacks)
	next.Report.Refused = slices.Clone(m.Report.Refused)
	return next
}

// write writes one message.
func (m Message) write(w io.Writer) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
