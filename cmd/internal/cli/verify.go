package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

type verifyOptions struct {
	files  []string
	encap  string
	via    viaOptions
	pace   paceOptions
	tx     string
	cpu    string
	images []string
	pull   string
	jobs   int

	lossless string
	expect   string
	junit    string
	json     bool
}

func newVerify(app *App) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify FILE|FOLDER...",
		Short: "Prove that Zeek sees a capture over the live path as it sees it offline",
		Long: `Send each capture through the tunnel into a fresh sensor of its own, and let the
same image with the same scripts read the same frames as a file, with the times
at which they were sent. Both must agree in every connection (5-tuple, service,
state, history, packets, bytes, missed bytes) and in the content of every other
log. A difference is a fault of the path: it is shown with the hop that explains
it, and the exit code is 3.

The way is the one that --via names, as for replay: direct where that arrives,
else by sidecar, which works wherever the engine is. With --via published the
sensor has a free port of 127.0.0.1, and docker-proxy is a part of what is
verified.

A second offline run reads the capture as it is. What differs between the two
offline runs is what the pace or a snap length changed (Zeek divides connections
at inactivity timeouts): it is listed apart, and is no fault.

It needs the engine but not the stack; its containers, volumes and files are gone
afterwards. A folder stands for the captures in it.

--expect FILE states what the live logs must hold, one expectation per line:

  # [CAPTURE:] LOG [FIELD=VALUE...] OP NUMBER         how many lines
  # [CAPTURE:] LOG [FIELD=VALUE...] FIELD OP VALUE    what each line holds
  sqli.pcap: notice.log note=HTTP::SQL_Injection >= 1
  *.pcapng:  dns.log query="example.com" == 2
  conn.log missed_bytes == 0

CAPTURE is a file name or a pattern; OP is ==, !=, <, <=, > or >=.`,
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
	f := cmd.Flags()
	o.pace.given = f.Changed
	o.via.flags(f)
	o.pace.flags(f)
	f.Lookup("pace").DefValue, o.pace.pace = "max", "max"
	f.StringVar(&o.encap, "encap", "vxlan", "encapsulation: vxlan or geneve")
	f.StringVar(&o.tx, "tx", "auto", "transmission: packet (packet socket, needs CAP_NET_RAW), udp (no privilege) or auto")
	f.StringVar(&o.cpu, "cpu", "auto", "pin the sender to this CPU: a number, auto or off")
	f.StringArrayVar(&o.images, "image", nil, "use another image, as NAME=REF, e.g. zeek=zeek/zeek:9.0 (repeatable)")
	f.StringVar(&o.pull, "pull", string(orchestrate.PullMissing), "when to pull the image: missing or never")
	f.StringVar(&o.lossless, "lossless", string(losslessAuto), "wait rather than overrun the sensor: auto (where its queue can be seen), require or off")
	f.IntVar(&o.jobs, "jobs", 1, "how many captures to verify at a time")
	f.StringVar(&o.expect, "expect", "", "check the live logs against the expectations in this file")
	f.StringVar(&o.junit, "junit", "", "write the results to this file as JUnit XML")
	f.BoolVar(&o.json, "json", false, "print the results as one JSON document")
	return cmd
}

// verification is a run made ready.
type verification struct {
	app      *App
	o        verifyOptions
	kind     encap.Kind
	mode     transmit.Mode
	cpu      transmit.CPU
	lossless losslessMode
	service  orchestrate.Service
	settings orchestrate.Settings
	expected []zeeklog.Expectation

	engine orchestrate.Engine
	remote bool // the engine is not on this machine
	shots  orchestrate.OneShots
	id     string // of the run: part of the names and labels of all it makes
	folder string // for temporary files
	steps  *ui.Progress
}

// validate looks at the flags alone.
func (o *verifyOptions) validate(getenv func(string) string) (*verification, error) {
	v := &verification{o: *o}
	v.o.via.patience = 2 * time.Second
	var err error
	if v.kind, err = encap.ParseKind(o.encap); err != nil {
		return nil, usageError{err}
	}
	if v.service, err = orchestrate.SensorFor(v.kind.String()); err != nil {
		return nil, err
	}
	if _, err = o.pace.pacer(); err != nil {
		return nil, usageError{err}
	}
	if v.cpu, err = transmit.ParseCPU(o.cpu); err != nil {
		return nil, usageError{err}
	}
	if v.mode, err = transmit.ParseMode(o.tx); err != nil {
		return nil, usageError{err}
	}
	if v.lossless, err = parseLossless(o.lossless); err != nil {
		return nil, usageError{err}
	}
	if err = o.via.validate(v.mode); err != nil {
		return nil, err
	}
	stack := upOptions{images: o.images, pull: o.pull, bind: "127.0.0.1", waitTimeout: time.Minute}
	if v.settings, err = stack.settings(getenv); err != nil {
		return nil, err
	}
	switch {
	case o.pull == string(orchestrate.PullAlways):
		return nil, usagef("--pull always: all runs must use one image; pull it before, and use missing or never")
	case o.jobs < 1:
		return nil, usagef("--jobs %d: want at least 1", o.jobs)
	case o.json && o.junit == "-":
		return nil, usagef("--json and --junit - both want standard output")
	}
	return v, nil
}

func runVerify(ctx context.Context, app *App, o verifyOptions) error {
	v, err := o.validate(app.Getenv)
	if err != nil {
		return err
	}
	v.app = app
	return v.run(ctx)
}

// run verifies every capture and reports.
func (v *verification) run(ctx context.Context) error {
	captures, err := listCaptures(v.o.files)
	if err != nil {
		return err
	}
	if v.expected, err = readExpectations(v.o.expect, captures); err != nil {
		return err
	}
	removeForgottenFiles()
	if v.folder, err = os.MkdirTemp("", fmt.Sprintf("%s%d-*", temporaryPrefix, os.Getpid())); err != nil {
		return fmt.Errorf("make a folder for temporary files: %w", err)
	}
	defer os.RemoveAll(v.folder)
	var rows []verifyRow
	err = v.app.withEngine(func(e orchestrate.Engine) error {
		rows, err = v.all(ctx, e, captures)
		return err
	})
	if err != nil {
		return err
	}
	return v.report(ctx, rows)
}

// cleanupLimit bounds the removal of what was made, which also happens when the
// run was interrupted.
const cleanupLimit = time.Minute

// all verifies the captures, several at a time if asked for, and removes
// everything that was made for it.
func (v *verification) all(ctx context.Context, e orchestrate.Engine, captures []string) (rows []verifyRow, err error) {
	info, err := e.Info(ctx)
	if err != nil {
		return nil, err
	}
	shots, ok := e.(orchestrate.OneShots)
	if !ok {
		return nil, errors.New("verify: this engine makes no containers beside the stack")
	}
	v.engine, v.remote, v.shots, v.id = e, info.Remote, shots, freshID()
	if n, err := shots.RemoveOneShots(ctx, orchestrate.Removal{Gone: orchestrate.ClientGone}); err != nil {
		return nil, fmt.Errorf("remove what an earlier run left: %w", err)
	} else if n > 0 {
		fmt.Fprintf(v.app.Err, "Removed %d containers that an earlier run left behind.\n", n)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
		defer cancel()
		if _, removeErr := shots.RemoveOneShots(ctx, orchestrate.Removal{Run: v.id}); removeErr != nil {
			err = errors.Join(err, orchestrate.WithHint(removeErr, "`zeekdemo down` removes what is left"))
		}
	}()
	v.steps = ui.NewProgress(v.app.Err, v.app.Terminal)
	defer v.steps.Close()
	return v.parallel(ctx, captures), nil
}

// parallel returns one row for each capture, in their order.
func (v *verification) parallel(ctx context.Context, captures []string) []verifyRow {
	rows := make([]verifyRow, len(captures))
	var wg sync.WaitGroup
	slots := make(chan struct{}, v.o.jobs)
	for i, name := range captures {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			rows[i] = v.one(ctx, i, name)
		})
	}
	wg.Wait()
	return rows
}

// temporaryPrefix begins the name of the folder for temporary files; the PID of
// its process follows.
const temporaryPrefix = "zeekdemo-verify-"

// removeForgottenFiles removes the temporary files of processes that were
// killed. What cannot be removed belongs to another user.
func removeForgottenFiles() {
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), temporaryPrefix+"*")) // the pattern is well-formed
	for _, folder := range folders {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(folder), temporaryPrefix), "-")
		host, _, _ := strings.Cut(orchestrate.Client(), "/")
		if orchestrate.ClientGone(host + "/" + pid) {
			os.RemoveAll(folder)
		}
	}
}

// freshID draws the name of a run.
func freshID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	return hex.EncodeToString(b[:])
}

// captureEndings are the names that are taken from a folder.
var captureEndings = []string{".pcap", ".pcapng", ".cap"}

// listCaptures replaces folders by the captures in them, by name.
func listCaptures(names []string) ([]string, error) {
	var list []string
	for _, name := range names {
		info, err := os.Stat(name)
		if name == "-" || err == nil && !info.IsDir() {
			list = append(list, name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open capture: %w", err)
		}
		in, err := capturesIn(name)
		if err != nil {
			return nil, err
		}
		list = append(list, in...)
	}
	return list, nil
}

func capturesIn(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("list captures: %w", err)
	}
	var list []string
	for _, entry := range entries {
		plain := strings.TrimSuffix(strings.TrimSuffix(entry.Name(), ".gz"), ".zst")
		if !entry.IsDir() && slices.Contains(captureEndings, strings.ToLower(filepath.Ext(plain))) {
			list = append(list, filepath.Join(folder, entry.Name()))
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("list captures in %s: none is named *%s: %w", folder, strings.Join(captureEndings, ", *"), fs.ErrNotExist)
	}
	return list, nil
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
