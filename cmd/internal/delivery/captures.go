package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/filter"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
)

// sampleName is what documents call the embedded sample.
const sampleName = "sample"

// Captures are open captures, with the filter before them.
type Captures struct {
	Names []string // folders replaced by what is in them; empty for the embedded sample
	// Stop ends a wait for standard input or a pipe.
	Stop func()

	forward.Source
	files  *pcapfile.Files
	remove func() // the unpacked sample
}

// CaptureOptions say how captures are read. A folder stands for those in it.
type CaptureOptions struct {
	Loop        int       // how often they are played; 0 for ever
	Stdin       io.Reader // what "-" stands for
	Sort        pcapfile.Order
	Filter      string // a pcap-filter expression; empty for all frames
	StopOnError bool   // a damaged capture ends the run; else the next is played
}

// OpenCaptures opens the named captures, or the sample if there is none, to be
// played loop times (0: for ever). Only frames that match expression are
// yielded, unless it is empty. It fails where nothing of them could pass.
func OpenCaptures(ctx context.Context, names []string, loop int, stdin io.Reader, expression string) (*Captures, error) {
	return CaptureOptions{Loop: loop, Stdin: stdin, Filter: expression}.Open(ctx, names)
}

// Open opens the named captures, as [OpenCaptures] does.
func (o CaptureOptions) Open(ctx context.Context, names []string) (*Captures, error) {
	names, err := pcapfile.List(names, o.Sort)
	if err != nil {
		return nil, err
	}
	c := &Captures{Names: names, remove: func() {}}
	if len(names) == 0 {
		name, err := unpackSample()
		if err != nil {
			return nil, err
		}
		c.remove, names = func() { os.Remove(name) }, []string{name}
	}
	if o.Loop == 0 {
		o.Loop = -1
	}
	waiting, stop := context.WithCancel(ctx)
	c.Stop = stop
	if err := c.open(ctx, names, pcapfile.Options{Loop: o.Loop, Stdin: o.Stdin, Stop: waiting.Done(), SkipDamage: !o.StopOnError}, o.Filter); err != nil {
		stop()
		c.remove()
		return nil, err
	}
	return c, nil
}

func (c *Captures) open(ctx context.Context, names []string, o pcapfile.Options, expression string) (err error) {
	if c.files, err = pcapfile.OpenAll(names, o); err != nil {
		return err
	}
	c.Source = c.files
	if err := encap.CheckLinkTypes(c.files.LinkTypes()); err != nil {
		return errors.Join(fmt.Errorf("replay %s: %w", strings.Join(names, ", "), err), c.files.Close())
	}
	if expression == "" {
		return nil
	}
	if c.Source, err = filter.Source(ctx, c.files, expression); err != nil {
		return errors.Join(err, c.files.Close())
	}
	return nil
}

// Progress implements forward.Progress.
func (c *Captures) Progress() (done, total int64) { return c.files.Progress() }

// damages are those met so far, for reports.
func (c *Captures) damages() (list []forward.Damage) {
	for _, d := range c.files.Damages() {
		list = append(list, d.Report())
	}
	return list
}

// withDamage adds to what a run came to that captures are damaged: a failure of the
// run, and no loss on its way.
func (c *Captures) withDamage(result error) error {
	list := c.files.Damages()
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
