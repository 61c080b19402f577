package hosttune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/procfs"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// The values that are wanted, bytes and packets.
const (
	buffer  = 32 << 20
	backlog = 10000
)

// bootID is the file with the kernel's boot ID.
const bootID = "/proc/sys/kernel/random/boot_id"

// sysctl is a number of the whole machine.
type sysctl struct {
	name     string
	wanted   int
	hop, why string
}

// sysctls lists them. Every one is a limit, not a reservation: memory is used
// when packets wait.
func sysctls() []sysctl {
	return []sysctl{
		{"net.core.rmem_max", buffer, "sensor's socket", "Zeek asks for 32 MiB; the kernel grants at most this, without a word"},
		{"net.core.rmem_default", buffer, "docker-proxy's socket", "the receive buffer of docker-proxy, which asks for none"},
		{"net.core.wmem_max", buffer, "forwarder's socket", "what a sender may ask for at most"},
		{"net.core.wmem_default", buffer, "docker-proxy's socket", "the send buffer of docker-proxy, which asks for none"},
		{"net.core.netdev_max_backlog", backlog, "processors' queues", "packets from lo and veth that may wait per processor; more are dropped"},
	}
}

// sysctlPath is the file of a sysctl.
func sysctlPath(name string) string { return "/proc/sys/" + strings.ReplaceAll(name, ".", "/") }

// offloads are the features that are to be off on an interface that is captured
// from, where the driver lets us: their names in the kernel, and why. One that
// needs another one comes before it (netdev_fix_features in net/core/dev.c), for
// they are restored in the other direction.
func offloads() []struct{ name, why string } {
	const joins = ": joins received packets into ones that never were on the wire"
	const splits = ": sent packets are captured before they are split for the wire"
	return []struct{ name, why string }{
		{"rx-lro", "lro" + joins},
		{"rx-gro-hw", "gro" + joins},
		{"rx-gro", "gro" + joins},
		{"tx-tcp-mangleid-segmentation", "tso" + splits},
		{"tx-tcp-ecn-segmentation", "tso" + splits},
		{"tx-tcp-accecn-segmentation", "tso" + splits},
		{"tx-tcp6-segmentation", "tso" + splits},
		{"tx-tcp-segmentation", "tso" + splits},
		{"tx-generic-segmentation", "gso" + splits},
	}
}

// NewPlan looks at the machine, at the namespaces of the sensors that run, and
// at the machine's interfaces whose offloads are to be off, and says what there
// is to set. It changes nothing.
func NewPlan(ctx context.Context, m Machine, sensors []Place, interfaces []string) (Plan, error) {
	patterns := []string{bootID, cpuOnline, cpuIsolated, cpuNoTick, "/sys/class/net/lo/queues/rx-*/rps_cpus", "/sys/class/net/*/ifindex"}
	for _, s := range sysctls() {
		patterns = append(patterns, sysctlPath(s.name))
	}
	for _, name := range interfaces {
		patterns = append(patterns, nsenter.Feature(name, "*"))
	}
	files, err := m.Read(ctx, nsenter.Namespace{}, patterns...)
	if err != nil {
		return Plan{}, fmt.Errorf("look at the machine's settings: %w", err)
	}
	p := Plan{Boot: value(files[bootID])}
	if p.Boot == "" {
		return Plan{}, errors.New("look at the machine's settings: its kernel tells no boot ID")
	}
	if err := p.addSysctls(files); err != nil {
		return Plan{}, err
	}
	cpus, err := steerable(files)
	if err != nil {
		return Plan{}, fmt.Errorf("look at the machine's processors: %w", err)
	}
	host := Place{Name: Host}
	if count(cpus) < 2 {
		p.Notes = append(p.Notes, "one processor: there is nothing to spread packets over")
	} else {
		p.addSteering(files, host, "lo", cpus, "docker-proxy's socket", "spreads packets to 127.0.0.1 over the processors, by flow")
		for _, s := range sensors {
			if err := p.addSensor(ctx, m, s, cpus); err != nil {
				return Plan{}, err
			}
		}
	}
	for _, name := range interfaces {
		if err := p.addOffloads(files, name); err != nil {
			return Plan{}, err
		}
	}
	return p, nil
}

func (p *Plan) add(i Item) {
	i.Where = i.place.Name
	i.Needed = !i.kind.fulfils(i.Now, i.Wanted)
	p.Items = append(p.Items, i)
}

func (p *Plan) addSysctls(files map[string]string) error {
	for _, s := range sysctls() {
		content, ok := files[sysctlPath(s.name)]
		if !ok {
			return fmt.Errorf("read %s: it is not there: these are not the settings of the machine itself", s.name)
		}
		p.add(Item{Setting: s.name, Path: sysctlPath(s.name), Now: value(content), Wanted: strconv.Itoa(s.wanted),
			Why: s.why, Hop: s.hop, kind: number, place: Place{Name: Host}})
	}
	return nil
}

// addSteering adds the receive queues of one interface.
func (p *Plan) addSteering(files map[string]string, place Place, device string, cpus *big.Int, hop, why string) {
	queues := 0
	prefix := "/sys/class/net/" + device + "/queues/"
	for _, file := range slices.SortedFunc(maps.Keys(files), byNumber) {
		queue, ok := strings.CutPrefix(file, prefix)
		if !ok {
			continue
		}
		queues++
		p.add(Item{Setting: "rps_cpus of " + device + " " + path.Dir(queue), Path: file, Now: value(files[file]), Wanted: formatMask(cpus),
			Why: why, Hop: hop, kind: mask, place: place})
	}
	if queues == 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s of the %s has no rps_cpus: the kernel was built without receive packet steering", device, place.Name))
	}
}

// byNumber sorts rx-2 before rx-10.
func byNumber(a, b string) int {
	if len(a) != len(b) && strings.HasPrefix(a, "/sys/class/net/") {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// addSensor adds the interface on which a sensor gets its packets. A sensor
// that ended meanwhile is left out.
func (p *Plan) addSensor(ctx context.Context, m Machine, s Place, cpus *big.Int) error {
	files, err := m.Read(ctx, s.Namespace, "/proc/net/route", "/proc/net/if_inet6", "/sys/class/net/*/queues/rx-*/rps_cpus")
	if errors.Is(err, fs.ErrNotExist) {
		p.Notes = append(p.Notes, s.Name+" has just ended")
		return nil
	}
	if err != nil {
		return fmt.Errorf("look into the network namespace of %s: %w", s.Name, err)
	}
	device := deviceOf(files, s.Address)
	if device == "" {
		p.Notes = append(p.Notes, fmt.Sprintf("%s has no interface with the address %s", s.Name, s.Address))
		return nil
	}
	p.addSteering(files, s, device, cpus, "sensor's interface", "spreads the sensor's packets over the processors, by flow")
	return nil
}

// deviceOf finds the interface that has an address. Of IPv4 it is the one whose
// network holds it.
func deviceOf(files map[string]string, address netip.Addr) string {
	if address.Is4() {
		return procfs.OnLink(procfs.Routes(files["/proc/net/route"]), address)
	}
	for _, a := range procfs.Addresses6(files["/proc/net/if_inet6"]) {
		if a.Prefix.Addr() == address {
			return a.Device
		}
	}
	return ""
}

// addOffloads adds the features of one interface of the machine.
func (p *Plan) addOffloads(files map[string]string, device string) error {
	if _, ok := files["/sys/class/net/"+device+"/ifindex"]; !ok {
		return fmt.Errorf("look at interface %s: the engine's machine has none of that name, but %s", device, strings.Join(devices(files), ", "))
	}
	found := 0
	var fixed []string
	for _, o := range offloads() {
		content, ok := files[nsenter.Feature(device, o.name)]
		if !ok {
			continue
		}
		now := value(content)
		found++
		if now == nsenter.On+nsenter.Fixed {
			fixed = append(fixed, o.name)
		}
		if strings.HasSuffix(now, nsenter.Fixed) {
			continue
		}
		p.add(Item{Setting: o.name + " of " + device, Path: nsenter.Feature(device, o.name), Now: now, Wanted: nsenter.Off, kind: feature, place: Place{Name: Host},
			Hop: "capture", Why: o.why})
	}
	if found == 0 {
		return fmt.Errorf("look at interface %s: its offloads cannot be read", device)
	}
	if len(fixed) > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s: its driver keeps %s on", device, strings.Join(fixed, ", ")))
	}
	return nil
}

func devices(files map[string]string) (names []string) {
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if rest, ok := strings.CutPrefix(file, "/sys/class/net/"); ok && strings.HasSuffix(rest, "/ifindex") {
			names = append(names, path.Dir(rest))
		}
	}
	return names
}
