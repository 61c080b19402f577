package verify

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
)

// offlineOnly makes containers that read captures: an engine without an engine.
type offlineOnly struct {
	logs map[string]string // conn.log by the container's name
	exit func(orchestrate.OneShot) int

	mu    sync.Mutex
	shots map[string]orchestrate.OneShot // by ID
	order []string
}

var _ orchestrate.OneShots = (*offlineOnly)(nil)

func (r *offlineOnly) CreateOneShot(_ context.Context, _ orchestrate.Project, o orchestrate.OneShot) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shots == nil {
		r.shots = map[string]orchestrate.OneShot{}
	}
	r.shots[o.Name] = o
	r.order = append(r.order, o.Name)
	return o.Name, nil
}

func (r *offlineOnly) StartOneShot(context.Context, string) (orchestrate.Container, error) {
	return orchestrate.Container{}, nil
}

func (r *offlineOnly) WaitOneShot(_ context.Context, id string) (orchestrate.Ended, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exit == nil {
		return orchestrate.Ended{}, nil
	}
	return orchestrate.Ended{ExitCode: r.exit(r.shots[id])}, nil
}

func (r *offlineOnly) StopOneShot(context.Context, string, time.Duration) (orchestrate.Ended, error) {
	return orchestrate.Ended{}, nil
}

func (r *offlineOnly) OneShotLogs(_ context.Context, id string) (io.ReadCloser, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	text := r.logs[id]
	if err := w.WriteHeader(&tar.Header{Name: "zeek/conn.log", Size: int64(len(text)), Mode: 0o644}); err != nil {
		return nil, err
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return nil, err
	}
	return io.NopCloser(&b), w.Close()
}

func (r *offlineOnly) RemoveOneShots(context.Context, orchestrate.Removal) (int, error) {
	return 1, nil
}

// beside makes a subject whose captures are read by that.
func beside(t *testing.T, r *offlineOnly) *subject {
	t.Helper()
	v := &run{Options: Options{Observer: quiet{}}, shots: r, seeds: []byte("1\n")}
	return &subject{run: v, number: "1", name: "x.pcap", sent: "sent.pcap"}
}

// Before a difference is called a fault, what was sent is read again, from the
// same seeds and from others. Where nothing differs, nothing is read.
func TestControlsAreReadBeforeAFault(t *testing.T) {
	steady, random := `{"id.orig_h":"10.0.0.1","history":"D"}`, `{"id.orig_h":"10.0.0.1","history":"Dd"}`
	parse := func(text string) zeeklog.Logs {
		records, err := zeeklog.Parse(bytes.NewReader([]byte(text)))
		if err != nil {
			t.Fatal(err)
		}
		return zeeklog.Logs{"conn": records}
	}
	r := &offlineOnly{logs: map[string]string{"1-control-1": steady, "1-control-2": random}}
	s := beside(t, r)
	controls, err := s.controls(t.Context(), zeeklog.Rules{}, parse(steady), parse(steady))
	if err != nil || len(controls) != 0 || len(r.order) != 0 {
		t.Errorf("where nothing differs: %d controls, containers %q, %v", len(controls), r.order, err)
	}
	controls, err = s.controls(t.Context(), zeeklog.Rules{}, parse(random), parse(steady))
	if err != nil || len(controls) != 2 {
		t.Fatalf("%d controls, %v", len(controls), err)
	}
	same, other := r.shots["1-control-1"], r.shots["1-control-2"]
	if same.Capture != "sent.pcap" || other.Capture != "sent.pcap" || !bytes.Equal(same.Seeds, s.seeds) || bytes.Equal(other.Seeds, s.seeds) || len(other.Seeds) == 0 {
		t.Errorf("controls %+v and %+v", same, other)
	}
	s.judge(zeeklog.Rules{}, parse(random), parse(steady), controls...)
	if s.row.Verdict != Equal || s.row.ByZeek != 1 || s.row.Different != 0 {
		t.Errorf("%s, %d of Zeek's own, %d faults", s.row.Verdict, s.row.ByZeek, s.row.Different)
	}
}

// An image whose Zeek does not understand the question for its types is read
// without it, and the row says so.
func TestAnImageThatTellsNoTypes(t *testing.T) {
	r := &offlineOnly{logs: map[string]string{"1-sent-again": "{}"}, exit: func(o orchestrate.OneShot) int {
		if o.Script != "" {
			return 1
		}
		return 0
	}}
	s := beside(t, r)
	run, err := s.asSent(t.Context())
	if err != nil || len(run.Logs["conn"]) != 1 || !slices.Equal(r.order, []string{"1-sent", "1-sent-again"}) {
		t.Errorf("read %v by %q, %v", run, r.order, err)
	}
	if s.rules(run.Columns); s.row.TypesNote == "" {
		t.Error("it is not said that the types are not Zeek's own")
	}
}
