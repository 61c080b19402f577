package orchestrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Cluster says how many Zeek processes make a sensor, and where they run. The zero
// value is one process, which is no cluster.
type Cluster struct {
	// Workers share a sensor's port, by the encapsulation that it takes ("vxlan",
	// "geneve"): those not named have one. [AutoWorkers] is resolved by [Cluster.Fit].
	Workers map[string]int
	Loggers int // of each cluster; 0 for one
	Proxies int // of each cluster; 0 for one
	Pin     bool
	CPUs    []int // of the workers, in turn, once Fit has chosen them
}

// AutoWorkers is the number of workers that follows from the engine's machine.
const AutoWorkers = -1

// Bounds of a cluster: of what is asked for, and of what auto chooses.
const (
	mostWorkers, mostOthers = 64, 16
	mostAuto                = 8
	// restCPUs are for a sender, the logger and the rest of the stack.
	restCPUs = 2
)

// What the processes of a cluster take: measured of a real Zeek after mix.pcap, in
// MiB. The first is what connections may take beyond that, however many workers
// share them; the limit of a sensor that is none, 2 GiB, has the same.
const (
	connectionMemory, workerMemory, otherMemory = 1928, 200, 120
)

// ParseWorkers reads the value of `up --workers`: a number or auto, which is that of
// the VXLAN sensor, or vxlan=N and geneve=N, with commas between.
func ParseWorkers(text string) (map[string]int, error) {
	workers := map[string]int{}
	for part := range strings.SplitSeq(text, ",") {
		encap, number, named := strings.Cut(part, "=")
		if !named {
			encap, number = "vxlan", part
		}
		if _, err := SensorFor(encap); err != nil {
			return nil, err
		}
		if _, twice := workers[encap]; twice {
			return nil, fmt.Errorf("workers %q: %s is named twice", text, encap)
		}
		n, err := strconv.Atoi(number)
		switch {
		case number == "auto":
			n = AutoWorkers
		case err != nil || n < 1 || n > mostWorkers:
			return nil, fmt.Errorf("workers %q: want 1 to %d, or auto", part, mostWorkers)
		}
		workers[encap] = n
	}
	return workers, nil
}

// Of returns how many workers the sensor has that takes an encapsulation.
func (c Cluster) Of(encap string) int { return max(1, c.Workers[encap]) }

// Validate refuses numbers of nodes that make no cluster.
func (c Cluster) Validate() error {
	for name, n := range map[string]int{"loggers": c.Loggers, "proxies": c.Proxies} {
		if n < 0 || n > mostOthers {
			return fmt.Errorf("%d %s: want 1 to %d", n, name, mostOthers)
		}
	}
	return nil
}

// Fit resolves what follows from the engine's machine: how many workers auto is, and
// on which processors workers are pinned. Those begin with the first: a sender takes
// the last where none is better.
func (c Cluster) Fit(ctx context.Context, e Engine) (Cluster, error) {
	auto := slices.Contains(slices.Collect(maps.Values(c.Workers)), AutoWorkers)
	if !auto && !c.Pin {
		return c, nil
	}
	sized, ok := e.(Sized)
	if !ok {
		return c, errors.New("ask how many processors the engine's machine has: it does not tell")
	}
	machine, err := sized.Capacity(ctx)
	if err != nil {
		return c, err
	}
	return c.fit(machine)
}

func (c Cluster) fit(machine Capacity) (Cluster, error) {
	c.Workers = maps.Clone(c.Workers)
	autos, all := 0, 0
	for _, n := range c.Workers {
		if n == AutoWorkers {
			autos++
		}
	}
	for encap, n := range c.Workers {
		if n == AutoWorkers {
			c.Workers[encap] = max(1, min(mostAuto, (machine.CPUs-restCPUs)/autos))
		}
		all = max(all, c.Workers[encap])
	}
	if !c.Pin {
		return c, nil
	}
	if all >= machine.CPUs {
		return c, WithHint(fmt.Errorf("pin %d workers: the engine's machine has %d processors, and a sender wants one for itself", all, machine.CPUs),
			"take fewer --workers, or leave them where the kernel puts them")
	}
	c.CPUs = c.CPUs[:0]
	for cpu := range all {
		c.CPUs = append(c.CPUs, cpu)
	}
	return c, nil
}

// environment are the variables of the Compose file that make the sensors so; none
// for what is their default.
func (c Cluster) environment() map[string]string {
	env := map[string]string{}
	for encap, prefix := range map[string]string{"vxlan": "ZEEKDEMO_", "geneve": "ZEEKDEMO_GENEVE_"} {
		if n := c.Of(encap); n > 1 {
			env[prefix+"WORKERS"] = strconv.Itoa(n)
			env[prefix+"MEMORY"] = strconv.Itoa(connectionMemory+workerMemory*n+otherMemory*(1+max(1, c.Loggers)+max(1, c.Proxies))) + "m"
		}
	}
	if len(env) == 0 {
		return nil
	}
	if c.Loggers > 1 {
		env["ZEEKDEMO_LOGGERS"] = strconv.Itoa(c.Loggers)
	}
	if c.Proxies > 1 {
		env["ZEEKDEMO_PROXIES"] = strconv.Itoa(c.Proxies)
	}
	if len(c.CPUs) > 0 {
		env["ZEEKDEMO_PIN_WORKERS"] = strings.Trim(strings.ReplaceAll(fmt.Sprint(c.CPUs), " ", ","), "[]")
	}
	return env
}

// PacketMetricsPorts are the ports inside a sensor's container at which the processes
// tell their numbers that take packets: of a cluster the workers, after its manager,
// loggers and proxies (zeek-cluster-layout-generator counts upwards in that order).
func PacketMetricsPorts(c Container) (ports []int) {
	workers := workersOf(c)
	if workers == 1 {
		return []int{MetricsPort}
	}
	for i := range workers {
		ports = append(ports, MetricsPort+1+numberIn(c, "SENSOR_LOGGERS")+numberIn(c, "SENSOR_PROXIES")+i)
	}
	return ports
}

// Nodes are the processes of a sensor that take packets.
type Nodes struct {
	Ports []int             `json:"ports"`           // at which they tell their numbers, inside the container
	Names map[uint64]string `json:"names,omitempty"` // of a cluster's workers, by the inode of their socket
}

// nodeFiles lists what the processes of a cluster have open, each after its name, as
// process 1 of a sensor knows them (assets/stack/zeek/sensor.sh).
const nodeFiles = `for f in /tmp/nodes/worker-*.pid; do echo "node $(basename "$f" .pid)"; ls -l "/proc/$(cat "$f")/fd"; done`

// FindNodes asks a sensor's container who its workers are. Where it does not tell,
// they have no names.
func FindNodes(ctx context.Context, e Engine, c Container) Nodes {
	nodes := Nodes{Ports: PacketMetricsPorts(c)}
	if workersOf(c) == 1 {
		return nodes
	}
	var out strings.Builder
	if _, err := e.Exec(ctx, c.ID, []string{"sh", "-c", nodeFiles}, &out, io.Discard); err == nil {
		nodes.Names = parseNodeFiles(out.String())
	}
	return nodes
}

// parseNodeFiles finds the sockets in what nodeFiles prints.
func parseNodeFiles(text string) map[uint64]string {
	names, node := map[uint64]string{}, ""
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "node "); ok {
			node = name
			continue
		}
		if _, link, ok := strings.Cut(line, "-> socket:["); ok {
			number, _, _ := strings.Cut(link, "]")
			if inode, err := strconv.ParseUint(number, 10, 64); err == nil {
				names[inode] = node
			}
		}
	}
	return names
}

// workersOf reads from a sensor's container how many workers share its port.
func workersOf(c Container) int { return numberIn(c, "SENSOR_WORKERS") }

// numberIn reads a variable of a container; what is no number is 1.
func numberIn(c Container, name string) int {
	n, _ := strconv.Atoi(variable(c.Env, name, ""))
	return max(1, n)
}
