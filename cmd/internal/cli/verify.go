package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/verify"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

type verifyOptions struct {
	files  []string
	encap  string
	via    viaOptions
	send   sendOptions
	pace   paceOptions
	images []string
	pull   string
	jobs   string
	all    bool
	expect string
	junit  string
	json   bool
	nodes  nodesOptions
}

const verifyHelp = `Send each capture through the tunnel into a fresh sensor of its own, and let the
same image with the same scripts read the same frames as a file, with the times
at which they were sent. Both must agree in every connection (5-tuple, service,
state, history, packets, bytes, missed bytes) and in the content of every other
log. Zeek's identifiers, which differ in every process, are compared by what they
name, and sets without their order; times are left out where they are measured.

A difference is a fault of the path if nothing else explains it: before that is
said, the frames are read offline again. What differs there too is Zeek's own; it
is listed as "zeek itself", and is no fault. A fault is shown with the hop where
it happened, as far as that is known, and the exit code is 3.

The way is the one that --via names, as for replay: direct where that arrives,
else by sidecar, which works wherever the engine is. With --via published the
sensor has a free port of 127.0.0.1, and docker-proxy is a part of what is
verified.

A second offline run reads the capture as it is. What differs between the two
offline runs is what the pace or a snap length changed (Zeek divides connections
at inactivity timeouts): it is listed apart, one line for each log and reason, and
is no fault. --all lists every line.

It needs the engine but not the stack; its containers, volumes and files are gone
afterwards. A folder stands for the captures in it.

--expect FILE states what the live logs must hold, one expectation per line:

  # [CAPTURE:] LOG [FIELD=VALUE...] OP NUMBER         how many lines
  # [CAPTURE:] LOG [FIELD=VALUE...] FIELD OP VALUE    what each line holds
  sqli.pcap: notice.log note=HTTP::SQL_Injection >= 1
  *.pcapng:  dns.log query="example.com" == 2
  conn.log missed_bytes == 0

CAPTURE is a file name or a pattern; OP is ==, !=, <, <=, > or >=.`

func newVerify(app *App) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify FILE|FOLDER...",
		Short: "Prove that Zeek sees a capture over the live path as it sees it offline",
		Long:  verifyHelp,
		Example: `  zeekdemo verify big.pcap
  zeekdemo verify captures/ --expect detections.txt --junit report.xml
  zeekdemo verify big.pcap --encap geneve --pace recorded
  zeekdemo verify big.pcap --via published         what comes through docker-proxy?`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.files = args
			return runVerify(cmd.Context(), app, o)
		},
	}
	o.flags(cmd)
	return cmd
}

func (o *verifyOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.via.flags(f)
	o.pace.flags(f, "max")
	encapFlag(f, &o.encap)
	o.send.flags(f, watch.DefaultPatience)
	imageFlag(f, &o.images)
	f.StringVar(&o.pull, "pull", string(orchestrate.PullMissing), "when to pull the image: missing or never")
	f.StringVar(&o.jobs, "jobs", jobsAuto, "how many captures to verify at a time; auto is what the engine's processors and memory bear")
	f.BoolVar(&o.all, "all", false, "list every line that differs, not one for each log and reason")
	f.StringVar(&o.expect, "expect", "", "check the live logs against the expectations in this file")
	f.StringVar(&o.junit, "junit", "", "write the results to this file as JUnit XML")
	workersFlag(f, &o.nodes.workers, `verify a sensor of so many Zeek processes, or auto (what the engine's processors bear, at most 8)`)
	o.nodes.loggers, o.nodes.proxies = 1, 1
	jsonFlag(f, &o.json, "the results")
}

// parse looks at the flags alone.
func (o *verifyOptions) parse(getenv func(string) string) (v verify.Options, err error) {
	v.All = o.all
	if v.Jobs, err = parseJobs(o.jobs); err != nil {
		return v, err
	}
	if v.Kind, err = encap.ParseKind(o.encap); err != nil {
		return v, usageError{err}
	}
	if v.Pace, err = o.pace.spec(); err != nil {
		return v, err
	}
	sending, err := o.send.parse()
	if err != nil {
		return v, err
	}
	v.CPU, v.Tx, v.Lossless, v.Waiting = sending.cpu, sending.tx, sending.lossless, sending.waiting
	if v.Way, err = o.via.request(v.Tx); err != nil {
		return v, err
	}
	// The sensors are verify's own, and take what it sends, whatever those of the
	// stack take.
	stack := upOptions{images: o.images, pull: o.pull, bind: "127.0.0.1", waitTimeout: time.Minute, geneveMode: string(orchestrate.GeneveEthernet), nodes: o.nodes}
	if strings.ContainsAny(o.nodes.workers, ",=") {
		return v, usagef("--workers %q: want a number, or auto", o.nodes.workers)
	}
	stack.nodes.workers = o.encap + "=" + o.nodes.workers
	if v.Settings, err = stack.settings(getenv); err != nil {
		return v, err
	}
	return v, o.check()
}

// jobsAuto is the value of --jobs for as many as the engine's machine bears.
const jobsAuto = "auto"

// parseJobs reads the value of --jobs; 0 stands for auto.
func parseJobs(text string) (int, error) {
	if text == jobsAuto {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, usagef("--jobs %s: want at least 1, or %s", text, jobsAuto)
	}
	return n, nil
}

func (o *verifyOptions) check() error {
	switch {
	case o.pull == string(orchestrate.PullAlways):
		return usagef("--pull always: all runs must use one image; pull it before, and use missing or never")
	case o.json && o.junit == "-":
		return usagef("--json and --junit - both want standard output")
	}
	return nil
}

// runVerify verifies every capture and reports.
func runVerify(ctx context.Context, app *App, o verifyOptions) error {
	v, err := o.parse(app.Getenv)
	if err != nil {
		return err
	}
	captures, err := pcapfile.List(o.files, pcapfile.AsGiven)
	if err != nil {
		return err
	}
	if v.Expected, err = readExpectations(o.expect, captures); err != nil {
		return err
	}
	v.Stdin, v.Interpose = app.In, app.interpose
	var rows []verify.Row
	err = app.withEngine(func(e orchestrate.Engine) (err error) {
		shown := ui.NewObserver(app.Err, app.Terminal)
		defer shown.Close()
		v.Observer = shown
		rows, err = verify.Run(ctx, e, captures, v)
		return err
	})
	if err != nil {
		return err
	}
	return o.report(ctx, app, v, rows)
}

// readExpectations reads the file, if there is one. An expectation for a
// capture that is not verified is a mistake: it would never fail.
func readExpectations(name string, captures []string) ([]zeeklog.Expectation, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read expectations: %w", err)
	}
	defer f.Close()
	list, err := zeeklog.ParseExpectations(f)
	if err != nil {
		return nil, usagef("--expect %s: %w", name, err)
	}
	for _, e := range list {
		if !slices.ContainsFunc(captures, func(c string) bool { return e.For(filepath.Base(c)) }) {
			return nil, usagef("--expect %s: line %d: no capture is called %q", name, e.Line, e.Capture)
		}
	}
	return list, nil
}
