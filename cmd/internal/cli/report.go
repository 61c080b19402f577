package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
)

// writeReport prints a run for a person: what was sent first, then what was
// done to frames on the way, the verdict last.
func writeReport(w io.Writer, doc replayDocument) {
	rep := doc.Report
	rows := [][]string{
		{"run", runLine(doc)},
		{"read", ui.Count(rep.FramesRead) + " frames"},
		{"sent", fmt.Sprintf("%s packets, %s, to %s (%s)", ui.Count(rep.DatagramsSent), ui.Bytes(int64(rep.InnerBytes)), doc.Destination, doc.Via)},
		{"time", fmt.Sprintf("%s, %s, %s", ui.Duration(seconds(rep.ElapsedSeconds)), ui.PacketRate(rep.DatagramsPerSecond), ui.BitRate(rep.InnerBitsPerSecond))},
	}
	rows = append(rows, frameRows(rep)...)
	rows = append(rows, sendRows(doc)...)
	rows = append(rows, losslessRows(doc)...)
	if doc.GrafanaURL != "" {
		rows = append(rows, []string{"grafana", doc.GrafanaURL})
	}
	rows = append(rows, []string{"verdict", verdictLine(doc)})
	ui.Table(w, rows)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func runLine(doc replayDocument) string {
	if doc.RunPerLoop {
		return fmt.Sprintf("%d and following, one for each loop (%s VNI)", doc.Run, doc.Encapsulation)
	}
	return fmt.Sprintf("%d (%s VNI)", doc.Run, doc.Encapsulation)
}

// frameRows tell what was not sent as it was read.
func frameRows(rep forward.Report) [][]string {
	var rows [][]string
	add := func(n uint64, name, text string) {
		if n > 0 {
			rows = append(rows, []string{name, ui.Count(n) + text})
		}
	}
	add(rep.FramesFiltered, "filtered", " frames did not match the filter")
	add(rep.FramesNormalised, "normalised", " frames got an Ethernet header")
	add(rep.FramesResegmented, "re-segmented", fmt.Sprintf(" TCP super-frames became %s segments", ui.Count(rep.Segments)))
	switch {
	case rep.FramesPadded > 0:
		add(rep.FramesCut, "cut", fmt.Sprintf(" frames were cut by the capture's snap length; %s of them were filled with zeros", ui.Count(rep.FramesPadded)))
	default:
		add(rep.FramesCut, "cut", " frames were cut by the capture's snap length and sent as they are (--pad-cut fills them)")
	}
	for _, refused := range rep.Refused {
		add(refused.Frames, "refused", fmt.Sprintf(" frames: %s (%s)", refused.Reason, refused.LinkType))
	}
	add(rep.DatagramsUnsent, "unsent", " packets were ready when the run ended")
	return rows
}

// sendRows tell how it was sent.
func sendRows(doc replayDocument) [][]string {
	var rows [][]string
	rep := doc.Report
	if rep.LateMaxNS > 0 {
		rows = append(rows, []string{"timing", fmt.Sprintf("at most %s late, 99 %% within %s", ui.Duration(time.Duration(rep.LateMaxNS)), ui.Duration(time.Duration(rep.LateP99NS)))})
	}
	if doc.Via == "to" && rep.DatagramsOver9248 > 0 {
		rows = append(rows, []string{"note", fmt.Sprintf("%s datagrams are longer than %d bytes: a Zeek with its default recvmmsg_buffer_size cuts them (--max-datagram %d re-segments TCP)",
			ui.Count(rep.DatagramsOver9248), forward.ZeekDefaultDatagram, forward.ZeekDefaultDatagram)})
	}
	if doc.ViaReason != "" {
		rows = append(rows, []string{"via", doc.Via + ", " + doc.ViaReason})
	}
	if doc.Transmission != nil {
		rows = append(rows, []string{"by", doc.Transmission.String()})
	}
	if doc.Kernel != nil {
		for _, f := range doc.Kernel.Fallbacks {
			rows = append(rows, []string{"fell back", fmt.Sprintf("%s was refused: %s", f.Path, f.Cause)})
		}
	}
	return rows
}

func verdictLine(doc replayDocument) string {
	switch doc.Verdict {
	case "complete":
		return "every frame that holds a packet was sent"
	case "interrupted":
		return doc.Error
	}
	return doc.Verdict + ": " + doc.Error
}
