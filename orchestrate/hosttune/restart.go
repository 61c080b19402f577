package hosttune

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// listenLimit is how long a sensor that was restarted may take to listen, and
// listenPause the time between two looks.
const (
	listenLimit = time.Minute
	listenPause = 200 * time.Millisecond
)

// restart restarts the sensors and waits until each listens again. It returns
// those of which both succeeded. The tuner's sensors are those that run then.
func (t *Tuner) restart(ctx context.Context, late []Late) (done []string, err error) {
	restarter, ok := t.Engine.(orchestrate.HelperEngine)
	if !ok {
		return nil, errors.New("restart the sensors: this engine cannot")
	}
	var failed []error
	for _, l := range late {
		step := orchestrate.Event{ID: "Sensor " + l.Name, Text: "Restarting"}
		t.Observer.progress(step)
		if err := t.restartSensor(ctx, restarter, l); err != nil {
			failed = append(failed, fmt.Errorf("restart sensor %s: %w", l.Name, err))
			step.Text, step.State = "Failed", orchestrate.Failed
		} else {
			done = append(done, l.Name)
			step.Text, step.State = "Restarted", orchestrate.Done
		}
		t.Observer.progress(step)
	}
	return done, errors.Join(append(failed, t.findSensors(context.WithoutCancel(ctx)))...)
}

func (t *Tuner) restartSensor(ctx context.Context, e orchestrate.HelperEngine, l Late) error {
	service, err := orchestrate.ServiceByName(l.Name)
	if err != nil {
		return err
	}
	if err := e.RestartContainer(ctx, l.Sensor.Container); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, listenLimit, fmt.Errorf("it does not listen after %s", listenLimit))
	defer cancel()
	for !t.listens(ctx, service) {
		if err := sleep(ctx, listenPause); err != nil {
			return err
		}
	}
	return nil
}

// listens reports whether a sensor is there and each of its workers has opened its socket.
func (t *Tuner) listens(ctx context.Context, service orchestrate.Service) bool {
	sensor, err := orchestrate.FindSensor(ctx, t.Engine, service.Encap)
	if err != nil {
		return false
	}
	state, err := orchestrate.SensorSockets(ctx, t.Engine, sensor.Container, service.Port)
	return err == nil && state.All(sensor.Workers)
}
