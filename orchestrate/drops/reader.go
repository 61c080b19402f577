package drops

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
)

// Reader takes pictures of all hops. It belongs to one goroutine.
type Reader struct {
	files Files
	host  Host
	find  func(context.Context) (Path, error)

	path  Path
	links map[string]link // by sensor's name
	ports []string        // the bridge's
	index string          // of the bridge: another one of the same name has another
	owner map[uint64]owner
	ask   *asker
	begun time.Time
	first *Picture
	whole bool

	balance balance
}

// lookBack is how long before the first picture a connection may have begun
// whose line is counted.
const lookBack = 15 * time.Minute

// link is how a sensor hangs on the monitoring network.
type link struct {
	identity string // for which it was found: PID and start of its process
	inside   string // its own device; empty if not known
	outside  string // the device at the other end
	proven   bool   // inside itself says so: what its /sys shows is the sensor's
	whyNot   error  // why outside is not known
}

// owner is the process that holds a socket.
type owner struct {
	pid  int
	name string
	err  error
}

// NewReader prepares for reading. Find says who is where; it is called for the
// first picture, and again when a sensor's process has gone.
func NewReader(files Files, host Host, find func(context.Context) (Path, error)) *Reader {
	return &Reader{files: files, host: host, find: find, links: map[string]link{}, owner: map[uint64]owner{}, ask: newAsker(), begun: time.Now()}
}

// WholeLogs counts lines of logs since the first sensor started, not only recent
// ones. It costs the log store more.
func (r *Reader) WholeLogs() { r.whole = true }

// logsSince is from when on lines of logs count.
func (r *Reader) logsSince() time.Time {
	since := r.begun.Add(-lookBack)
	for _, s := range r.path.Sensors {
		if r.whole && !s.Started.IsZero() && s.Started.Before(since) {
			since = s.Started
		}
	}
	return since
}

// sight is one namespace as read for one picture.
type sight struct {
	snmp    procfs.Counters // nil if not known
	again   procfs.Counters // snmp after everything else
	devices map[string]procfs.Device
	later   map[string]procfs.Device // devices after everything else
	errs    map[string]error         // by file
	files   map[string]File
}

// The files of a namespace. The first are read twice, see [Value.Again].
const (
	fileSNMP      = "/proc/net/snmp"
	fileNetstat   = "/proc/net/netstat"
	fileSNMP6     = "/proc/net/snmp6"
	fileDevices   = "/proc/net/dev"
	fileUDP       = "/proc/net/udp"
	fileUDP6      = "/proc/net/udp6"
	fileSoftnet   = "/proc/net/softnet_stat"
	fileConntrack = "/proc/net/stat/nf_conntrack"
	fileRoute     = "/proc/net/route"
	fileARP       = "/proc/net/stat/arp_cache"
	fileBacklog   = "/proc/sys/net/core/netdev_max_backlog"
	fileTracked   = "/proc/sys/net/netfilter/nf_conntrack_count"
	fileTrackMax  = "/proc/sys/net/netfilter/nf_conntrack_max"
)

func twice() []string { return []string{fileSNMP, fileSNMP6, fileDevices} }

// Read takes a picture. What cannot be read is named in it; an error means that
// nothing could be: no engine, no stack.
func (r *Reader) Read(ctx context.Context) (Picture, error) {
	if err := r.refresh(ctx); err != nil {
		return Picture{}, err
	}
	answers := r.ask.begin(ctx, r.path, r.logsSince(), r.begun)
	p := r.kernel(ctx)
	r.services(&p, answers())
	slices.SortStableFunc(p.States, func(a, b State) int { return order[a.Hop] - order[b.Hop] })
	if r.first == nil {
		first := p
		r.first = &first
	}
	p.first = r.first
	return p, ctx.Err()
}

// refresh finds the sensors again where one has gone, or was never there.
func (r *Reader) refresh(ctx context.Context) error {
	gone := len(r.path.Sensors) == 0
	for _, s := range r.path.Sensors {
		if s.Missing != nil || s.Paused || s.PID != 0 && r.identity(ctx, s) != r.links[s.Name].identity {
			gone = true
		}
	}
	if !gone {
		return nil
	}
	path, err := r.find(ctx)
	if err != nil {
		if len(r.path.Sensors) == 0 {
			return err
		}
		for i := range r.path.Sensors {
			r.path.Sensors[i].Missing = err
		}
		return nil
	}
	r.path = path
	r.topology(ctx)
	return nil
}

// identity is that of a sensor's namespace: its process, told from a later one
// with the same number by its start. It is empty if the process has gone.
func (r *Reader) identity(ctx context.Context, s SensorAt) string {
	const file = "/proc/%d/stat"
	path := fmt.Sprintf(file, s.PID)
	text := r.files.Read(ctx, 0, path)[path].Text
	p, err := procfs.Stat(text)
	if err != nil || p.Ended() {
		return ""
	}
	return fmt.Sprintf("%s %d/%d", s.ID, s.PID, p.Started)
}

// topology finds the devices between the sensors and the monitoring bridge.
func (r *Reader) topology(ctx context.Context) {
	byIndex := map[string]string{}
	r.ports = nil
	if r.path.Bridge != "" {
		file := "/sys/class/net/" + r.path.Bridge + "/ifindex"
		r.index = strings.TrimSpace(r.files.Read(ctx, 0, file)[file].Text)
		for path := range r.files.Read(ctx, 0, "/sys/class/net/"+r.path.Bridge+"/brif/*/port_no") {
			name := strings.Split(path, "/")[6]
			r.ports = append(r.ports, name)
			file := "/sys/class/net/" + name + "/ifindex"
			byIndex[strings.TrimSpace(r.files.Read(ctx, 0, file)[file].Text)] = name
		}
	}
	slices.Sort(r.ports)
	for _, s := range r.path.Sensors {
		l := link{}
		if s.PID != 0 {
			l.identity = r.identity(ctx, s)
			routes := r.files.Read(ctx, s.PID, fileRoute)[fileRoute].Text
			l.inside = procfs.OnLink(procfs.Routes(routes), s.Address)
			l.outside, l.proven, l.whyNot = r.otherEnd(ctx, s.PID, l.inside, byIndex)
		}
		r.links[s.Name] = l
	}
}

// otherEnd finds the host's end of a sensor's device, proven by the device or
// as the only one that it can be.
func (r *Reader) otherEnd(ctx context.Context, pid int, device string, byIndex map[string]string) (name string, proven bool, err error) {
	if device == "" {
		return "", false, errors.New("the sensor has no device on the monitoring network")
	}
	file := "/sys/class/net/" + device + "/iflink"
	f := r.files.Read(ctx, pid, file)[file]
	name, ok := byIndex[strings.TrimSpace(f.Text)]
	switch {
	case ok:
		return name, true, nil
	case len(r.ports) == 1:
		return r.ports[0], false, nil
	case f.Err != nil:
		return "", false, f.Err
	}
	return "", false, errors.New("no port of the bridge leads to the sensor")
}

// kernel reads everything that the kernel counts.
func (r *Reader) kernel(ctx context.Context) Picture {
	p := Picture{At: time.Now()}
	host := r.look(ctx, 0)
	sensors := make([]*sight, len(r.path.Sensors))
	for i, s := range r.path.Sensors {
		if s.PID != 0 && s.Missing == nil {
			sensors[i] = r.look(ctx, s.PID)
		}
	}
	host.more(r.files.Read(ctx, 0, fileSoftnet, fileUDP, fileUDP6, fileConntrack, fileARP, fileBacklog, fileTracked, fileTrackMax, fileRPS("lo"), fileMTU(r.path.Bridge)))
	queues, queuesErr := r.queues()
	states := r.shared(ctx, host, queues, queuesErr)
	for i, s := range r.path.Sensors {
		states = append(states, r.proxy(ctx, s, host))
		if sensors[i] != nil {
			sensors[i].more(r.files.Read(ctx, s.PID, fileUDP, fileUDP6, fileConntrack, fileRPS(r.links[s.Name].inside), fileMTU(r.links[s.Name].inside)))
		}
		states = append(states, r.sensor(ctx, s, host, sensors[i], queues, queuesErr)...)
	}
	states = append(states, r.softnet(host, sensors))
	// What was read once is enclosed by what is read twice.
	host.lookAgain(r.files.Read(ctx, 0, twice()...))
	for i, s := range r.path.Sensors {
		if sensors[i] != nil {
			sensors[i].lookAgain(r.files.Read(ctx, s.PID, twice()...))
		}
	}
	for i := range states {
		r.enclose(&states[i], host, sensors)
	}
	p.States, p.Took = states, time.Since(p.At)
	return p
}

// look reads the counters of a namespace for the first time.
func (r *Reader) look(ctx context.Context, pid int) *sight {
	s := &sight{files: map[string]File{}, errs: map[string]error{}}
	s.more(r.files.Read(ctx, pid, append(twice(), fileNetstat)...))
	if pid != 0 && isNotExist(s.errs[fileSNMP]) { // every kernel has it
		for _, path := range []string{fileSNMP, fileDevices, fileUDP} {
			s.errs[path] = errors.New("the process in its network namespace has gone")
		}
		s.files[fileSNMP] = File{Err: s.errs[fileSNMP]}
	}
	s.snmp, s.devices = s.parse()
	return s
}

func (s *sight) more(files map[string]File) {
	for path, f := range files {
		s.files[path] = f
		if f.Err != nil {
			if s.errs[path] == nil {
				s.errs[path] = f.Err
			}
		}
	}
}

func (s *sight) parse() (procfs.Counters, map[string]procfs.Device) {
	var n procfs.Counters
	if f := s.files[fileSNMP]; f.Err == nil {
		var err error
		if n, err = protocolCounters(f.Text, s.files[fileNetstat].Text, s.files[fileSNMP6].Text); err != nil {
			s.errs[fileSNMP] = err
		}
	}
	var d map[string]procfs.Device
	if f := s.files[fileDevices]; f.Err == nil {
		d = procfs.Devices(f.Text)
	}
	return n, d
}

// protocolCounters are those of IP and UDP, from three files.
func protocolCounters(snmp, netstat, snmp6 string) (procfs.Counters, error) {
	n, err := procfs.SNMP(snmp, "Ip", "Udp")
	if err != nil {
		return nil, err
	}
	more, err := procfs.SNMP(netstat, "IpExt")
	if err != nil {
		return nil, err
	}
	maps.Copy(n, more)
	maps.Copy(n, procfs.SNMP6(snmp6, "Ip6", "Udp6"))
	return n, nil
}

func (s *sight) lookAgain(files map[string]File) {
	s.more(files)
	s.again, s.later = s.parse()
}

// enclose fills in the second readings.
func (r *Reader) enclose(st *State, host *sight, sensors []*sight) {
	in := host
	switch st.Hop {
	case HopDevice, HopIP, HopUDP, HopSocket:
		i := slices.IndexFunc(r.path.Sensors, func(s SensorAt) bool { return s.Name == st.Sensor })
		in = sensors[i]
	}
	for i := range st.Values {
		v := &st.Values[i]
		v.Again = v.N
		if in == nil {
			continue
		}
		if n, ok := in.again[v.Name]; ok {
			v.Again = max(v.N, n)
		}
		if d, ok := in.later[st.Facts.Device]; ok {
			if n, ok := deviceCounter(d, v.Name); ok {
				v.Again = max(v.N, n)
			}
		}
	}
}

// deviceCounter returns a device's number by the name that it has in a [Value].
func deviceCounter(d procfs.Device, name string) (uint64, bool) {
	switch name {
	case rxDropped:
		return d.RxDropped, true
	case txDropped:
		return d.TxDropped, true
	}
	return 0, false
}

// queues asks for the queueing disciplines.
func (r *Reader) queues() (map[string]Queueing, error) {
	if r.host.Queues == nil {
		return nil, errors.New("only known on the engine's own machine")
	}
	return r.host.Queues()
}

// listening returns the sockets that take what is sent to an address, from a
// namespace's tables.
func (s *sight) listening(at netip.AddrPort) (list []procfs.UDPSocket, err error) {
	if err := s.errs[fileUDP]; err != nil {
		return nil, err
	}
	for _, socket := range append(procfs.UDP(s.files[fileUDP].Text, at.Port()), procfs.UDP(s.files[fileUDP6].Text, at.Port())...) {
		bound := socket.Local.Addr().Unmap()
		if !socket.Listens() {
			continue
		}
		if at.Addr().IsUnspecified() || bound.IsUnspecified() || bound == at.Addr().Unmap() {
			list = append(list, socket)
		}
	}
	return list, nil
}

// ownerOf finds the process that holds a socket, once for each socket.
func (r *Reader) ownerOf(inode uint64, at netip.AddrPort) owner {
	if r.host.Owner == nil {
		return owner{err: errors.New("only known on the engine's own machine")}
	}
	o, ok := r.owner[inode]
	if !ok {
		o.pid, o.name, o.err = r.host.Owner(inode, at)
		r.owner[inode] = o
	}
	return o
}

// stopped reports whether a process does nothing because it was told to.
func (r *Reader) stopped(ctx context.Context, pid int) bool {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	p, err := procfs.Stat(r.files.Read(ctx, 0, path)[path].Text)
	return err == nil && p.Stopped()
}
