package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/afpacket"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
)

// ledger is one run's account.
type ledger = drops.Ledger

// mirrorDocument is what `mirror --json` prints: what a replay's document has, but
// for its files, and what is known of the interfaces.
type mirrorDocument struct {
	replayDocument
	Files     []string `json:"files,omitempty"` // never any
	How       string   `json:"how"`             // forwarder or kernel
	HowReason string   `json:"how_reason,omitempty"`
	// Interfaces are those that were captured on, by the forwarder.
	Interfaces []afpacket.Counts `json:"interfaces,omitempty"`
	// Mirrors are the kernel's.
	Mirrors []tcmirror.Mirror `json:"mirrors,omitempty"`
}

// outcome is a run that is over.
type outcome struct {
	doc    mirrorDocument
	result error
}

// outcome sums up a run by the forwarder.
func (r *liveRun) outcome(counts []afpacket.Counts, runErr error) outcome {
	rep := joinReports(r.reports)
	setTime(&rep, r.begun, time.Now()) // not only that from the first packet on
	rep.Stalls, rep.StalledSeconds = rep.Stalls+r.stalls, rep.StalledSeconds+r.stalled.Seconds()
	doc := r.document(rep)
	doc.Interfaces = counts
	if len(r.reports) > 0 {
		doc.Transmission, doc.Kernel = &r.about, &r.kernel
	}
	if len(r.accounts) > 0 {
		account := joinAccounts(r.accounts)
		doc.Lossless = &account
	}
	return outcome{doc, r.result(doc, runErr)}
}

func (m *mirror) document(rep forward.Report) mirrorDocument {
	doc := mirrorDocument{How: m.how, HowReason: m.howReason}
	doc.Run, doc.Encapsulation, doc.Report = m.config.VNI, m.config.Kind.String(), rep
	doc.Destination, doc.Via, doc.ViaReason = m.target.Address.String(), m.target.Via, strings.Join(m.target.Reasons, "; ")
	if m.target.Grafana.URL != "" {
		doc.GrafanaURL = grafanaLink(m.target.Grafana.URL, m.config.VNI, rep, false)
	}
	return doc
}

// result is nil if everything that passed the interfaces has reached the sensor,
// as far as that is known.
func (r *liveRun) result(doc mirrorDocument, runErr error) error {
	var lost uint64
	for _, c := range doc.Interfaces {
		lost += c.Lost()
	}
	switch {
	case errors.Is(runErr, errNoSensor):
		return lossError{fmt.Errorf("%s packets had nowhere to go: the sensor had gone", ui.Count(lost+doc.Report.DatagramsUnsent))}
	case runErr != nil:
		return fmt.Errorf("mirror %s: %w", strings.Join(r.interfaces, ", "), runErr)
	}
	switch frames := lostFrames(doc.Report); {
	case lost > 0:
		return lossError{orchestrate.WithHint(fmt.Errorf("%s packets were lost before they could be sent", ui.Count(lost)),
			"narrow what is mirrored with --filter, or share the work with --workers")}
	case frames > 0:
		return lossError{fmt.Errorf("%s of %s frames could not pass", ui.Count(frames), ui.Count(doc.Report.FramesRead))}
	case doc.Kernel != nil && doc.Kernel.Refused > 0:
		return lossError{fmt.Errorf("nobody listens at %s: the kernel refused datagrams", r.target.Address)}
	case doc.Lossless != nil:
		return doc.Lossless.result()
	}
	return nil
}

// report prints what happened and turns it into the command's result.
func (m *mirror) report(o outcome) error {
	var loss lossError
	switch {
	case o.result == nil:
		o.doc.Verdict = "complete"
	case errors.As(o.result, &loss):
		o.doc.Verdict, o.doc.Error = "incomplete", o.result.Error()
	default:
		o.doc.Verdict, o.doc.Error = "failed", o.result.Error()
	}
	var err error
	if m.o.json {
		err = ui.JSON(m.app.Out, o.doc)
	} else {
		ui.Table(m.app.Out, m.rows(o.doc))
	}
	if err = errors.Join(o.result, err); err != nil {
		return overError{err}
	}
	return nil
}

// rows are the report for a person.
func (m *mirror) rows(doc mirrorDocument) [][]string {
	rows := [][]string{{"run", runLine(doc.replayDocument)}}
	for _, c := range doc.Interfaces {
		rows = append(rows, interfaceRows(c)...)
	}
	for _, k := range doc.Mirrors {
		rows = append(rows, kernelRows(k)...)
	}
	how := doc.How
	if doc.HowReason != "" {
		how += ", not in the kernel: " + doc.HowReason
	}
	rows = append(rows, []string{"how", how})
	if doc.Transmission != nil {
		rep := doc.Report
		rows = append(rows,
			[]string{"sent", fmt.Sprintf("%s packets, %s, to %s (%s)", ui.Count(rep.DatagramsSent), ui.Bytes(int64(rep.InnerBytes)), doc.Destination, doc.Via)},
			[]string{"time", fmt.Sprintf("%s, %s, %s", ui.Duration(seconds(rep.ElapsedSeconds)), ui.PacketRate(rep.DatagramsPerSecond), ui.BitRate(rep.InnerBitsPerSecond))})
		rows = append(rows, frameRows(rep)...)
		rows = append(rows, sendRows(doc.replayDocument)...)
	}
	rows = append(rows, losslessRows(doc.replayDocument)...)
	if doc.GrafanaURL != "" {
		rows = append(rows, []string{"grafana", doc.GrafanaURL})
	}
	verdict := "every packet was sent"
	if m.o.detach {
		verdict = "it runs in the kernel; `zeekdemo status` shows it, `zeekdemo mirror --stop` ends it"
	}
	if doc.Verdict != "complete" {
		verdict = doc.Verdict + ": " + doc.Error
	}
	return append(rows, []string{"verdict", verdict})
}

// interfaceRows tell what was captured on one interface.
func interfaceRows(c afpacket.Counts) [][]string {
	rows := [][]string{{c.Interface, fmt.Sprintf("%s packets, %s, %s dropped in the ring", ui.Count(c.Packets), ui.Bytes(int64(c.Bytes)), ui.Count(c.Dropped))}}
	for _, more := range []struct {
		n    uint64
		text string
	}{
		{c.Merged, "packets that offloads had merged were cut into what was on the wire"},
		{c.Whole, "packets that offloads had merged could not be cut and were sent whole"},
		{c.Checksums, "checksums that were left to the network card were completed"},
		{c.Cut, "packets were longer than the ring takes, and cut"},
		{c.Abandoned, "packets were still in the ring at the end"},
	} {
		if more.n > 0 {
			rows = append(rows, []string{"", ui.Count(more.n) + " " + more.text})
		}
	}
	return rows
}

// joinReports adds up what several pipelines did, which ran at the same time or
// one after the other.
func joinReports(list []forward.Report) forward.Report {
	if len(list) == 0 {
		return forward.Report{Finished: true, Refused: []forward.RefusedCount{}}
	}
	sum := list[0]
	sum.Refused = slices.Clone(sum.Refused)
	for _, r := range list[1:] {
		joinReport(&sum, r)
	}
	return sum
}

// setTime says from when to when a run was, and what rates follow from that.
func setTime(rep *forward.Report, from, to time.Time) {
	rep.Start, rep.End, rep.ElapsedSeconds = from.Round(0), to.Round(0), to.Sub(from).Seconds()
	rep.DatagramsPerSecond, rep.InnerBitsPerSecond, rep.PayloadBitsPerSecond = 0, 0, 0
	if s := rep.ElapsedSeconds; s > 0 {
		rep.DatagramsPerSecond = float64(rep.DatagramsSent) / s
		rep.InnerBitsPerSecond, rep.PayloadBitsPerSecond = 8*float64(rep.InnerBytes)/s, 8*float64(rep.PayloadBytes)/s
	}
}

func joinReport(a *forward.Report, b forward.Report) {
	if a.CaptureFirst.IsZero() || !b.CaptureFirst.IsZero() && b.CaptureFirst.Before(a.CaptureFirst) {
		a.CaptureFirst = b.CaptureFirst
	}
	if b.CaptureLast.After(a.CaptureLast) {
		a.CaptureLast = b.CaptureLast
	}
	a.Finished = a.Finished && b.Finished
	for _, n := range []struct {
		to   *uint64
		more uint64
	}{
		{&a.FramesRead, b.FramesRead}, {&a.FramesFiltered, b.FramesFiltered}, {&a.FramesNormalised, b.FramesNormalised},
		{&a.FramesResegmented, b.FramesResegmented}, {&a.Segments, b.Segments}, {&a.FramesCut, b.FramesCut}, {&a.FramesPadded, b.FramesPadded},
		{&a.FramesRefused, b.FramesRefused}, {&a.DatagramsSent, b.DatagramsSent}, {&a.DatagramsUnsent, b.DatagramsUnsent},
		{&a.DatagramsOver9248, b.DatagramsOver9248}, {&a.InnerBytes, b.InnerBytes}, {&a.PayloadBytes, b.PayloadBytes}, {&a.Stalls, b.Stalls},
	} {
		*n.to += n.more
	}
	a.StalledSeconds += b.StalledSeconds
	a.LateMaxNS, a.LateP99NS, a.LateP50NS = max(a.LateMaxNS, b.LateMaxNS), max(a.LateP99NS, b.LateP99NS), max(a.LateP50NS, b.LateP50NS)
	for _, r := range b.Refused {
		i := slices.IndexFunc(a.Refused, func(have forward.RefusedCount) bool { return have.Reason == r.Reason && have.LinkType == r.LinkType })
		if i < 0 {
			a.Refused = append(a.Refused, r)
			continue
		}
		a.Refused[i].Frames += r.Frames
	}
}
