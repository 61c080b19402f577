package mirror

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// Document is what a mirror came to, as `mirror --json` prints it: what a replay's
// document has, but for its files, and what is known of the interfaces.
type Document struct {
	delivery.Document
	Files     []string `json:"files,omitempty"` // never any
	How       How      `json:"how"`             // Forwarder or Kernel
	HowReason string   `json:"how_reason,omitempty"`
	// Interfaces are those that were captured on, by the forwarder.
	Interfaces []afpacket.Counts `json:"interfaces,omitempty"`
	// Mirrors are the kernel's.
	Mirrors []tcmirror.Mirror `json:"mirrors,omitempty"`
	// Troubles is what was said about the packets of the kernel's mirrors; what the
	// forwarder met is in Kernel.
	Troubles []transmit.Trouble `json:"troubles,omitempty"`
}

func (m *mirror) document(rep forward.Report) *Document {
	doc := &Document{How: m.how, HowReason: m.howReason}
	doc.Run, doc.Encapsulation, doc.Report = m.Config.VNI, m.Config.Kind.String(), rep
	doc.Destination, doc.Via, doc.ViaReason = m.target.Address.String(), m.target.Kind, strings.Join(m.target.Reasons, "; ")
	doc.GrafanaURL = delivery.Link(m.target.Grafana, m.Config, rep)
	return doc
}

// conclude puts the verdict into the document.
func (d *Document) conclude(result error) (*Document, error) {
	d.Verdict = delivery.VerdictOf(result)
	if d.Report.Finished || result != nil { // else it goes on without this program
		d.Delivery = delivery.Known(result, d.heard(), d.Lossless)
	}
	if result != nil {
		d.Error = result.Error()
	}
	return d, result
}

// heard is what was said on the way, however it was mirrored.
func (d *Document) heard() *transmit.Stats {
	if d.Kernel != nil {
		return d.Kernel
	}
	return &transmit.Stats{Troubles: d.Troubles}
}

// outcome sums up a run by the forwarder.
func (r *liveRun) outcome(counts []afpacket.Counts, runErr error) (*Document, error) {
	rep := forward.JoinReports(r.reports).Between(r.begun, time.Now()) // not only from the first packet on
	rep.Stalls, rep.StalledSeconds = rep.Stalls+r.stalls, rep.StalledSeconds+r.stalled.Seconds()
	doc := r.document(rep)
	doc.Interfaces = counts
	if len(r.reports) > 0 {
		doc.Transmission, doc.Kernel = &r.about, &r.kernel
	}
	if len(r.accounts) > 0 {
		account := watch.Join(r.accounts)
		doc.Lossless = &account
	}
	return doc.conclude(r.judge(doc, runErr))
}

// judge is nil if everything that passed the interfaces has reached the sensor, as
// far as that is known.
func (r *liveRun) judge(doc *Document, runErr error) error {
	var lost uint64
	for _, c := range doc.Interfaces {
		lost += c.Lost()
	}
	frames := delivery.LostFrames(doc.Report)
	switch {
	case errors.Is(runErr, errNoSensor):
		return watch.Lossf("%s packets had nowhere to go: the sensor had gone", units.Count(lost+doc.Report.DatagramsUnsent))
	case runErr != nil:
		return fmt.Errorf("mirror %s: %w", strings.Join(r.interfaces, ", "), runErr)
	case lost > 0:
		return &watch.LossError{Err: orchestrate.WithHint(fmt.Errorf("%s packets were lost before they could be sent", units.Count(lost)),
			"narrow what is mirrored with --filter, or share the work with --workers")}
	case frames > 0:
		return watch.Lossf("%s of %s frames could not pass", units.Count(frames), units.Count(doc.Report.FramesRead))
	}
	return delivery.Arrival(r.target.Address, doc.Kernel, doc.Lossless)
}

// kernelOutcome sums up what the kernel's mirrors did.
func (m *mirror) kernelOutcome(running []tcmirror.Mirror, begun time.Time, books *kernelBooks, runErr error) (*Document, error) {
	rep := forward.Report{Finished: !m.Detach, Refused: []forward.RefusedCount{}}
	var lost uint64
	for _, k := range running {
		rep.DatagramsSent += k.Stats.Tunnel.Packets
		rep.FramesRead += k.Stats.Received.Packets + k.Stats.Sent.Packets
		rep.InnerBytes += k.Stats.Received.Bytes + k.Stats.Sent.Bytes
		lost += k.Stats.Lost()
	}
	doc := m.document(rep.Between(begun, time.Now()))
	doc.Mirrors, doc.Troubles = running, books.heard.Troubles
	result := runErr
	if len(books.accounts) > 0 {
		account := watch.Join(books.accounts)
		doc.Lossless = &account
		if result == nil {
			result = account.Result()
		}
	}
	if result == nil && lost > 0 {
		result = watch.Lossf("%s packets did not leave this machine", units.Count(lost))
	}
	if result == nil {
		result = delivery.Arrival(m.target.Address, doc.heard(), doc.Lossless)
	}
	return doc.conclude(result)
}
