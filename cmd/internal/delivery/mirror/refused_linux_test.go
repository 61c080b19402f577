package mirror

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/tcmirror"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// What is mirrored there already is not mirrored twice: the account that was opened
// for it is given up, and the mirror stays.
func TestARunningMirrorIsLeftAlone(t *testing.T) {
	l := newLab(t)
	e := newStack()
	e.containers[0] = l.container("first", sensorHere, process(t, l.sensor).Process.Pid)
	l.onHost(func() error { _, err := request().start(t.Context()); return err })
	m, _ := toSensor(t, e)
	m.interfaces, m.how, m.How = []string{"c0"}, Kernel, Kernel
	l.onHost(func() error {
		if doc, err := m.runKernel(t.Context()); !errors.Is(err, tcmirror.ErrRunning) || doc != nil || !strings.HasPrefix(err.Error(), "mirror in the kernel: ") {
			t.Errorf("%v: %+v", err, doc)
		}
		return nil
	})
	if list := l.mirrors(); len(list) != 1 || !list[0].Detached {
		t.Errorf("%+v", list)
	}
}

// An interface that is not there, whoever is to mirror it.
func TestAnInterfaceThatIsNotThere(t *testing.T) {
	l := newLab(t)
	for _, how := range []How{Auto, Kernel, Forwarder} {
		o, _ := toLab(t, how)
		o.Interfaces = []string{"nosuch0"}
		l.onHost(func() error {
			if doc, err := Run(t.Context(), nil, o); err == nil || doc != nil || !strings.Contains(err.Error(), "nosuch0") {
				t.Errorf("%s: %v: %+v", how, err, doc)
			}
			return nil
		})
	}
}

// A sidecar takes its frames one after the other, however many workers were asked for.
func TestASidecarTakesOneWorker(t *testing.T) {
	l := newLab(t)
	e, m, heard := bySidecar(t, testenv.NewReceiver(t).At)
	m.interfaces, m.Workers = []string{"c0"}, 4
	e.info = orchestrate.EngineInfo{}
	l.onHost(func() error {
		c, err := m.openCapture(context.Background())
		if err != nil {
			return err
		}
		defer c.Close()
		if len(c.Sources()) != 1 || !strings.Contains(heard.all(), "--workers is of no use") {
			t.Errorf("%d workers; said %q", len(c.Sources()), heard.all())
		}
		return nil
	})
	m.way.Discard(e)
}
