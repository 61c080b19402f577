package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// replayDocument is what `replay --json` prints. Run is the VNI.
type replayDocument struct {
	Run           uint32                `json:"run"`
	RunPerLoop    bool                  `json:"run_per_loop,omitempty"` // each loop has the next VNI, from Run on
	Files         []string              `json:"files"`
	Encapsulation string                `json:"encapsulation"`
	Destination   string                `json:"destination"`          // address and port, or the file written
	Via           string                `json:"via"`                  // published, direct, sidecar, to or file
	ViaReason     string                `json:"via_reason,omitempty"` // why not by a better way
	Transmission  *transmit.Description `json:"transmission,omitempty"`
	Kernel        *transmit.Stats       `json:"kernel,omitempty"`
	Report        forward.Report        `json:"report"`
	Lossless      *losslessDocument     `json:"lossless,omitempty"` // not for a file
	GrafanaURL    string                `json:"grafana_url,omitempty"`
	Verdict       string                `json:"verdict"` // complete, incomplete, failed or interrupted
	Error         string                `json:"error,omitempty"`
}

// run drives the pipeline on a thread of its own CPU while the progress is
// shown, and reports.
func (r *replay) run(ctx context.Context) error {
	if r.sidecar != nil {
		return r.runSidecar(ctx)
	}
	encapsulator, err := encap.New(r.config)
	if err != nil {
		return errors.Join(err, r.sink.Close())
	}
	watched, reason, err := r.watch()
	if err != nil {
		return errors.Join(err, r.sink.Close())
	}
	if watched != nil {
		defer func() { _ = watched.close() }() // nothing was written
		watched.by(r.tx)
	}
	stats := &forward.Stats{}
	pipeline := forward.Pipeline{Source: r.source, Encapsulator: encapsulator, Sink: r.sink, Pacer: r.pacer,
		Clock: pace.NewClock(), Limit: r.o.limit, Duration: r.o.duration, Stats: stats}
	r.announce()
	shown := r.showProgress(stats.Snapshot)
	account, err := forwardWatched(ctx, pipeline, r.cpu, r.lossless, watched, reason)
	shown.Close()
	if r.o.out.write == "" {
		r.account = &account
	}
	err = errors.Join(err, r.sink.Close())
	return r.report(ctx, stats.Snapshot(), err)
}

// useSidecar makes the run one that a sidecar sends.
func (r *replay) useSidecar(e orchestrate.Engine, to netip.AddrPort, streams orchestrate.SidecarStreams) {
	s := newSidecarClient(e, to, streams)
	r.sidecar, r.tx, r.sink = s, s, s
	r.atEnd(s.end)
}

// runSidecar lets the sidecar send, shows what it tells, and reports.
func (r *replay) runSidecar(ctx context.Context) error {
	last, err := r.sidecar.send(ctx, r.sidecarJob(), r.source, r.stopSource, func() func() {
		r.announce()
		return r.showProgress(r.sidecar.snapshot).Close
	})
	r.account = last.Account
	rep := last.Report
	if f, ok := r.source.(forward.Filterer); ok {
		rep.FramesFiltered += f.Filtered()
		rep.FramesRead += f.Filtered()
	}
	return r.report(ctx, rep, err)
}

// announce says what is about to happen, for a run may take hours.
func (r *replay) announce() {
	to := r.o.out.write
	if r.tx != nil { // e.g. vxlan 172.18.0.2:4789 by packet on veth1
		description := r.tx.Describe()
		description.Reasons = nil // the report has them
		to = fmt.Sprintf("%s %s by %s", r.config.Kind, r.target.Address, description)
	}
	fmt.Fprintf(r.app.Err, "Run %d: %s to %s\n", r.config.VNI, r.fileNames(), to)
}

func (r *replay) fileNames() string {
	if len(r.o.files) == 0 {
		return "the embedded sample"
	}
	return strings.Join(r.o.files, ", ")
}

// showProgress shows how far the run is until it is closed.
func (r *replay) showProgress(snapshot func() forward.Report) *ui.Meter {
	var last forward.Report
	lastAt := time.Now()
	return ui.NewMeter(r.app.Err, r.app.Terminal, func() ui.Reading {
		rep, now := snapshot(), time.Now()
		reading := ui.Reading{Packets: rep.DatagramsSent, Bytes: rep.InnerBytes, Elapsed: time.Duration(rep.ElapsedSeconds * float64(time.Second)),
			Mean: rep.DatagramsPerSecond}
		if gap := now.Sub(lastAt).Seconds(); gap > 0 {
			reading.Now = float64(rep.DatagramsSent-last.DatagramsSent) / gap
		}
		reading.Done, reading.Total = r.sizes.Progress()
		last, lastAt = rep, now
		return reading
	})
}

// report prints what happened and turns it into the command's result.
func (r *replay) report(ctx context.Context, rep forward.Report, runErr error) error {
	result := r.result(ctx, rep, runErr)
	doc := r.document(rep, result)
	r.done = &doc
	var err error
	switch {
	case r.o.json:
		err = ui.JSON(r.app.Out, doc)
	case r.o.out.write == "-":
		writeReport(r.app.Err, doc)
	default:
		writeReport(r.app.Out, doc)
	}
	return errors.Join(result, err)
}

// result is nil where every frame that carries a packet has passed.
func (r *replay) result(ctx context.Context, rep forward.Report, runErr error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted after %s packets", ui.Count(rep.DatagramsSent))
	}
	if runErr != nil {
		return runErr
	}
	if lost := lostFrames(rep); lost > 0 {
		return lossError{fmt.Errorf("%s of %s frames could not pass", ui.Count(lost), ui.Count(rep.FramesRead))}
	}
	if r.tx != nil && r.tx.Stats().Refused > 0 {
		return lossError{fmt.Errorf("nobody listens at %s: the kernel refused datagrams", r.target.Address)}
	}
	if r.account != nil {
		return r.account.result()
	}
	return nil
}

// lostFrames counts the frames that did not pass though they hold a packet. A
// beacon or a PPP negotiation holds none: leaving it out is no loss.
func lostFrames(rep forward.Report) uint64 {
	var n uint64
	for _, refused := range rep.Refused {
		if refused.Reason != forward.SkippedNoPacket.String() {
			n += refused.Frames
		}
	}
	return n + rep.DatagramsUnsent
}

func (r *replay) document(rep forward.Report, result error) replayDocument {
	doc := replayDocument{Run: r.config.VNI, Files: r.o.files, Encapsulation: r.config.Kind.String(),
		Destination: r.o.out.write, Via: "file", Report: rep, Verdict: "complete", Lossless: r.account, RunPerLoop: r.o.uniqueFlows}
	if len(doc.Files) == 0 {
		doc.Files = []string{"sample"}
	}
	if r.tx != nil {
		description, kernel := r.tx.Describe(), r.tx.Stats()
		doc.Transmission, doc.Kernel = &description, &kernel
		doc.Destination, doc.Via = r.target.Address.String(), r.target.Via
		doc.ViaReason = strings.Join(r.target.Reasons, "; ")
	}
	if r.target.Grafana.URL != "" {
		doc.GrafanaURL = grafanaLink(r.target.Grafana.URL, r.config.VNI, rep, r.o.uniqueFlows)
	}
	var loss lossError
	switch {
	case result == nil:
	case errors.As(result, &loss):
		doc.Verdict, doc.Error = "incomplete", result.Error()
	case strings.HasPrefix(result.Error(), "interrupted"):
		doc.Verdict, doc.Error = "interrupted", result.Error()
	default:
		doc.Verdict, doc.Error = "failed", result.Error()
	}
	return doc
}

// linkAfter is how long after a run its log lines may still come: Zeek writes
// a UDP or ICMP flow's line a minute after its last packet.
const linkAfter = 3 * time.Minute

// grafanaLink leads to exactly one run in its time range.
func grafanaLink(base string, run uint32, rep forward.Report, every bool) string {
	variable := fmt.Sprintf("&var-run=%d", run)
	if every {
		variable = ""
	}
	return fmt.Sprintf("%s/d/zeekdemo-logs?from=%d&to=%d%s", base,
		rep.Start.Add(-time.Second).UnixMilli(), rep.End.Add(linkAfter).UnixMilli(), variable)
}

// inSlice marks a process that runs in the slice already.
const inSlice = "ZEEKDEMO_IN_SLICE"

// reexecInSlice starts this command once more, as a scope of a systemd slice.
func (a *App) reexecInSlice(slice string) error {
	path, err := lookPath("systemd-run")
	if err != nil {
		return fmt.Errorf("run in %s: %w", slice, err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("run in %s: %w", slice, err)
	}
	if !strings.HasSuffix(slice, ".slice") || strings.ContainsRune(slice, filepath.Separator) {
		return usagef("--slice %q: want a slice's name, e.g. system.slice", slice)
	}
	args := append([]string{"systemd-run", "--quiet", "--scope", "--slice=" + slice, "--", self}, os.Args[1:]...)
	if err := a.Exec(path, args, append(os.Environ(), inSlice+"=1")); err != nil {
		return fmt.Errorf("run in %s: %w", slice, err)
	}
	return nil
}
