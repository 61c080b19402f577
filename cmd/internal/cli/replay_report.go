package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate/drops"
)

// report prints what happened.
func (o replayOptions) report(app *App, doc delivery.Document) error {
	switch {
	case o.json:
		return ui.JSON(app.Out, doc)
	case o.write == "-":
		writeReport(app.Err, doc)
	default:
		writeReport(app.Out, doc)
	}
	return nil
}

// writeReport prints a run for a person: what was sent first, then what was
// done to frames on the way, the verdict last.
func writeReport(w io.Writer, doc delivery.Document) {
	rows := [][]string{{"run", runLine(doc)}, {"read", units.Count(doc.Report.FramesRead) + " frames"}}
	rows = append(rows, sentRows(doc)...)
	rows = append(rows, frameRows(doc.Report)...)
	rows = append(rows, sendRows(doc)...)
	rows = append(rows, losslessRows(doc)...)
	if doc.GrafanaURL != "" {
		rows = append(rows, []string{"grafana", doc.GrafanaURL})
	}
	rows = append(rows, []string{"verdict", verdictLine(doc)})
	ui.Table(w, rows)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func runLine(doc delivery.Document) string {
	if doc.RunPerLoop {
		return fmt.Sprintf("%d and following, one for each loop (%s VNI)", doc.Run, doc.Encapsulation)
	}
	return fmt.Sprintf("%d (%s VNI)", doc.Run, doc.Encapsulation)
}

// sentRows tell how much was sent, and how fast.
func sentRows(doc delivery.Document) [][]string {
	rep := doc.Report
	return [][]string{
		{"sent", fmt.Sprintf("%s packets, %s, to %s (%s)", units.Count(rep.DatagramsSent), units.Bytes(int64(rep.InnerBytes)), doc.Destination, doc.Via)},
		{"time", fmt.Sprintf("%s, %s, %s", units.Duration(seconds(rep.ElapsedSeconds)), units.PacketRate(rep.DatagramsPerSecond), units.BitRate(rep.InnerBitsPerSecond))},
	}
}

// frameRows tell what was not sent as it was read.
func frameRows(rep forward.Report) [][]string {
	var rows [][]string
	add := func(n uint64, name, text string) {
		if n > 0 {
			rows = append(rows, []string{name, units.Count(n) + text})
		}
	}
	add(rep.FramesFiltered, "filtered", " frames did not match the filter")
	add(rep.FramesNormalised, "normalised", " frames got an Ethernet header")
	add(rep.FramesResegmented, "re-segmented", fmt.Sprintf(" TCP super-frames became %s segments", units.Count(rep.Segments)))
	add(rep.FramesLengthRepaired, "repaired", " frames had no IP length, for the capturing host left it to its network card: they got one, and checksums")
	add(rep.FramesChecksumsFixed, "checksums", " frames had checksums that their host never completed: they were computed")
	add(rep.FramesChecksumsOpen, "checksums", " frames have checksums that their host never completed; a monitor that checks them discards them (--fix-checksums computes them)")
	switch {
	case rep.FramesPadded > 0:
		add(rep.FramesCut, "cut", fmt.Sprintf(" frames were cut by the capture's snap length; %s of them were filled with zeros, so their checksums are wrong: Zeek analyses them where it ignores checksums, as the stack's does",
			units.Count(rep.FramesPadded)))
	default:
		add(rep.FramesCut, "cut", " frames were cut by the capture's snap length and sent as they are: Zeek leaves out a packet that is shorter than its IP header says, or stops at it unless it ignores checksums (--pad-cut fills them with zeros)")
	}
	add(rep.FramesRetimed, "retimed", fmt.Sprintf(" frames have no time that a capture file can hold (the first is number %d): they have that of the frame before", rep.FirstRetimed))
	for _, refused := range rep.Refused {
		add(refused.Frames, "refused", fmt.Sprintf(" frames: %s (%s)", refused.Reason, refused.LinkType))
	}
	for _, d := range rep.Damages {
		rows = append(rows, []string{"damaged", d.What})
	}
	add(rep.DatagramsUnsent, "unsent", " packets were ready when the run ended")
	return rows
}

// sendRows tell how it was sent.
func sendRows(doc delivery.Document) [][]string {
	var rows [][]string
	rep := doc.Report
	if rep.LateMaxNS > 0 {
		rows = append(rows, []string{"timing", fmt.Sprintf("at most %s late, 99 %% within %s", units.Duration(time.Duration(rep.LateMaxNS)), units.Duration(time.Duration(rep.LateP99NS)))})
	}
	if doc.Via == way.To && rep.DatagramsOver9248 > 0 {
		rows = append(rows, []string{"note", fmt.Sprintf("%s datagrams are longer than %d bytes: a Zeek with its default recvmmsg_buffer_size cuts them (--max-datagram %d re-segments TCP)",
			units.Count(rep.DatagramsOver9248), forward.ZeekDefaultDatagram, forward.ZeekDefaultDatagram)})
	}
	if doc.ViaReason != "" {
		rows = append(rows, []string{"via", string(doc.Via) + ", " + doc.ViaReason})
	}
	if doc.Transmission != nil {
		rows = append(rows, []string{"by", doc.Transmission.String()})
	}
	if doc.Kernel != nil {
		for _, f := range doc.Kernel.Fallbacks {
			rows = append(rows, []string{"fell back", fmt.Sprintf("%s was refused: %s", f.Path, f.Cause)})
		}
		if n := doc.Kernel.Fragmented; n > 0 {
			rows = append(rows, []string{"fragmented", fragmentsLine(n, *doc.Transmission)})
		}
		for _, t := range doc.Kernel.Troubles {
			rows = append(rows, []string{"trouble", troubleLine(t, doc.Verdict)})
		}
	}
	return rows
}

// troubleLine says what was met on the way, and of what did not end the run that
// it was overcome.
func troubleLine(t transmit.Trouble, v delivery.Verdict) string {
	if t.Overcome() && (v == delivery.Complete || v == delivery.Incomplete) {
		return t.String() + ", and overcome"
	}
	return t.String()
}

// fragmentsLine says how many packets left in fragments, and what helps.
func fragmentsLine(n uint64, d transmit.Description) string {
	headers := 28 // of outer IP and UDP
	if d.Destination.Addr().Is6() {
		headers = 48
	}
	return fmt.Sprintf("%s packets left in IP fragments: the path takes %d bytes (a larger MTU on it, or --max-datagram %d, which re-segments TCP)",
		units.Count(n), d.MTU, d.MTU-headers)
}

// losslessRows show a run's account.
func losslessRows(doc delivery.Document) [][]string {
	l := doc.Lossless
	if l == nil {
		return nil
	}
	rows := [][]string{{"lossless", l.Governance(doc.Report.StalledSeconds)}}
	if l.Ledger == nil {
		return rows
	}
	for _, s := range l.Sockets {
		if limited := s.Limited(); limited != "" {
			rows = append(rows, []string{"limited", limited})
		}
	}
	taken := units.Count(l.Ledger.Taken) + " packets"
	if l.Ledger.Doubt > 0 {
		taken = fmt.Sprintf("%s to %s packets", units.Count(l.Ledger.Taken-l.Ledger.Doubt), units.Count(l.Ledger.Taken))
	}
	if l.Ledger.QueuedBytes > 0 {
		taken += fmt.Sprintf(", %s still queued", units.Bytes(int64(l.Ledger.QueuedBytes)))
	}
	if n := l.Ledger.Others; n > 0 {
		taken += fmt.Sprintf("; and %s of others, which the sensor's system counts alike", units.Count(n))
	}
	rows = append(rows, []string{"taken", taken})
	for _, name := range l.Ledger.Gone {
		rows = append(rows, []string{"gone", name + ", in the middle of the run; others of its port went on"})
	}
	for _, c := range l.Ledger.Counters {
		// Those that are not of a socket on the way count whatever the machine
		// does, so they only explain what was lost.
		if l.Ledger.Lost > 0 || c.Kind == drops.OfSocket {
			rows = append(rows, []string{"counted", c.String()})
		}
	}
	return append(rows, []string{"ledger", l.Ledger.Verdict})
}

func verdictLine(doc delivery.Document) string {
	switch doc.Verdict {
	case delivery.Complete:
		if doc.Via == way.File {
			return "every frame that holds a packet was sent into the file"
		}
		return "every frame that holds a packet was sent" + taken(doc)
	case delivery.Interrupted:
		if doc.Delivery == watch.SomeLost {
			return doc.Error + "; some of them did not arrive"
		}
		return doc.Error + taken(doc)
	}
	return string(doc.Verdict) + ": " + doc.Error
}

// taken ends the line of the verdict with what is known of what was sent.
func taken(doc delivery.Document) string {
	switch {
	case doc.Delivery == watch.AllTaken:
		return ", and all that was sent was taken by the sensor"
	case doc.Delivery != watch.OnlySent:
		return ""
	case doc.Lossless != nil && doc.Lossless.Ledger != nil && doc.Lossless.Ledger.QueuedBytes > 0:
		return "; some of it still waits to be taken by the sensor"
	case doc.Lossless != nil && doc.Lossless.Ledger != nil:
		return "; whether all of it was taken the sensor's counters cannot tell"
	}
	return "; nobody here can see whether it was taken"
}
