package hosttune

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Record is what was changed on one machine since it was started.
type Record struct {
	Boot       string   `json:"boot_id"`          // the kernel's; another boot has other values
	Engine     string   `json:"engine,omitempty"` // its ID, where it was known
	Interfaces []string `json:"interfaces,omitempty"`
	Entries    []Entry  `json:"entries"`
}

// Entry is one value that was changed, or was about to be.
type Entry struct {
	Setting   string    `json:"setting"`
	Where     string    `json:"where"`
	Path      string    `json:"path"`
	Kind      kind      `json:"kind"`
	Container string    `json:"container,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Before    string    `json:"before"`         // what is restored
	Set       []string  `json:"set"`            // what we have set; who finds another value finds somebody else's
	At        float64   `json:"uptime_seconds"` // of the machine, when it was set last
}

// is reports whether an entry is about an item.
func (e Entry) is(i Item) bool {
	return e.Path == i.Path && e.in(i.place)
}

// in reports whether an entry is about a place.
func (e Entry) in(p Place) bool { return e.Container == p.Container && e.Started.Equal(p.Started) }

// ours reports whether a value is one that we have set.
func (e Entry) ours(now string) bool {
	return slices.ContainsFunc(e.Set, func(set string) bool { return e.Kind.same(now, set) })
}

// Find returns the entry about an item.
func (r Record) find(i Item) (Entry, bool) {
	at := slices.IndexFunc(r.Entries, func(e Entry) bool { return e.is(i) })
	if at < 0 {
		return Entry{}, false
	}
	return r.Entries[at], true
}

// with returns the record that says that the items are about to be set. What
// was there before our first change stays what is restored, unless somebody
// else has set another value since.
func (r Record) with(items []Item, uptime float64) Record {
	r.Entries = slices.Clone(r.Entries)
	for _, i := range items {
		e := Entry{Setting: i.Setting, Where: i.Where, Path: i.Path, Kind: i.kind,
			Container: i.place.Container, Started: i.place.Started, Before: i.Now}
		if old, ok := r.find(i); ok && old.ours(i.Now) {
			e.Before, e.Set = old.Before, slices.Clone(old.Set)
		}
		if !e.ours(i.Wanted) {
			e.Set = append(e.Set, i.Wanted)
		}
		e.At = uptime
		r.Entries = slices.DeleteFunc(r.Entries, func(old Entry) bool { return old.is(i) })
		r.Entries = append(r.Entries, e)
	}
	return r
}

// Covers reports whether something in a place has been recorded.
func (r Record) Covers(p Place) bool {
	return slices.ContainsFunc(r.Entries, func(e Entry) bool { return e.in(p) })
}

// about reports whether two entries are about the same value.
func (e Entry) about(other Entry) bool {
	return e.Path == other.Path && e.Container == other.Container && e.Started.Equal(other.Started)
}

// merge returns one record of two that tell of the same boot, so that nothing of
// either is lost, in the order in which values were set.
func (r Record) merge(other Record) Record {
	if len(other.Entries) == 0 {
		return r
	}
	r.Entries = slices.Clone(r.Entries)
	for _, e := range other.Entries {
		if at := slices.IndexFunc(r.Entries, e.about); at >= 0 {
			r.Entries[at] = r.Entries[at].merge(e)
		} else {
			r.Entries = append(r.Entries, e)
		}
	}
	slices.SortStableFunc(r.Entries, func(a, b Entry) int { return cmp.Compare(a.At, b.At) })
	if r.Engine == "" {
		r.Engine = other.Engine
	}
	r.Interfaces = slices.Clone(r.Interfaces)
	for _, name := range other.Interfaces {
		if !slices.Contains(r.Interfaces, name) {
			r.Interfaces = append(r.Interfaces, name)
		}
	}
	return r
}

// merge makes one of two entries about the same value. Where the later one found
// what the earlier one had set, what was there before both is restored; else
// somebody else changed it in between, and that is.
func (e Entry) merge(other Entry) Entry {
	earlier, later := e, other
	if later.At < earlier.At {
		earlier, later = later, earlier
	}
	if !earlier.ours(later.Before) {
		return later
	}
	later.Before = earlier.Before
	for _, set := range earlier.Set {
		if !later.ours(set) {
			later.Set = append(slices.Clone(later.Set), set)
		}
	}
	return later
}

// parseRecord reads the record of a boot, and takes nothing from it that is not
// what zeekdemo sets, so that one that was tampered with does nothing else.
func parseRecord(data []byte, boot string) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{Boot: boot}, err
	}
	if r.Boot != boot {
		return Record{Boot: boot}, fmt.Errorf("it is of boot %s", r.Boot)
	}
	for _, e := range r.Entries {
		if err := e.check(); err != nil {
			return Record{Boot: boot}, err
		}
	}
	for _, name := range r.Interfaces {
		if !isInterface.MatchString(name) {
			return Record{Boot: boot}, fmt.Errorf("%q is no interface", name)
		}
	}
	return r, nil
}

// isBootID matches what may be part of a file's name.
var isBootID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// isInterface matches the name of a network interface that is no pattern, and
// isMask the files of such interfaces that spread packets.
var (
	isInterface = regexp.MustCompile(`^[^/*?\[\]\\\s]{1,15}$`)
	isMask      = regexp.MustCompile(`^/sys/class/net/([^/]+)/queues/rx-\d+/rps_cpus$`)
)

// check returns nil if an entry is about a value that zeekdemo sets, and tells
// values that this can have.
func (e Entry) check() error {
	if !e.isOurs() {
		return fmt.Errorf("%s is nothing that zeekdemo sets", e.Path)
	}
	for _, v := range append([]string{e.Before}, e.Set...) {
		if !e.Kind.takes(v) {
			return fmt.Errorf("%q is no value of %s", v, e.Path)
		}
	}
	return nil
}

func (e Entry) isOurs() bool {
	switch e.Kind {
	case number:
		return slices.ContainsFunc(sysctls(), func(s sysctl) bool { return sysctlPath(s.name) == e.Path })
	case mask:
		m := isMask.FindStringSubmatch(e.Path)
		return m != nil && m[1] != "." && m[1] != ".."
	case feature:
		device, name, ok := strings.Cut(strings.TrimPrefix(e.Path, nsenter.FeatureFolder), "/")
		return ok && isInterface.MatchString(device) && e.Path == nsenter.Feature(device, name) &&
			slices.ContainsFunc(offloads(), func(o struct{ name, why string }) bool { return o.name == name })
	}
	return false
}

// takes reports whether a value is one of the kind.
func (k kind) takes(v string) bool {
	switch k {
	case number:
		n, err := strconv.ParseInt(v, 10, 64)
		return err == nil && n >= 0
	case mask:
		_, err := parseMask(v)
		return err == nil
	}
	return v == nsenter.On || v == nsenter.Off
}
