package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/filter"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
)

// sampleName is what documents call the embedded sample.
const sampleName = "sample"

// input is where frames come from: files, a file that grows, connections.
type input interface {
	forward.Source
	forward.Progress
	LinkTypes() []forward.LinkType
	Damages() []*pcapfile.DamageError
}

var (
	_ input = (*pcapfile.Files)(nil)
	_ input = (*pcapfile.Follower)(nil)
	_ input = (*pcapfile.Streams)(nil)
)

// Captures are open captures, with the filter before them.
type Captures struct {
	Names []string // folders replaced by what is in them; empty for the embedded sample
	// Stop ends a wait for standard input, a pipe, a file that grows or connections.
	Stop func()

	forward.Source
	input  input
	remove func() // the unpacked sample
}

// CaptureOptions say how captures are read. A folder stands for those in it, and
// tcp://HOST:PORT for what comes from there.
type CaptureOptions struct {
	Loop        int       // how often they are played; 0 for ever
	Stdin       io.Reader // what "-" stands for
	Sort        pcapfile.Order
	Filter      string            // a pcap-filter expression; empty for all frames
	StopOnError bool              // a damaged capture ends the run; else the next is played
	Follow      bool              // the only one grows, and is read on and on
	Listen      string            // where connections bring captures, [ADDRESS:]PORT
	Say         func(line string) // is told of connections; nil for nobody
	// Opening bounds how long standard input, pipes and named pipes may take to
	// begin; 0 for ever.
	Opening time.Duration
}

// OpenCaptures opens the named captures, or the sample if there is none, to be
// played loop times (0: for ever). Only frames that match expression are
// yielded, unless it is empty. It fails where nothing of them could pass.
func OpenCaptures(ctx context.Context, names []string, loop int, stdin io.Reader, expression string) (*Captures, error) {
	return CaptureOptions{Loop: loop, Stdin: stdin, Filter: expression}.Open(ctx, names)
}

// Open opens the named captures, as [OpenCaptures] does.
func (o CaptureOptions) Open(ctx context.Context, names []string) (*Captures, error) {
	if err := o.check(names); err != nil {
		return nil, err
	}
	names, err := pcapfile.List(names, o.Sort)
	if err != nil {
		return nil, err
	}
	c := &Captures{Names: names, remove: func() {}}
	if o.Listen != "" {
		c.Names = append(slices.Clone(names), "connections to "+o.Listen)
	}
	if len(c.Names) == 0 {
		name, err := unpackSample()
		if err != nil {
			return nil, err
		}
		c.remove, names = func() { os.Remove(name) }, []string{name}
	}
	waiting, stop := context.WithCancel(ctx)
	c.Stop = stop
	if c.input, err = o.open(names, waiting.Done()); err == nil {
		err = c.filter(ctx, names, o.Filter)
	}
	if err != nil {
		stop()
		c.remove()
		return nil, err
	}
	return c, nil
}

// check looks at what the options want of each other and of the names.
func (o CaptureOptions) check(names []string) error {
	streams := slices.ContainsFunc(names, pcapfile.IsStream)
	files := slices.ContainsFunc(names, func(name string) bool { return !pcapfile.IsStream(name) })
	switch live := streams || o.Listen != ""; {
	case live && files:
		return way.Usagef("captures that come by TCP do not go with files: replay them in two runs")
	case (live || o.Follow) && o.Loop != 1:
		return way.Usagef("--loop goes with files that have an end")
	case o.Follow && (live || len(names) != 1 || names[0] == "-"):
		return way.Usagef("--follow wants one file")
	case live && o.Sort != pcapfile.AsGiven:
		return way.Usagef("--sort goes with files: what comes by TCP is merged by time")
	case live && o.StopOnError:
		return way.Usagef("--stop-on-error goes with files: a server whose capture is damaged is connected again")
	}
	return nil
}

// open opens what the names stand for.
func (o CaptureOptions) open(names []string, stop <-chan struct{}) (input, error) {
	switch {
	case o.Listen != "" || slices.ContainsFunc(names, pcapfile.IsStream):
		return pcapfile.OpenStreams(pcapfile.StreamOptions{Connect: names, Listen: o.Listen, Stop: stop, Say: o.Say})
	case o.Follow:
		return pcapfile.Follow(names[0], pcapfile.Options{Stop: stop})
	}
	loop := o.Loop
	if loop == 0 {
		loop = -1
	}
	return pcapfile.OpenAll(names, pcapfile.Options{Loop: loop, Stdin: o.Stdin, Stop: stop, Opening: o.Opening, SkipDamage: !o.StopOnError})
}

// filter puts the filter before the input, which it closes where that fails.
func (c *Captures) filter(ctx context.Context, names []string, expression string) (err error) {
	c.Source = c.input
	if err := encap.CheckLinkTypes(c.input.LinkTypes()); err != nil {
		return errors.Join(fmt.Errorf("replay %s: %w", strings.Join(names, ", "), err), c.input.Close())
	}
	if expression == "" {
		return nil
	}
	if c.Source, err = filter.Source(ctx, c.input, expression); err != nil {
		return errors.Join(err, c.input.Close())
	}
	return nil
}

// Progress implements forward.Progress.
func (c *Captures) Progress() (done, total int64) { return c.input.Progress() }

// damages are those met so far, for reports.
func (c *Captures) damages() (list []forward.Damage) {
	for _, d := range c.input.Damages() {
		list = append(list, d.Report())
	}
	return list
}

// withDamage adds to what a run came to that captures are damaged: a failure of the
// run, and no loss on its way.
func (c *Captures) withDamage(result error) error {
	list := c.input.Damages()
	if len(list) == 0 || errors.Is(result, ErrInterrupted) {
		return result
	}
	errs := []error{result}
	for _, d := range list {
		errs = append(errs, d)
	}
	return errors.Join(errs...)
}

// filtered is how many frames the filter has left out so far.
func (c *Captures) filtered() uint64 {
	if f, ok := c.Source.(forward.Filterer); ok {
		return f.Filtered()
	}
	return 0
}

// Title names the captures for a person.
func (c *Captures) Title() string {
	const most = 5
	switch n := len(c.Names); {
	case n == 0:
		return "the embedded sample"
	case n > most:
		return fmt.Sprintf("%s and %d more captures", c.Names[0], n-1)
	}
	return strings.Join(c.Names, ", ")
}

// Close closes the captures and removes what was unpacked.
func (c *Captures) Close() error {
	c.Stop()
	defer c.remove()
	return c.Source.Close()
}

// unpackSample puts the embedded sample where it can be opened more than once.
func unpackSample() (name string, err error) {
	f, err := os.CreateTemp("", "zeekdemo-*-"+samples.Name)
	if err != nil {
		return "", fmt.Errorf("unpack the sample: %w", err)
	}
	_, err = f.Write(samples.Sample())
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("unpack the sample: %w", err)
	}
	return f.Name(), nil
}
