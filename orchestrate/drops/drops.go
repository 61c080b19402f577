// Package drops keeps the books on packets: it reads every counter that grows
// when a packet dies on the way from the sender to Zeek's log, takes
// differences, and says whether anything was lost, where, why as far as that was
// seen, and what cures it.
//
// There are two books. The first follows the way hop by hop:
//
//   - A Hop is a station on the way where packets can die.
//   - A Value is one number of a hop, with its Role: did a packet come, die, or
//     is it only a sign.
//   - A State is a hop at one time, a Picture all of them. A [Reader] takes it,
//     from [Files] of the kernel, from a [Host] that can be asked more, and from
//     [Services] of the stack.
//   - A Report is the difference of two pictures, with a Verdict.
//
// What cannot be read is named as not known, with the reason; it is never zero.
// The kernel counts some deaths up to three times, and others of the whole
// machine. So [Compare] does arithmetic between neighbours: each packet dies
// once, where it died first, and what nothing proves to have been ours is shown
// but blamed on nobody.
//
// The second is of one run, kept by its sender, who knows what was sent:
//
//   - A Place is a network namespace with its counters: this host's, or the
//     sensor's.
//   - A Counter is one number there that counts lost packets.
//   - A Snapshot is all counters at one time.
//   - A Run is what its sender knows: what was sent, and what was taken.
//   - A Ledger is the difference of two snapshots beside a run.
//
// Only what was sent and neither taken nor still queued is lost there. Counters
// of a whole machine also count other people's packets, so they explain a loss
// but do not make one; the sensor's own sockets' do. What was taken is counted
// for the sensor's whole namespace, so what other sockets there may have taken
// is subtracted, or left in doubt.
package drops

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// Place is a network namespace.
type Place struct {
	Name string // for people: "host", "sensor"
	// Net is its directory of counters: /proc/PID/net of any process in it, or
	// a fixture's.
	Net string
	// Devices are those on the way; nil stands for all but lo.
	Devices []string
	// Softnet includes the processors' queues, which belong to the whole
	// machine: one place of a machine is enough.
	Softnet bool
}

// Socket is a receive queue on the way.
type Socket struct {
	Place string // where it is
	Name  string // e.g. "0.0.0.0:4789 (17)"
	Drops uint64
}

// Kind says what a counter is of, and so what it proves.
type Kind string

// The kinds of counters.
const (
	OfSocket   Kind = "socket"   // a socket on the way: what it counts was lost on the way
	OfProtocol Kind = "protocol" // IP or UDP of a namespace
	OfDevice   Kind = "device"
	OfSoftnet  Kind = "softnet" // the processors' queues, of the whole machine
	OfLoad     Kind = "load"    // a sign of load, which loses nothing itself
)

// Counter is one number that grows when a packet is lost.
type Counter struct {
	Place string `json:"place"`
	Kind  Kind   `json:"kind"`
	Name  string `json:"name"`  // e.g. "socket 0.0.0.0:4789", "device eth0 rx_dropped", "UdpRcvbufErrors"
	Count uint64 `json:"count"` // in a Ledger: grown by
}

// Snapshot is all counters at one time.
type Snapshot []Counter

// Take reads all counters. What a kernel does not have is left out.
func Take(places []Place, sockets []Socket) (Snapshot, error) {
	var s Snapshot
	for _, socket := range sockets {
		s = append(s, Counter{socket.Place, OfSocket, "socket " + socket.Name, socket.Drops})
	}
	for _, p := range places {
		for _, read := range []func(Place) (Snapshot, error){protocols, deviceLosses, processors} {
			counters, err := read(p)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("read the counters of the %s: %w", p.Name, err)
			}
			s = append(s, counters...)
		}
	}
	return s, nil
}

// losses are the counters of IP and UDP that count losses. RcvbufErrors,
// InCsumErrors and MemErrors are contained in InErrors.
func losses() []string {
	return []string{"IpInHdrErrors", "IpInAddrErrors", "IpInDiscards", reasmFails, noPorts, inErrors, "UdpRcvbufErrors", "UdpInCsumErrors", "UdpMemErrors",
		"Ip6InHdrErrors", "Ip6InNoRoutes", "Ip6InAddrErrors", "Ip6InTruncatedPkts", "Ip6InDiscards", reasmFails6,
		noPorts6, inErrors6, "Udp6RcvbufErrors", "Udp6InCsumErrors", "Udp6MemErrors"}
}

// protocols reads the counters of IP and UDP.
func protocols(p Place) (s Snapshot, err error) {
	data, err := os.ReadFile(filepath.Join(p.Net, "snmp"))
	if err != nil {
		return nil, err
	}
	n, err := procfs.SNMP(string(data), "Ip", "Udp")
	if err != nil {
		return nil, fmt.Errorf("%s/snmp: %w", p.Net, err)
	}
	if data, err = os.ReadFile(filepath.Join(p.Net, "snmp6")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	maps.Copy(n, procfs.SNMP6(string(data), "Ip6", "Udp6"))
	for _, name := range losses() {
		if count, ok := n[name]; ok {
			s = append(s, Counter{Place: p.Name, Kind: OfProtocol, Name: name, Count: count})
		}
	}
	return s, nil
}

// deviceLosses reads the counters of the devices on the way.
func deviceLosses(p Place) (s Snapshot, err error) {
	data, err := os.ReadFile(filepath.Join(p.Net, "dev"))
	if err != nil {
		return nil, err
	}
	devices := procfs.Devices(string(data))
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if p.Devices == nil && name == "lo" || p.Devices != nil && !slices.Contains(p.Devices, name) {
			continue
		}
		d := devices[name]
		for _, c := range []Counter{{Name: "rx_errors", Count: d.RxErrors}, {Name: rxDropped, Count: d.RxDropped},
			{Name: "tx_errors", Count: d.TxErrors}, {Name: txDropped, Count: d.TxDropped}} {
			s = append(s, Counter{Place: p.Name, Kind: OfDevice, Name: "device " + name + " " + c.Name, Count: c.Count})
		}
	}
	return s, nil
}

// processors reads the queues of the processors, all together.
func processors(p Place) (Snapshot, error) {
	if !p.Softnet {
		return nil, nil
	}
	data, err := os.ReadFile(filepath.Join(p.Net, "softnet_stat"))
	if err != nil {
		return nil, err
	}
	lines, err := procfs.Softnet(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s/softnet_stat: %w", p.Net, err)
	}
	var dropped, squeezed uint64
	for _, l := range lines {
		dropped, squeezed = dropped+l.Dropped, squeezed+l.Squeezed
	}
	return Snapshot{{p.Name, OfSoftnet, "softnet dropped", dropped}, {p.Name, OfLoad, squeeze, squeezed}}, nil
}

// squeeze counts how often a processor had to interrupt its work on received
// packets: a sign of load, not a loss.
const squeeze = "softnet time_squeeze"

// Run is what is known of a run when its books are closed.
type Run struct {
	Sent uint64 // datagrams
	// Taken is what applications took in the sensor's namespace, all sockets
	// together: the kernel counts no other way.
	Taken uint64
	// Others is how many of these other sockets than the run's can have taken at
	// most, such as answers to the sensor's own questions of names.
	Others uint64
	// Unbounded says that there is no such bound: anybody may have sent to them.
	Unbounded bool
	// Witness is how many the sensor itself says it has received; nil if it was
	// not asked or did not answer. It is believed within what the kernel counted.
	Witness     *uint64
	QueuedBytes int // kernel memory of what still waits at the sensor
	// Gone names the sockets that went in the middle of the run, whose load others
	// took over. InGone is how many datagrams were in their queues; where nobody
	// kept count it is 0.
	Gone   []string
	InGone uint64
	// Died are those of Gone whose process had taken datagrams for Zeek: with it went
	// what it had not logged yet.
	Died []string
}

// own returns within which bounds the run's own sockets have taken datagrams.
func (r Run) own() (least, most uint64) {
	if w := r.Witness; w != nil && *w <= r.Taken && *w >= r.least() {
		return *w, *w
	}
	return r.least(), r.Taken
}

// least is what the kernel's counts leave to the run's own sockets.
func (r Run) least() uint64 {
	if r.Unbounded {
		return 0
	}
	return r.Taken - min(r.Others, r.Taken)
}

// Ledger is the account of one run.
type Ledger struct {
	Sent  uint64 `json:"sent"`  // datagrams
	Taken uint64 `json:"taken"` // of these, by the sensor's application: never more than Sent
	// Others counts datagrams that were taken in the sensor's namespace beside
	// these: by other sockets, or sent by others.
	Others uint64 `json:"others,omitempty"`
	// Doubt is how many of Taken may be others' instead, so that at least
	// Taken-Doubt of the run's were taken.
	Doubt       uint64    `json:"doubt,omitempty"`
	QueuedBytes int       `json:"queued_bytes"`      // kernel memory of what still waits at the sensor
	Lost        uint64    `json:"lost"`              // datagrams; with Doubt at least so many
	Gone        []string  `json:"gone,omitempty"`    // sockets that went in the middle of the run
	InGone      uint64    `json:"in_gone,omitempty"` // of Lost: in the queues of these
	Died        []string  `json:"died,omitempty"`    // of Gone: what their processes had taken and not logged is lost
	Counters    []Counter `json:"counters"`          // that grew meanwhile; sockets on the way first
	Verdict     string    `json:"verdict"`           // one line
}

// Settle takes the difference of two snapshots and judges what became of a run.
func Settle(before, after Snapshot, r Run) Ledger {
	l := Ledger{Sent: r.Sent, QueuedBytes: r.QueuedBytes, Gone: r.Gone, Died: r.Died, Counters: []Counter{}}
	l.count(r)
	var own uint64
	for _, c := range after {
		i := slices.IndexFunc(before, func(b Counter) bool { return b.Place == c.Place && b.Name == c.Name })
		if i >= 0 {
			c.Count -= min(before[i].Count, c.Count)
		}
		if c.Count == 0 {
			continue
		}
		if c.Kind == OfSocket {
			own += c.Count
		}
		l.Counters = append(l.Counters, c)
	}
	if r.QueuedBytes == 0 {
		l.Lost = l.Sent - l.Taken
	}
	l.Lost = max(l.Lost, own)
	l.InGone = min(r.InGone, l.Lost-own)
	l.Verdict = l.verdict(own) + l.died()
	return l
}

// died says what nobody can count.
func (l Ledger) died() string {
	if len(l.Died) == 0 {
		return ""
	}
	return fmt.Sprintf("; %s ended meanwhile: what it had taken and not logged is lost, and how much that was is not known", strings.Join(l.Died, ", "))
}

// count divides what was taken between the run and others. If more was taken
// than was sent and than others can have asked for, somebody else sends to the
// run's sockets, and of which datagrams they took nothing is known.
func (l *Ledger) count(r Run) {
	least, most := r.own()
	l.Taken = min(most, r.Sent)
	l.Others = r.Taken - l.Taken
	if least > r.Sent {
		l.Doubt = l.Taken
		return
	}
	l.Doubt = l.Taken - min(least, l.Taken)
}

// verdict is the account in one line.
func (l Ledger) verdict(own uint64) string {
	if l.Lost == 0 {
		return l.unharmed()
	}
	where := l.places(func(c Counter) bool { return c.Kind == OfSocket })
	if l.Lost > own+l.InGone {
		where = append(where, l.places(func(c Counter) bool { return c.Kind != OfSocket && c.Kind != OfLoad })...)
	}
	var how []string
	if len(where) > 0 {
		how = append(how, "dropped at "+strings.Join(where, ", "))
	}
	if len(l.Gone) > 0 {
		how = append(how, l.gone())
	}
	if how == nil {
		how = []string{"no counter tells where"}
	}
	return fmt.Sprintf("%s%d of %d packets lost: %s", l.atLeast(), l.Lost, l.Sent, strings.Join(how, "; "))
}

// unharmed is the verdict where nothing is known to be lost.
func (l Ledger) unharmed() string {
	switch {
	case l.Doubt > 0 && l.Doubt == l.Taken:
		return fmt.Sprintf("the sensor's system took %d packets, %d were sent: others' %s among them, so how many of this run's were taken cannot be told",
			l.Taken+l.Others, l.Sent, map[bool]string{true: "are", false: "may be"}[l.Others > 0])
	case l.QueuedBytes > 0:
		return fmt.Sprintf("%s%d of %d packets were taken by the sensor; the others still wait in its queue", l.atLeast(), l.Taken-l.Doubt, l.Sent)
	case l.Doubt > 0:
		return fmt.Sprintf("at least %d of %d packets were taken by the sensor; up to %d of what its system took were others', such as answers to questions of its own",
			l.Taken-l.Doubt, l.Sent, l.Doubt+l.Others)
	case l.Others > 0:
		return fmt.Sprintf("all %d packets were taken by the sensor; its system took %d more that were others', such as answers to questions of its own", l.Sent, l.Others)
	}
	return fmt.Sprintf("all %d packets were taken by the sensor", l.Sent)
}

func (l Ledger) atLeast() string {
	if l.Doubt > 0 {
		return "at least "
	}
	return ""
}

// gone tells of the queues of sockets that went.
func (l Ledger) gone() string {
	sockets := strings.Join(l.Gone, ", ")
	if l.InGone == 0 {
		return "some may have been in the queue of " + sockets + ", which has gone"
	}
	return fmt.Sprintf("%d may have been in the queue of %s, which has gone", l.InGone, sockets)
}

// places names the counters that are meant, with their counts.
func (l Ledger) places(meant func(Counter) bool) (names []string) {
	for _, c := range l.Counters {
		if meant(c) {
			names = append(names, c.String())
		}
	}
	return names
}

// String says it in words, such as "socket 0.0.0.0:4789 of the sensor (17)".
func (c Counter) String() string { return fmt.Sprintf("%s of the %s (%d)", c.Name, c.Place, c.Count) }

// BridgePorts lists the devices of a bridge and the bridge itself; sys is where
// the sys file system is mounted. Without the bridge there are none.
func BridgePorts(sys, bridge string) []string {
	list := []string{bridge}
	entries, err := os.ReadDir(filepath.Join(sys, "class/net", bridge, "brif"))
	if err != nil {
		return []string{}
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}
