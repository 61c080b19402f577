// Package verify proves that Zeek sees a capture over the live path as it sees it
// offline.
//
// Each capture is a subject (subject.go): it is sent into a fresh sensor of its own
// (send.go), started in advance where another one is before it (standby.go), which
// writes its logs and goes; meanwhile the same image reads what was sent as a file,
// with the times at which it was sent; and the two sets of logs are compared
// (orchestrate/zeeklog). Before a difference is called a fault, controls read what
// was sent once more: what differs there too is Zeek's own. Another offline run
// reads the capture as it is: what differs then is what the pace or a snap length
// changed.
//
// What a capture came to is a [Row].
package verify

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeekdemo/zeekdemo/assets"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

// Options say how captures are verified.
type Options struct {
	Kind     encap.Kind
	Way      way.Request
	Pace     pace.Spec
	Tx       transmit.Mode
	CPU      transmit.CPU
	Lossless watch.Mode
	Waiting  watch.Waiting        // for a sensor that takes nothing
	Settings orchestrate.Settings // of the sensors: image, pull policy
	Expected []zeeklog.Expectation
	Jobs     int       // captures at a time; 0 for as many as the engine's machine bears
	All      bool      // keep every line that differs
	Stdin    io.Reader // for a capture named "-"
	Observer delivery.Observer
	// Interpose stands before the way out; nil for nothing. Tests put faults there.
	Interpose func(forward.Sink) forward.Sink
}

// run is a verification under way.
type run struct {
	Options
	service orchestrate.Service
	engine  orchestrate.Engine
	remote  bool // the engine is not on this machine
	shots   orchestrate.OneShots
	seeds   []byte // from which every Zeek of the run starts
	id      string // part of the names and labels of all it makes
	folder  string // for temporary files
	sensors *standby
	reached atomic.Bool // a sensor of the run's network was reached directly
}

// cleanupLimit bounds the removal of what was made, which also happens when the
// run was interrupted.
const cleanupLimit = time.Minute

// listenPatience is how long a sensor that listens may take until it is reached
// directly.
const listenPatience = 2 * time.Second

// Run verifies the captures, several at a time, and removes everything that it made.
// It returns one row for each capture, in their order.
func Run(ctx context.Context, e orchestrate.Engine, captures []string, o Options) (rows []Row, err error) {
	r, err := newRun(ctx, e, o)
	if err != nil {
		return nil, err
	}
	RemoveForgotten()
	if r.folder, err = os.MkdirTemp("", temporaryName(orchestrate.ThisClient())); err != nil {
		return nil, fmt.Errorf("make a folder for temporary files: %w", err)
	}
	defer os.RemoveAll(r.folder)
	if n, err := r.shots.RemoveOneShots(ctx, orchestrate.Removal{Gone: orchestrate.Client.Gone}); err != nil {
		return nil, fmt.Errorf("remove what an earlier run left: %w", err)
	} else if n > 0 {
		r.Observer.Say(fmt.Sprintf("Removed %d containers that an earlier run left behind.", n))
	}
	defer func() { err = errors.Join(err, r.clean(ctx)) }()
	r.sensors = &standby{run: r, publish: o.Way.Kind == way.Published, wanted: len(captures)}
	working, cancel := context.WithCancel(ctx)
	defer func() { cancel(); r.sensors.wait() }() // no longer than for what is wanted
	rows = r.all(working, captures)
	r.mark(ctx, rows)
	return rows, nil
}

// mark annotates the verifications in the stack's Grafana, if it runs, so that the
// dashboard Runs lists them. Where one cannot be, none is.
func (r *run) mark(ctx context.Context, rows []Row) {
	grafana := orchestrate.FindGrafana(ctx, r.engine)
	if grafana.URL == "" {
		return
	}
	for _, row := range rows {
		if row.Report.Start.IsZero() { // nothing was sent
			continue
		}
		if err := delivery.MarkOver(ctx, grafana, row.marked(r.service.Name), row.Error, row.Report.Start, row.Report.End); err != nil {
			r.Observer.Say(fmt.Sprintf("Not marked in the dashboards: %v", err))
			return
		}
	}
}

func newRun(ctx context.Context, e orchestrate.Engine, o Options) (*run, error) {
	r := &run{Options: o, engine: e, seeds: orchestrate.FreshSeeds(), id: freshID()}
	r.Way.Patience = listenPatience
	var err error
	if r.service, err = orchestrate.SensorFor(o.Kind.String()); err != nil {
		return nil, err
	}
	info, err := e.Info(ctx)
	if err != nil {
		return nil, err
	}
	r.remote = info.Remote
	if r.Settings.Cluster, err = r.Settings.Cluster.Fit(ctx, e); err != nil {
		return nil, err
	}
	var ok bool
	if r.shots, ok = e.(orchestrate.OneShots); !ok {
		return nil, errors.New("verify: this engine makes no containers beside the stack")
	}
	if r.Jobs == 0 {
		r.Jobs = jobs(ctx, e, r.workers())
	}
	return r, nil
}

// workers is how many processes share a sensor's port.
func (r *run) workers() int { return r.Settings.Cluster.Of(r.Kind.String()) }

// What one capture at a time wants of the engine's machine. A Zeek takes about 160
// MiB when it has started, and more with what it sees.
const (
	processMemory = 512 << 20 // bytes of a Zeek
	offlines      = 2         // that read meanwhile
	others        = 3         // of a cluster beside its workers
)

// jobs is how many captures at a time the engine's machine bears; 1 where that is
// not known.
func jobs(ctx context.Context, e orchestrate.Engine, workers int) int {
	sized, ok := e.(orchestrate.Sized)
	if !ok {
		return 1
	}
	c, err := sized.Capacity(ctx)
	if err != nil {
		return 1
	}
	return bearable(c.Now(), workers)
}

// bearable is a capture for each processor, as far as the memory goes: for its sensor
// while that ends, those that read offline, and the sensor of a later one.
func bearable(c orchestrate.Capacity, workers int) int {
	sensor := 1
	if workers > 1 {
		sensor = workers + others
	}
	return max(1, min(c.CPUs, int(c.Memory/int64((2*sensor+offlines)*processMemory))))
}

// clean removes what the run made.
func (r *run) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
	defer cancel()
	if _, err := r.shots.RemoveOneShots(ctx, orchestrate.Removal{Run: r.id}); err != nil {
		return orchestrate.WithHint(err, "`zeekdemo down` removes what is left")
	}
	return nil
}

// all returns one row for each capture, in their order. While the containers of one
// are removed, the next is begun.
func (r *run) all(ctx context.Context, captures []string) []Row {
	rows := make([]Row, len(captures))
	var wg sync.WaitGroup
	slots := make(chan struct{}, r.Jobs)
	for i, name := range captures {
		slots <- struct{}{}
		wg.Go(func() {
			s := r.subject(i, name)
			err := s.attempt(ctx)
			<-slots
			rows[i] = s.settle(ctx, err)
		})
	}
	wg.Wait()
	return rows
}

// project is the embedded stack, of which sensors are made.
func (r *run) project() orchestrate.Project {
	return orchestrate.Project{Name: orchestrate.ProjectName, Compose: assets.Compose(), Env: r.Settings.Environment(), Pull: r.Settings.Pull}
}

// temporaryPrefix begins the name of the folder for temporary files; the text of its
// process follows, and a random number.
const temporaryPrefix = "zeekdemo-verify-"

// RemoveForgotten removes the temporary files of processes that were killed. What
// cannot be removed belongs to another user.
func RemoveForgotten() {
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), temporaryPrefix+"*")) // the pattern is well-formed
	for _, folder := range folders {
		if temporaryOwner(filepath.Base(folder)).Gone() {
			os.RemoveAll(folder)
		}
	}
}

// temporaryName is the pattern of a client's folder, whose text has slashes.
func temporaryName(client orchestrate.Client) string {
	return temporaryPrefix + strings.ReplaceAll(client.String(), "/", ",") + "-*"
}

// temporaryOwner reads whose a folder is.
func temporaryOwner(folder string) orchestrate.Client {
	text := strings.TrimPrefix(folder, temporaryPrefix)
	if i := strings.LastIndexByte(text, '-'); i >= 0 {
		text = text[:i]
	}
	return orchestrate.ParseClient(strings.ReplaceAll(text, ",", "/"))
}

// freshID draws the name of a run.
func freshID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	return hex.EncodeToString(b[:])
}
