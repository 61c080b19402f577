package hosttune

import (
	"context"
	"errors"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Observer is told what happens meanwhile. Functions that are nil are not
// called.
type Observer struct {
	// Progress takes the steps of what takes time: an image that is pulled, a
	// sensor that is restarted.
	Progress orchestrate.Progress
	// Note takes what there is to know beside the result.
	Note func(text string)
}

func (o Observer) progress(e orchestrate.Event) {
	if o.Progress != nil {
		o.Progress(e)
	}
}

func (o Observer) note(text string) {
	if o.Note != nil {
		o.Note(text)
	}
}

// Options say how the machine of an engine is reached, and what is tuned there
// beside what every machine needs.
type Options struct {
	Way nsenter.Way // empty for nsenter.Auto
	// Image is what a helper container is made of; empty for that of the
	// sensors, and where there is none for UpImage: what `up` would make them
	// of.
	Image, UpImage string
	// Pull says whether that image may be pulled; empty for never.
	Pull orchestrate.PullPolicy
	// Answer is what the engine has said already; nil to ask it.
	Answer *Answer
	// Program finds this program, built for the engine's platform. It is asked
	// for where offloads of interfaces are looked at. Nil for none.
	Program func(orchestrate.EngineInfo) (path string, err error)
	// Interfaces are those of the machine whose offloads are to be off.
	Interfaces []string
	// Store is what this client keeps, see [Store].
	Store    Store
	Observer Observer
}

// Answer is what an engine says of itself, or why it does not.
type Answer struct {
	Info orchestrate.EngineInfo
	Err  error
}

// Tuner tunes the machine that runs an engine, shows how it stands, and takes
// the tuning back: what `tune-host` does. [Open] makes one. It belongs to one
// goroutine, and has to be closed.
//
// Where the user interrupts, errors carry as their hint what became of the
// settings.
type Tuner struct {
	Engine     orchestrate.Engine // nil without one
	EngineID   string             // empty if it is not known
	Machine    nsenter.Machine
	Way        nsenter.Way // by which Machine is reached
	Store      Store       // what this client keeps
	Sensors    []Place     // those that run
	Interfaces []string
	// Sockets asks for the buffers of sensors' sockets; nil where nobody can be
	// asked.
	Sockets  SocketBuffer
	Observer Observer

	image string // of the sensors; empty if there are none
}

// Open finds the sensors and the way to the machine, and changes nothing.
// Without an engine that answers only nsenter.Direct leads to one: this one.
func Open(ctx context.Context, engine orchestrate.Engine, o Options) (*Tuner, error) {
	t := &Tuner{Engine: engine, Store: o.Store, Interfaces: o.Interfaces, Observer: o.Observer}
	if o.Answer == nil {
		info, err := engine.Info(ctx)
		o.Answer = &Answer{info, err}
	}
	info, alone := o.Answer.Info, o.Answer.Err
	var err error
	if alone == nil {
		err = t.findSensors(ctx)
	} else if o.Way != nsenter.Direct || ctx.Err() != nil {
		err = orchestrate.WithHint(alone, "start the engine")
	}
	if err == nil {
		err = t.openMachine(ctx, o, info)
	}
	if err != nil {
		return nil, whenInterrupted(ctx, err, "nothing was changed")
	}
	if t.Way == nsenter.Direct {
		t.Sockets = LocalSockets
	}
	if alone != nil {
		t.Observer.note("this machine alone, without sensors: " + alone.Error())
	}
	return t, nil
}

// reach says how the machine is to be opened.
func (t *Tuner) reach(o Options, info orchestrate.EngineInfo) nsenter.Options {
	reach := nsenter.Options{Way: o.Way, Image: o.Image, Pull: o.Pull, Progress: o.Observer.progress}
	if reach.Image == "" {
		reach.Image = t.image
	}
	if reach.Image == "" {
		reach.Image = o.UpImage
	}
	if o.Program != nil && len(o.Interfaces) > 0 {
		reach.Program = func() (string, error) { return o.Program(info) }
	}
	return reach
}

// openMachine opens the way to the machine. A helper gets the program where
// offloads of interfaces are asked for; and where they are recorded, which only
// shows there.
func (t *Tuner) openMachine(ctx context.Context, o Options, info orchestrate.EngineInfo) (err error) {
	reach := t.reach(o, info)
	t.Machine, t.Way, err = nsenter.Open(ctx, t.Engine, reach)
	if err != nil || t.Way != nsenter.Helper || reach.Program != nil || o.Program == nil {
		return err
	}
	boot, err := BootID(ctx, t.Machine)
	if err != nil {
		return errors.Join(err, t.Close())
	}
	if r, err := t.records().Load(ctx, boot); err != nil || len(r.Interfaces) == 0 {
		return nil // a record that cannot be read is said when it is needed
	}
	if err := t.Close(); err != nil {
		return err
	}
	reach.Program = func() (string, error) { return o.Program(info) }
	t.Machine, t.Way, err = nsenter.Open(ctx, t.Engine, reach)
	return err
}

// findSensors asks the engine which sensors run.
func (t *Tuner) findSensors(ctx context.Context) error {
	list, err := t.Engine.Containers(ctx, orchestrate.ProjectName)
	if err != nil {
		return err
	}
	t.Sensors = Sensors(list)
	t.image = sensorImage(list)
	if h, ok := t.Engine.(orchestrate.HelperEngine); ok && t.EngineID == "" {
		if host, err := h.Host(ctx); err == nil {
			t.EngineID = host.ID
		}
	}
	return nil
}

// sensorImage is what a sensor is made of, also one that does not run.
func sensorImage(containers []orchestrate.Container) string {
	for _, c := range containers {
		if s, err := orchestrate.ServiceByName(c.Service); err == nil && s.IsSensor() {
			return c.Image
		}
	}
	return ""
}

// Close gives the machine back: the helper container goes.
func (t *Tuner) Close() error { return t.Machine.Close() }

// plan looks at the machine.
func (t *Tuner) plan(ctx context.Context) (Plan, error) {
	return NewPlan(ctx, t.Machine, t.Sensors, t.Interfaces)
}

// session begins one for a plan.
func (t *Tuner) session(ctx context.Context, records Records, p Plan) (*Session, error) {
	s, err := NewSession(ctx, t.Machine, records, p.Boot, t.EngineID, t.Interfaces)
	if err == nil && t.EngineID != "" { // the engine has told which sensors run
		s.Running(t.Sensors)
	}
	return s, err
}

// late returns the sensors that have to be restarted.
func (t *Tuner) late(ctx context.Context, r Record) ([]Late, error) {
	ask := t.Sockets
	if ask == nil {
		ask = func(Place, bool) (int, bool) { return 0, false }
	}
	return LateSensors(ctx, t.Machine, r, t.Sensors, ask)
}

// whenInterrupted adds to an error what became of the settings, if it is the
// user's interruption.
func whenInterrupted(ctx context.Context, err error, became string) error {
	if ctx.Err() == nil {
		return err
	}
	return orchestrate.WithHint(err, became)
}

// sleep waits, or until ctx is done, and then says why.
func sleep(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pause):
		return nil
	}
}
