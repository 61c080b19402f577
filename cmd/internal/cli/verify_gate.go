package cli

import (
	"fmt"
	"net/netip"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/sockets"
)

// ownSocket lets the governor see the receive queues of one sensor that is
// sent to directly: there is no other queue before them.
type ownSocket struct {
	watch *sockets.Watch
	buf   []sockets.Socket
}

var _ pace.Probe = (*ownSocket)(nil)

func (o *ownSocket) Taken() (uint64, error) { return o.watch.Taken() }

func (o *ownSocket) Sockets(buf []pace.Socket) ([]pace.Socket, error) {
	var err error
	o.buf, err = o.watch.Read(o.buf[:0])
	for _, s := range o.buf {
		buf = append(buf, pace.Socket{ID: s.ID, Name: "sensor's socket", Queued: s.Queued, Allocated: s.Allocated, Buffer: s.Buffer, Drops: s.Drops})
	}
	return buf, err
}

// governed returns a gate that never lets the sensor's queues overflow, and
// what closes it. Where nothing can be seen of them it says so and returns no
// gate: then the counts at the end tell whether the pace was too fast.
func (s *subject) governed(sensor orchestrate.Sensor, clock forward.Clock) (forward.Gate, func() error, error) {
	listen := netip.AddrPortFrom(netip.IPv4Unspecified(), sensor.Service.Port)
	watch, err := sockets.Open(sockets.OfProcess(sensor.Container.PID), listen, sockets.AsksForMuch)
	if err != nil {
		fmt.Fprintf(s.app.Err, "%s: sent without feedback: %v\n", s.name, err)
		return nil, func() error { return nil }, nil
	}
	governor, err := pace.NewGovernor(&ownSocket{watch: watch}, clock)
	if err != nil {
		watch.Close()
		return nil, nil, fmt.Errorf("watch the sensor's socket: %w", err)
	}
	s.row.Governed = true
	return governor, watch.Close, nil
}
