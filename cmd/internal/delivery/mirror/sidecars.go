package mirror

import (
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/sidecar"
	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/watch"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pace"
)

// feedSidecars hands the frames to a sidecar, and to another one when the sensor
// is replaced.
func (r *liveRun) feedSidecars() error {
	source := r.capture.Sources()[0]
	client, err := r.way.Client(r.capturing, r.engine, r.target.Sensor)
	if err != nil {
		return err
	}
	defer r.show()()
	for {
		over, err := r.feed(client, source)
		if over {
			return err // if there is one it is the capture's
		}
		r.say("The sidecar has ended: " + err.Error())
		next, watchErr := r.watchSensor(r.capturing, r.target.Sensor, atOnce(), func() {
			r.say("The sensor has gone; packets wait until it is back")
		})
		if watchErr != nil {
			return err
		}
		r.target.Sensor = next
		if client, err = r.way.Client(r.capturing, r.engine, next); err != nil {
			return err
		}
	}
}

// atOnce has the sensor looked at without waiting.
func atOnce() <-chan struct{} {
	trouble := make(chan struct{}, 1)
	trouble <- struct{}{}
	return trouble
}

// feed hands frames to one sidecar until its end, and reports whether that is the
// mirror's as well.
func (r *liveRun) feed(c *sidecar.Client, source forward.Source) (over bool, err error) {
	defer r.capture.Interrupt(false)
	defer c.Close()
	c.StopSource, c.Say = func() { r.capture.Interrupt(true) }, r.say
	c.Started = func() func() {
		m, _ := c.Newest()
		r.announce(m.Transmission)
		return func() {}
	}
	last, err := c.Run(r.sending, r.job(), source)
	r.reports, r.kernel, r.about = append(r.reports, last.Report), r.kernel.Add(last.Kernel), last.Transmission
	if last.Account != nil {
		r.accounts = append(r.accounts, *last.Account)
	}
	_, final := c.Newest()
	return err == nil || final && (last.Error == "" || last.Loss) || r.capturing.Err() != nil || r.sending.Err() != nil, err
}

// job describes the run to a sidecar.
func (r *liveRun) job() sidecar.Job {
	return sidecar.Job{Destination: r.target.Address, Nodes: r.target.Sensor.Nodes, Config: r.Config, CPU: r.CPU, Lossless: r.Lossless, Waiting: watch.Waiting{Run: r.Waiting.Run}, Pace: pace.MaxSpec()}
}
