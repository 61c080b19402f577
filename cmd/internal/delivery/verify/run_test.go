package verify

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/klauspost/compress/zstd"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/sidecar"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/zeeklog"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// sampleFrames is how many frames the sample has.
const sampleFrames = 432

// options are those of a run with the fake engine.
func options() Options {
	return Options{Kind: encap.VXLAN, Way: way.Request{Kind: way.Auto, Tx: transmit.UDP}, Pace: pace.MaxSpec(), Tx: transmit.UDP, CPU: transmit.CPUOff,
		Lossless: watch.Auto, Settings: orchestrate.Settings{Pull: orchestrate.PullNever, Bind: netip.MustParseAddr("127.0.0.1")},
		Jobs: 1, Stdin: strings.NewReader(""), Observer: quiet{}}
}

// temporary is a folder in which runs make theirs; it must be empty afterwards.
func temporary(t *testing.T) {
	t.Helper()
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	t.Cleanup(func() {
		if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

// verified runs a verification of one capture and checks that nothing of it
// stays.
func verified(t *testing.T, ctx context.Context, e orchestrate.Engine, fake *fakeEngine, capture string, o Options) Row {
	t.Helper()
	rows, err := Run(ctx, e, []string{capture}, o)
	if err != nil || len(rows) != 1 || rows[0].Capture != capture {
		t.Fatalf("%v: %+v", err, rows)
	}
	if left := fake.left(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	return rows[0]
}

// sample is the embedded sample as a file.
func sample(t *testing.T) string { return written(t, "sample.pcap", samples.Sample()) }

func written(t *testing.T, name string, content []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func gzipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); errors.Join(err, w.Close()) != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstandard(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); errors.Join(err, w.Close()) != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// equal checks the row of a capture that arrived whole.
func equal(t *testing.T, row Row, via way.Kind, frames uint64) {
	t.Helper()
	p := row.Path
	if row.Verdict != Equal || row.Via != via || p.Sent != frames || p.Received != frames || p.ReceivedBytes != p.SentBytes || !p.DropsKnown {
		t.Errorf("%s by %s: %s %+v %v", row.Verdict, row.Via, row.Error, p, row.Findings)
	}
	if row.Connections == 0 || row.Lines != row.Connections+1 || row.ByPace != 0 || row.ElapsedSeconds <= 0 {
		t.Errorf("%+v", row)
	}
}

// Whatever a capture is stored as, it is the same to the sensor and offline.
func TestACaptureIsVerifiedHoweverItIsStored(t *testing.T) {
	temporary(t)
	plain := samples.Sample()
	for name, tt := range map[string]struct {
		capture string
		stdin   []byte
	}{
		"plain":          {capture: sample(t)},
		"gzip":           {capture: written(t, "sample.pcap.gz", gzipped(t, plain))},
		"zstd":           {capture: written(t, "sample", zstandard(t, plain))},
		"standard input": {capture: "-", stdin: plain},
		"gzip on it":     {capture: "-", stdin: gzipped(t, plain)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, o := newFake(t), options()
			o.Stdin = bytes.NewReader(tt.stdin)
			row := verified(t, t.Context(), e, e, tt.capture, o)
			equal(t, row, way.Published, sampleFrames)
			if row.PaceNote != "" {
				t.Errorf("note %q", row.PaceNote)
			}
		})
	}
}

// A port is published only where no other way works.
func TestAPortIsPublishedOnlyWhereNothingElseWorks(t *testing.T) {
	temporary(t)
	for name, tt := range map[string]struct {
		kind   way.Kind
		able   bool // of sidecars
		want   way.Kind
		why    string
		lives  []bool // which sensors publish
		denied error  // to start a sidecar
	}{
		"nothing else works":    {way.Auto, false, way.Published, "not by sidecar: run a sidecar: this engine cannot", []bool{false, true}, nil},
		"the sidecar is denied": {way.Auto, true, way.Published, "not by sidecar: run a sidecar: denied", []bool{false, true}, errors.New("denied")},
		"asked for":             {way.Published, true, way.Published, "", []bool{true}, nil},
		"a sidecar works":       {way.Auto, true, way.Sidecar, "not direct", []bool{false}, nil},
		"a sidecar asked for":   {way.Sidecar, true, way.Sidecar, "", []bool{false}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, o := newFake(t), options()
			fake.fail["start sidecar"] = tt.denied
			o.Way.Kind, o.Way.Binary = tt.kind, testenv.ForeignProgram(t)
			var e orchestrate.Engine = fake
			if tt.able {
				e = withSidecars{fakeEngine: fake}
			}
			row := verified(t, t.Context(), e, fake, sample(t), o)
			equal(t, row, tt.want, sampleFrames)
			if !strings.Contains(row.ViaReason, tt.why) || (tt.why == "") != (row.ViaReason == "") {
				t.Errorf("why: %q", row.ViaReason)
			}
			var lives []bool
			for _, shot := range fake.all {
				if shot.Capture == "" {
					lives = append(lives, shot.Publish)
				}
			}
			if !slices.Equal(lives, tt.lives) {
				t.Errorf("sensors that publish: %v, want %v", lives, tt.lives)
			}
		})
	}
}

// answered is the first frame of the sample (from 0) after which the direction
// of its connection changes with the very next frame.
func answered(t *testing.T) int {
	t.Helper()
	r, err := pcapfile.Open(sample(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var last gopacket.Flow
	for i, f := 0, (forward.Frame{}); r.Next(&f) == nil; i++ {
		p := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.Default)
		if n := p.NetworkLayer(); n != nil && i > 0 && n.NetworkFlow() == last.Reverse() {
			return i - 1
		} else if n != nil {
			last = n.NetworkFlow()
		}
	}
	t.Fatal("no connection of the sample is answered at once")
	return 0
}

// Each fault of the path is found and named, on the way through this process and
// on that through a sidecar, whose frames are rebuilt from its journal.
func TestAFaultOnTheWayIsFound(t *testing.T) {
	temporary(t)
	for _, tt := range []struct {
		faulty
		cause zeeklog.Cause
		text  string
	}{
		{faulty{fault: "drop", at: 40}, zeeklog.Lost, "1 of 432 datagrams were lost"},
		{faulty{fault: "double", at: 40}, zeeklog.Doubled, "1 datagrams more arrived than the 432"},
		{faulty{fault: "cut", at: 40}, zeeklog.Cut, "10 of "},
		{faulty{fault: "swap", at: answered(t)}, zeeklog.Unexplained, "whether they had their order and their bytes was not looked at"},
	} {
		for _, by := range []way.Kind{way.Published, way.Sidecar} {
			t.Run(fmt.Sprint(tt.fault, " ", by), func(t *testing.T) {
				t.Parallel()
				fake, o := newFake(t), options()
				o.Way.Kind, o.Way.Binary, o.Interpose = by, testenv.ForeignProgram(t), tt.before
				row := verified(t, t.Context(), withSidecars{fakeEngine: fake, interpose: tt.before}, fake, sample(t), o)
				if row.Verdict != Differs || len(row.Findings) != 1 || row.Via != by {
					t.Fatalf("%s by %s: %s %v", row.Verdict, row.Via, row.Error, row.Findings)
				}
				if f := row.Findings[0]; f.Cause != tt.cause || !strings.Contains(f.Text, tt.text) {
					t.Errorf("found %+v, want %s: %q", f, tt.cause, tt.text)
				}
			})
		}
	}
}

// altering changes a byte of the first frame on its way to a sidecar: past the
// record's head (5 bytes), what is told of the frame (22) and its addresses.
func altering(in io.Reader) io.Reader {
	frame, changed := make([]byte, 5+22+20), io.MultiReader()
	return readerFunc(func(p []byte) (int, error) {
		if frame != nil {
			if _, err := io.ReadFull(in, frame); err != nil {
				return 0, err
			}
			frame[len(frame)-1] ^= 0xff
			changed, frame = io.MultiReader(bytes.NewReader(frame), in), nil
		}
		return changed.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// afterTheJob applies a change behind the job, the first record of the stream.
func afterTheJob(change func(io.Reader) io.Reader) func(io.Reader) io.Reader {
	return func(in io.Reader) io.Reader {
		head := make([]byte, 5)
		if _, err := io.ReadFull(in, head); err != nil {
			return iotest.ErrReader(err)
		}
		job := make([]byte, binary.LittleEndian.Uint32(head[1:]))
		if _, err := io.ReadFull(in, job); err != nil {
			return iotest.ErrReader(err)
		}
		return io.MultiReader(bytes.NewReader(head), bytes.NewReader(job), change(in))
	}
}

// What happens to a frame between here and the sidecar is not recorded as if it
// had to be so.
func TestAFrameAlteredBeforeTheSidecarIsNoticed(t *testing.T) {
	temporary(t)
	fake, o := newFake(t), options()
	o.Way.Kind, o.Way.Binary = way.Sidecar, testenv.ForeignProgram(t)
	row := verified(t, t.Context(), withSidecars{fakeEngine: fake, tamper: afterTheJob(altering)}, fake, sample(t), o)
	if row.Verdict != Failed || !strings.Contains(row.Error, "what was sent is not what was handed over: packets 1 to ") {
		t.Errorf("%s: %s", row.Verdict, row.Error)
	}
}

// forgetful is a sidecar's way back on which its journal is lost.
type forgetful struct{ io.Writer }

// Write gets one message at a time.
func (f forgetful) Write(line []byte) (int, error) {
	var m sidecar.Message
	if err := json.Unmarshal(line, &m); err != nil {
		return 0, err
	}
	m.Journal = nil
	short, err := json.Marshal(m)
	if err != nil {
		return 0, err
	}
	_, err = f.Writer.Write(append(short, '\n'))
	return len(line), err
}

// What a sidecar sent is not taken for known where its journal does not hold it.
func TestAJournalThatIsNotWhole(t *testing.T) {
	temporary(t)
	fake, o := newFake(t), options()
	o.Way.Kind, o.Way.Binary = way.Sidecar, testenv.ForeignProgram(t)
	mute := func(w io.Writer) io.Writer { return forgetful{w} }
	row := verified(t, t.Context(), withSidecars{fakeEngine: fake, mute: mute}, fake, sample(t), o)
	if row.Verdict != Failed || !strings.Contains(row.Error, "the sidecar told of 432 packets, its journal of 0") {
		t.Errorf("%s: %s", row.Verdict, row.Error)
	}
}

// Whatever goes wrong, the row says what, and nothing stays.
func TestEachStepMayFail(t *testing.T) {
	temporary(t)
	broken := orchestrate.WithHint(errors.New("it broke"), "mend it")
	for step, want := range map[string]string{
		"create live": "it broke", "start live": "it broke", "look live": "it broke", "stop live": "stop sensor ", "logs live": "it broke",
		"create sent": "it broke", "start sent": "it broke", "wait sent": "read offline: it broke", "logs sent": "it broke", "remove sent": "it broke",
		"create sidecar": "it broke", "start sidecar": "it broke",
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			fake, o := newFake(t), options()
			fake.fail[step] = broken
			o.Way.Kind, o.Way.Binary = way.Sidecar, testenv.ForeignProgram(t)
			row := verified(t, t.Context(), withSidecars{fakeEngine: fake}, fake, sample(t), o)
			if row.Verdict != Failed || !strings.Contains(row.Error, want) || row.Hint != "mend it" {
				t.Errorf("%s: %q, hint %q", row.Verdict, row.Error, row.Hint)
			}
		})
	}
}

// A process that ends badly is told with its last words.
func TestAProcessThatEndsBadly(t *testing.T) {
	temporary(t)
	crashed := orchestrate.Ended{ExitCode: 1, Tail: []string{"fatal error: no memory", ""}}
	for name, tt := range map[string]struct {
		what    string
		verdict Verdict
		text    string
	}{
		"the sensor":               {"live", Failed, "stop sensor zeekdemo-verify-"},
		"offline, what was sent":   {"sent", Failed, "read offline: exit code 1: fatal error: no memory"},
		"offline, what was given":  {"captured", Equal, "Zeek does not read the capture itself: read offline: exit code 1"},
		"by chance none of them":   {"nobody", Equal, ""},
		"while it waits to listen": {"look", Failed, "exit code 1: fatal error: no memory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newFake(t)
			e.ended[tt.what] = crashed
			if tt.what == "sent" { // it is read once more without the question for its types
				e.ended["sent-again"] = crashed
			}
			if tt.what == "look" {
				e.ended["live"], e.fail["look live"] = crashed, errors.New("not running")
			}
			row := verified(t, t.Context(), e, e, sample(t), options())
			if text := row.Error + row.PaceNote; row.Verdict != tt.verdict || !strings.Contains(text, tt.text) || (tt.text == "") != (text == "") {
				t.Errorf("%s: %q", row.Verdict, text)
			}
		})
	}
}

// What is no capture, or none that a sensor takes, fails before or while it is
// sent.
func TestWhatCannotBeSentSaysWhy(t *testing.T) {
	temporary(t)
	header := []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 195, 0, 0, 0}
	radio := append(header, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7)
	for name, tt := range map[string]struct {
		capture string
		set     func(*fakeEngine, *Options)
		want    string
		hint    string
	}{
		"not there":           {filepath.Join(t.TempDir(), "no.pcap"), nil, "open capture: ", ""},
		"a folder":            {t.TempDir(), nil, "is a directory", ""},
		"not a capture":       {written(t, "text", []byte("hello, this is no capture at all")), nil, "text", ""},
		"no gzip after all":   {written(t, "x.gz", []byte{0x1f, 0x8b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}), nil, "read capture ", ""},
		"gzip that is cut":    {written(t, "x.gz", gzipped(t, samples.Sample())[:500]), nil, "unpack capture ", ""},
		"of another kind":     {written(t, "radio.pcap", radio), nil, "replay ", ""},
		"without feedback":    {sample(t), func(_ *fakeEngine, o *Options) { o.Lossless = watch.Require }, "require a lossless run: the sensor does not run on this machine", ""},
		"packets of our own":  {sample(t), func(_ *fakeEngine, o *Options) { o.Way.Kind, o.Way.Tx = way.Sidecar, transmit.Packet }, "no capability for --tx packet", ""},
		"a remote engine":     {sample(t), func(e *fakeEngine, _ *Options) { e.remote = true }, "its published ports are out of reach", "--via sidecar sends from beside the sensor, wherever the engine is"},
		"nobody listens":      {sample(t), func(e *fakeEngine, _ *Options) { e.deaf = true }, "nobody listens at 127.0.0.1:", "--via sidecar sends from beside the sensor, wherever the engine is"},
		"direct is not to be": {sample(t), func(_ *fakeEngine, o *Options) { o.Way.Kind = way.Direct }, "reach sensor zeek: not direct", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, o := newFake(t), options()
			if tt.set != nil {
				tt.set(e, &o)
			}
			row := verified(t, t.Context(), e, e, tt.capture, o)
			if row.Verdict != Failed || !strings.Contains(row.Error, tt.want) || row.Hint != tt.hint {
				t.Errorf("%s: %q, hint %q", row.Verdict, row.Error, row.Hint)
			}
		})
	}
}

// A capture is sent up to its damage, by whatever way, and that is compared.
func TestADamagedCaptureIsVerifiedUpToTheDamage(t *testing.T) {
	temporary(t)
	for _, by := range []way.Kind{way.Published, way.Sidecar} {
		t.Run(string(by), func(t *testing.T) {
			t.Parallel()
			fake, o := newFake(t), options()
			o.Way.Kind, o.Way.Binary = by, testenv.ForeignProgram(t)
			row := verified(t, t.Context(), withSidecars{fakeEngine: fake}, fake, written(t, "cut.pcap", samples.Sample()[:2000]), o)
			if row.Path.Sent == 0 || row.Path.Sent >= sampleFrames || !strings.Contains(row.PaceNote, "cut.pcap: packet") {
				t.Errorf("%d sent, note %q", row.Path.Sent, row.PaceNote)
			}
			equal(t, row, by, row.Path.Sent)
		})
	}
}

// stop ends a context at a step of the engine, which begins once everything
// before it has been done.
func stop(t *testing.T, e *fakeEngine, at string) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	e.at = func(step string) {
		if step == at {
			cancel()
		}
	}
	return ctx
}

// An interrupted capture is none that failed: its row says so, captures after it
// are not begun, and nothing stays, not even a sensor that was started in advance.
func TestAnInterruptedRunLeavesNothing(t *testing.T) {
	temporary(t)
	for _, step := range []string{"start live", "look live", "start sidecar", "wait sent"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			fake, o := newFake(t), options()
			o.Way.Kind, o.Way.Binary = way.Sidecar, testenv.ForeignProgram(t)
			rows, err := Run(stop(t, fake, step), withSidecars{fakeEngine: fake}, []string{sample(t), sample(t)}, o)
			if err != nil || len(fake.left()) > 0 {
				t.Errorf("%v, left: %v", err, fake.left())
			}
			for _, row := range rows {
				if row.Verdict != Failed || row.Error != delivery.ErrInterrupted.Error() || row.Hint != "" {
					t.Errorf("%s: %q, hint %q", row.Verdict, row.Error, row.Hint)
				}
			}
			for _, shot := range fake.all {
				if ahead := step == "wait sent" && shot.Name == "2-live"; strings.HasPrefix(shot.Name, "2-") && !ahead {
					t.Errorf("the second capture was begun: %s", shot.Name)
				}
			}
		})
	}
}

// lister is an observer that keeps what it is told.
type lister struct {
	quiet
	mu    sync.Mutex
	lines []string
	steps []delivery.Step
}

func (l *lister) Say(line string) { l.mu.Lock(); defer l.mu.Unlock(); l.lines = append(l.lines, line) }

func (l *lister) Step(s delivery.Step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps = append(l.steps, s)
}

// texts are the steps of one capture, each once.
func (l *lister) texts(id string) (list []string) {
	for _, s := range l.steps {
		if s.ID == id && !slices.Contains(list, s.Text) {
			list = append(list, s.Text)
		}
	}
	return list
}

// Several captures at a time: each has its own containers, and its row is at its
// place.
func TestSeveralCapturesAtATime(t *testing.T) {
	temporary(t)
	told := &lister{}
	e, o := newFake(t), options()
	o.Jobs, o.Observer, o.Way.Kind, e.forgotten = 3, told, way.Published, 2
	captures := []string{sample(t), filepath.Join(t.TempDir(), "no.pcap"), written(t, "cut.pcap", samples.Sample()[:2000]), sample(t)}
	rows, err := Run(t.Context(), e, captures, o)
	if err != nil || len(e.left()) > 0 {
		t.Fatalf("%v, left: %v", err, e.left())
	}
	for i, want := range []Verdict{Equal, Failed, Equal, Equal} {
		if rows[i].Capture != captures[i] || rows[i].Verdict != want {
			t.Errorf("%d: %s %s, want %s: %s", i, rows[i].Capture, rows[i].Verdict, want, rows[i].Error)
		}
	}
	names := map[string]bool{}
	for _, shot := range e.all {
		names[shot.ContainerName()] = true
	}
	readers, lives := len(e.all)-len(e.lives()), len(e.lives())
	if len(names) != len(e.all) || readers != 6 || lives < 3 || lives > 4 { // one may have been started for the capture that cannot be opened
		t.Errorf("%d names of %d readers and %d sensors, want 6 and 3", len(names), readers, lives)
	}
	if want := []string{"Removed 2 containers that an earlier run left behind."}; !slices.Equal(told.lines, want) {
		t.Errorf("said %q", told.lines)
	}
	if want := []string{"Starting a sensor", "Sending", "Reading offline", "equal"}; !slices.Equal(told.texts(captures[0]), want) {
		t.Errorf("steps %q", told.texts(captures[0]))
	}
}

// A capture's temporary files, which may be large, go before the next one's come.
func TestTemporaryFilesGoWithTheirCapture(t *testing.T) {
	temporary(t)
	e := newFake(t)
	var there [][]string
	e.at = func(step string) {
		if step == "wait sent" {
			files, _ := filepath.Glob(filepath.Join(os.TempDir(), "*", "*")) // the pattern is well-formed
			for i, name := range files {
				files[i] = filepath.Base(name)
			}
			there = append(there, files)
		}
	}
	packed, o := written(t, "sample.pcap.gz", gzipped(t, samples.Sample())), options()
	o.Way.Kind = way.Published
	if _, err := Run(t.Context(), e, []string{packed, packed}, o); err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"1-plain.pcap", "1-sent.pcap"}, {"2-plain.pcap", "2-sent.pcap"}}
	if !reflect.DeepEqual(there, want) {
		t.Errorf("there were %q, want %q", there, want)
	}
}

// What a capture's logs must hold is checked in those of the live sensor.
func TestExpectationsDecideWhereThePathIsClean(t *testing.T) {
	temporary(t)
	for lines, want := range map[string]Verdict{
		"conn.log >= 1\nsample.pcap: conn.log proto=TCP >= 1\nother.pcap: dns.log >= 1": Equal,
		"conn.log >= 1\ndns.log >= 1": Unmet,
	} {
		t.Run(string(want), func(t *testing.T) {
			t.Parallel()
			e, o := newFake(t), options()
			var err error
			if o.Expected, err = zeeklog.ParseExpectations(strings.NewReader(lines)); err != nil {
				t.Fatal(err)
			}
			row := verified(t, t.Context(), e, e, sample(t), o)
			if row.Verdict != want || row.Expected != 2 || len(row.Unmet) != map[Verdict]int{Unmet: 1}[want] {
				t.Errorf("%s, %d expectations, unmet %q", row.Verdict, row.Expected, row.Unmet)
			}
		})
	}
}

// A frame that could not be sent makes it incomplete, and no fault of the path.
func TestAFrameThatCannotBeSentIsNoFault(t *testing.T) {
	temporary(t)
	content := slices.Clone(samples.Sample())
	long := make([]byte, 16+66_000)
	binary.LittleEndian.PutUint32(long[8:], 66_000)
	binary.LittleEndian.PutUint32(long[12:], 66_000)
	binary.BigEndian.PutUint16(long[16+12:], 0x0800)
	long[16+14] = 0x45
	e := newFake(t)
	row := verified(t, t.Context(), e, e, written(t, "long.pcap", append(content, long...)), options())
	if row.Verdict != Incomplete || delivery.LostFrames(row.Report) != 1 || row.Path.Sent != sampleFrames {
		t.Errorf("%s: %s, %v, %+v", row.Verdict, row.Error, row.Findings, row.Report.Refused)
	}
}

// plainEngine cannot make containers beside the stack.
type plainEngine struct{ orchestrate.Engine }

func (plainEngine) Info(context.Context) (orchestrate.EngineInfo, error) {
	return orchestrate.EngineInfo{}, nil
}

// A run that cannot begin, or cannot clean up, fails as a whole.
func TestARunThatCannotBeginOrEnd(t *testing.T) {
	temporary(t)
	broken := errors.New("it broke")
	for step, want := range map[string]string{
		"info": "it broke", "remove forgotten": "remove what an earlier run left: it broke", "remove run": "it broke",
	} {
		e := newFake(t)
		e.fail[step] = broken
		rows, err := Run(t.Context(), e, nil, options())
		if !errors.Is(err, broken) || err.Error() != want || len(rows) > 0 {
			t.Errorf("%s: %v", step, err)
		}
		var advice interface{ Hint() string }
		if hinted := errors.As(err, &advice); hinted != (step == "remove run") {
			t.Errorf("%s: a hint: %v", step, hinted)
		}
	}
	if _, err := Run(t.Context(), plainEngine{}, nil, options()); err == nil || !strings.Contains(err.Error(), "makes no containers") {
		t.Errorf("%v", err)
	}
	nothing := options()
	nothing.Kind = 0xff
	if _, err := Run(t.Context(), newFake(t), nil, nothing); err == nil {
		t.Error("an encapsulation that no sensor takes")
	}
}

// Folders of processes that are gone are removed; those of living ones, and of other
// PID namespaces, are not.
func TestForgottenFoldersAreRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var kept []string
	for client, stays := range map[orchestrate.Client]bool{orchestrate.ThisClient(): true, orchestrate.ClientOfProcess(1 << 30): false, orchestrate.ClientHere(1<<30, 1, 2): true} {
		folder := filepath.Join(os.TempDir(), strings.TrimSuffix(temporaryName(client), "*")+"1")
		if err := os.MkdirAll(filepath.Join(folder, "deep"), 0o700); err != nil {
			t.Fatal(err)
		}
		if stays {
			kept = append(kept, folder)
		}
	}
	slices.Sort(kept)
	RemoveForgotten()
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	if err != nil || !slices.Equal(left, kept) {
		t.Errorf("left %q, want %q", left, kept)
	}
}

// The worst of several verdicts is that of all.
func TestVerdictsAreOrdered(t *testing.T) {
	order := []Verdict{Equal, Incomplete, Unmet, Differs, Failed}
	for i, v := range order {
		for j, o := range order {
			if v.Worse(o) != (i > j) {
				t.Errorf("%s worse than %s: %v", v, o, v.Worse(o))
			}
		}
	}
}
