package mirror

import (
	"context"
	"os"
	"strconv"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Times of the watch over the sensor.
const (
	lookInterval = time.Second     // between two looks at its process
	askInterval  = 5 * time.Second // between two questions to the engine, if all seems well
	startLimit   = 2 * time.Minute // for one that was started until it listens
)

// identity tells one life of a sensor from the next.
type identity struct {
	id      string
	pid     int
	started time.Time
	direct  string
	public  string
}

func identityOf(s orchestrate.Sensor) identity {
	return identity{s.Container.ID, s.Container.PID, s.Container.StartedAt, s.Direct.String(), s.Published.String()}
}

// left says of a sensor that it is being left.
func left(t way.Target) error {
	return &pace.GoneError{Socket: t.Address.String() + " of the sensor"}
}

// watchSensor waits until the sensor is another one than was, or elsewhere, and
// runs. An element of trouble makes it look at once. Gone is called once if it
// is not there for a while. One that takes something else than what is mirrored is
// not the one that is waited for; that is said once as well.
func (m *mirror) watchSensor(ctx context.Context, was orchestrate.Sensor, trouble <-chan struct{}, gone func()) (orchestrate.Sensor, error) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	asked, said, warned := time.Now(), false, false
	var appeared time.Time
	for {
		suspicion := false
		select {
		case <-ctx.Done():
			return was, ctx.Err()
		case <-trouble:
			suspicion = true
		case <-tick.C:
			suspicion = !livesHere(was.Container)
		}
		if !suspicion && time.Since(asked) < askInterval {
			continue
		}
		asked = time.Now()
		now, err := m.findSuitable(ctx, &warned)
		if err == nil && identityOf(now) != identityOf(was) && m.way.Address(now).IsValid() {
			if appeared.IsZero() {
				appeared = asked
			}
			if m.listens(ctx, now) || asked.Sub(appeared) > startLimit {
				return now, nil
			}
		}
		if err != nil && !said && ctx.Err() == nil {
			said = true
			gone()
		}
	}
}

// findSuitable finds the sensor, which must take what is mirrored; that it does not
// is said unless it was warned of before.
func (m *mirror) findSuitable(ctx context.Context, warned *bool) (orchestrate.Sensor, error) {
	s, err := orchestrate.FindSensor(ctx, m.engine, m.Config.Kind.String())
	if err != nil {
		return s, err
	}
	err = way.CheckMode(m.Config, s)
	if err != nil && !*warned {
		*warned = true
		m.warn(err)
	}
	return s, err
}

// listens reports whether every worker of the sensor has opened its socket, as far as
// it can be seen: its container runs before that, and what came meanwhile would be lost.
func (m *mirror) listens(ctx context.Context, s orchestrate.Sensor) bool {
	state, err := orchestrate.SensorSockets(ctx, m.engine, s.Container, s.Service.Port)
	return err != nil || state.All(s.Workers)
}

// healthy asks the engine, whose check of a sensor's health is that it listens.
func (m *mirror) healthy(ctx context.Context, t way.Target) bool {
	now, err := orchestrate.FindSensor(ctx, m.engine, m.Config.Kind.String())
	return err == nil && identityOf(now) == identityOf(t.Sensor) && (now.Container.Health == "" || now.Container.Health == "healthy")
}

// livesHere reports whether a container's process can be seen on this machine and
// lives.
func livesHere(c orchestrate.Container) bool {
	if c.PID <= 0 || !c.RunsHere() {
		return false
	}
	_, err := os.Stat("/proc/" + strconv.Itoa(c.PID))
	return err == nil
}
