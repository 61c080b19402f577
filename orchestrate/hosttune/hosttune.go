// Package hosttune raises the few settings of a kernel that decide whether
// packets survive the way to a sensor, and takes that back.
//
// The nouns:
//
//   - A Setting is one value that we want somewhere: a number that is to be at
//     least so large, a mask that is to have at least these processors, a
//     feature of a network interface that is to be off.
//   - A Place is the network namespace it belongs to: the machine's own or a
//     sensor's.
//   - A Plan is every setting with what it is now: what must change and what is
//     fine. A value that is higher already is never lowered.
//   - A Record is what we changed and what was there before. It is kept before
//     the first value is written, so that whatever happens in between can be
//     taken back. It lies on that machine, in nsenter.RecordFolder: there root
//     finds it as who comes by a helper does. Only root can have written it, and
//     nothing is taken from it that is not what we set. What earlier versions
//     recorded with their client ([Store]) is taken over.
//   - A Session applies plans. If one value cannot be set, all that the session
//     set is taken back.
//   - A Tuner is who does all that for one engine: it finds the sensors and the
//     way to the machine, and its Apply is one transaction: the machine, the
//     sensors that have to be restarted, their namespaces, the file that makes
//     it last. [AgainAfterUp], [StaysTuned] and [Glance] are for commands to
//     which tuning is a side issue.
//
// Taking back restores only what still is as we set it: a value that somebody
// else changed since is named and left alone. What is gone, such as the
// namespace of a container that was removed, needs nothing.
//
// The machine is reached by package nsenter, so that this package is the same
// for the machine itself and for a virtual machine behind a container engine.
package hosttune

import (
	"context"
	"fmt"
	"math/big"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Machine is what tuning needs of the engine's machine.
type Machine interface {
	// Read returns the files that match the patterns; what is missing is absent.
	Read(ctx context.Context, ns nsenter.Namespace, patterns ...string) (map[string]string, error)
	// Write writes one value.
	Write(ctx context.Context, ns nsenter.Namespace, path, value string) error
}

// Host is the name of the machine's own place.
const Host = "host"

// Place is a network namespace. The zero value, but for its Name, is the
// machine's own.
type Place struct {
	Name      string            // Host, or the sensor's service
	Container string            // its ID; empty for the host
	Started   time.Time         // since when it runs: a restarted one has another namespace
	Namespace nsenter.Namespace // how to get there
	Address   netip.Addr        // of its interface on the monitoring network
	Port      uint16            // on which the sensor listens
	Published netip.AddrPort    // where the engine publishes that; not valid if it does not
}

// kind says how values of a setting compare.
type kind string

const (
	number  kind = "number"  // is to be at least
	mask    kind = "mask"    // is to have at least these bits
	feature kind = "feature" // is to be on or off
)

// Item is a setting and what it is now.
type Item struct {
	Setting string `json:"setting"` // e.g. "net.core.rmem_max"
	Where   string `json:"where"`   // a Place's Name
	Path    string `json:"path"`
	Now     string `json:"now"`
	Wanted  string `json:"wanted"`
	Why     string `json:"why"`
	Hop     string `json:"hop"` // of a packet's way, which it helps
	// Needed is true if it must change.
	Needed bool `json:"needed"`

	kind  kind
	place Place
}

// Plan is what there is to set on a machine.
type Plan struct {
	Boot  string // the kernel's boot ID: values do not outlive it
	Items []Item
	Notes []string // what could not be planned, and why
}

// Changes returns the items that must change.
func (p Plan) Changes() []Item {
	var list []Item
	for _, i := range p.Items {
		if i.Needed {
			list = append(list, i)
		}
	}
	return list
}

// In returns the part of the plan that concerns the host, or that which
// concerns the sensors.
func (p Plan) In(host bool) Plan {
	part := Plan{Boot: p.Boot, Notes: p.Notes}
	for _, i := range p.Items {
		if (i.Where == Host) == host {
			part.Items = append(part.Items, i)
		}
	}
	return part
}

// same reports whether two values mean the same.
func (k kind) same(a, b string) bool {
	switch k {
	case number:
		x, errX := strconv.ParseInt(a, 10, 64)
		y, errY := strconv.ParseInt(b, 10, 64)
		return errX == nil && errY == nil && x == y
	case mask:
		x, errX := parseMask(a)
		y, errY := parseMask(b)
		return errX == nil && errY == nil && x.Cmp(y) == 0
	}
	return a == b
}

// fulfils reports whether a value does what the wanted one is for.
func (k kind) fulfils(now, wanted string) bool {
	switch k {
	case number:
		x, errX := strconv.ParseInt(now, 10, 64)
		y, errY := strconv.ParseInt(wanted, 10, 64)
		return errX == nil && errY == nil && x >= y
	case mask:
		x, errX := parseMask(now)
		y, errY := parseMask(wanted)
		return errX == nil && errY == nil && new(big.Int).And(x, y).Cmp(y) == 0
	}
	return now == wanted
}

// value reads one file's value: without the line break, and tabs as blanks.
func value(content string) string { return strings.Join(strings.Fields(content), " ") }

// String is the item in a sentence.
func (i Item) String() string { return fmt.Sprintf("%s of the %s", i.Setting, i.Where) }
