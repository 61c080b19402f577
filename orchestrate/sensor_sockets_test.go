package orchestrate

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Two sockets on the port and one on another, as the kernel prints them.
const udpTable = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  100: 00000000:12B5 00000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 41 2 0000000000000000 7
  101: 00000000:12B5 00000000:0000 07 00000000:00000010 00:00000000 00000000     0        0 42 2 0000000000000000 2
  102: 00000000:17C1 00000000:0000 07 00000000:0000FFFF 00:00000000 00000000     0        0 43 2 0000000000000000 9
`

func TestSocketState(t *testing.T) {
	if got, want := socketState(udpTable, 4789), (SocketState{Listening: 2, Queued: 0x310, Drops: 9}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, table := range []string{"", udpTable[:150], "1 2 3\n", strings.ReplaceAll(udpTable, ":12B5", ":12B6"),
		strings.ReplaceAll(udpTable, "00000000:0000 07", "0100007F:0035 01"), // sockets with a peer
	} {
		if got := socketState(table, 4789); got.Listening != 0 {
			t.Errorf("%q: %+v", table, got)
		}
	}
}

// drained answers Exec with one state of the sockets after the other.
type drained struct {
	Engine
	OneShots
	tables []string
	ended  Ended
}

func (d *drained) Exec(_ context.Context, _ string, _ []string, stdout, _ io.Writer) (int, error) {
	if len(d.tables) == 0 {
		return 0, errors.New("the container is not running")
	}
	table := d.tables[0]
	if len(d.tables) > 1 {
		d.tables = d.tables[1:]
	}
	_, err := io.WriteString(stdout, table)
	return 0, err
}

func (d *drained) StopOneShot(context.Context, string, time.Duration) (Ended, error) {
	return d.ended, nil
}

func queue(size string) string {
	return "  100: 00000000:12B5 00000000:0000 07 00000000:" + size + " 00:00000000 00000000     0        0 41 2 0000000000000000 3\n"
}

// A sensor has read everything when its queue has stayed empty for a while, and
// not at the first look that finds it empty.
func TestDrain(t *testing.T) {
	empty := queue("00000000")
	e := &drained{tables: []string{queue("00000300"), empty, queue("00000100"), empty}}
	s := Sensor{Service: Service{Name: "zeek", Port: 4789}}
	state, err := Drain(t.Context(), e, s)
	if err != nil || state.Drops != 3 || state.Queued != 0 || len(e.tables) != 1 {
		t.Errorf("%+v, %v, %d tables left", state, err, len(e.tables))
	}
	e.tables = []string{queue("00000300"), "header\n"}
	if _, err := Drain(t.Context(), e, s); err == nil || !strings.Contains(err.Error(), "socket is gone") {
		t.Errorf("a sensor that went: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e.tables = []string{queue("00000300")}
	if _, err := Drain(ctx, e, s); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestAwaitSensor(t *testing.T) {
	address := netip.MustParseAddr("192.0.2.5")
	c := Container{ID: "1", Name: "verify-live", Addresses: map[string]netip.Addr{"net": address}}
	service := Service{Name: "zeek", Port: 4789}
	e := &drained{tables: []string{"header\n", "header\n", queue("00000000")}}
	s, err := AwaitSensor(t.Context(), e, e, service, c, time.Minute)
	if err != nil || s.Direct != netip.AddrPortFrom(address, 4789) {
		t.Errorf("%+v, %v", s, err)
	}
	e = &drained{ended: Ended{ExitCode: 1, Tail: []string{"fatal: port taken"}}}
	if _, err := AwaitSensor(t.Context(), e, e, service, c, time.Minute); err == nil || !strings.Contains(err.Error(), "start sensor verify-live: exit code 1: fatal: port taken") {
		t.Errorf("a sensor that ended: %v", err)
	}
	e = &drained{tables: []string{"header\n"}}
	if _, err := AwaitSensor(t.Context(), e, e, service, c, 10*time.Millisecond); err == nil || !strings.Contains(err.Error(), "no socket listens on UDP port 4789") {
		t.Errorf("a sensor that never listens: %v", err)
	}
}
