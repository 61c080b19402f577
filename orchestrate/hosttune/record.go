package hosttune

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/statefile"
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

// along adds another record's entries about what this one has none of.
func (r Record) along(other Record) Record {
	r.Entries = slices.Clone(r.Entries)
	for _, e := range other.Entries {
		if !slices.ContainsFunc(r.Entries, func(own Entry) bool {
			return own.Path == e.Path && own.Container == e.Container && own.Started.Equal(e.Started)
		}) {
			r.Entries = append(r.Entries, e)
		}
	}
	return r
}

// Store keeps records in a folder, one file for each boot of each machine.
type Store struct {
	Dir string
	// Others are folders with records of other users, which are read only.
	Others []string
}

// SystemFolder is where root's records are, for everybody to read.
const SystemFolder = "/var/lib/zeekdemo"

// UserStore returns the store of this process's user: as XDG_STATE_HOME says,
// else root's for the whole machine, and others' in their home folder.
func UserStore(getenv func(string) string, euid int) (Store, error) {
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return Store{Dir: filepath.Join(dir, "zeekdemo"), Others: []string{SystemFolder}}, nil
	}
	if euid == 0 {
		return Store{Dir: SystemFolder}, nil
	}
	home := getenv("HOME")
	if home == "" {
		return Store{}, errors.New("find a folder for the record of what is changed: neither HOME nor XDG_STATE_HOME is set")
	}
	return Store{Dir: filepath.Join(home, ".local", "state", "zeekdemo"), Others: []string{SystemFolder}}, nil
}

// File is where the record of a boot is kept.
func (s Store) File(boot string) string { return recordFile(s.Dir, boot) }

func recordFile(dir, boot string) string { return filepath.Join(dir, "tuning-"+boot+".json") }

// Load returns the record of a boot; an empty one if there is none.
func (s Store) Load(boot string) (Record, error) { return loadRecord(s.Dir, boot) }

// LoadOthers returns what other users recorded of a boot, as far as it may be
// read.
func (s Store) LoadOthers(boot string) []Record {
	var list []Record
	for _, dir := range s.Others {
		if dir == s.Dir {
			continue
		}
		if r, err := loadRecord(dir, boot); err == nil && len(r.Entries) > 0 {
			list = append(list, r)
		}
	}
	return list
}

// All returns the records of every machine, this user's and others', as far as
// they may be read.
func (s Store) All() (list []Record) {
	for _, dir := range append([]string{s.Dir}, s.Others...) {
		files, err := filepath.Glob(recordFile(dir, "*"))
		if err != nil {
			continue // the folder's name would be a pattern
		}
		for _, file := range files {
			boot := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "tuning-"), ".json")
			if r, err := loadRecord(dir, boot); err == nil {
				list = append(list, r)
			}
		}
	}
	return list
}

// tellsOfInterfaces reports whether some record has offloads of interfaces.
func (s Store) tellsOfInterfaces() bool {
	return slices.ContainsFunc(s.All(), func(r Record) bool { return len(r.Interfaces) > 0 })
}

func loadRecord(dir, boot string) (Record, error) {
	none := Record{Boot: boot}
	if !isBootID.MatchString(boot) {
		return none, fmt.Errorf("read the record of boot %q: %w", boot, fs.ErrInvalid)
	}
	file := recordFile(dir, boot)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, fmt.Errorf("read the record of what was changed: %w", err)
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return none, fmt.Errorf("read the record of what was changed, %s: %w", file, err)
	}
	for _, e := range r.Entries {
		if !isOurs.MatchString(e.Path) || strings.Contains(e.Path, "..") {
			return none, fmt.Errorf("read the record of what was changed, %s: %s is nothing that zeekdemo sets", file, e.Path)
		}
	}
	if r.Boot != boot {
		return none, fmt.Errorf("read the record of what was changed, %s: it is of boot %s", file, r.Boot)
	}
	return r, nil
}

// isBootID matches what may be part of a file's name.
var isBootID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// isOurs matches the paths that are ever written, so that a record that was
// tampered with cannot name others.
var isOurs = regexp.MustCompile(`^(/proc/sys/net/core/[a-z_]+|/sys/class/net/[^/]+/queues/rx-\d+/rps_cpus|/ethtool/[^/]+/[a-z0-9-]+)$`)

// Save keeps a record, durably: when it returns, neither a crash nor a power
// cut loses it or leaves half of it. One without entries is removed. Records of
// earlier boots of the same engine's machine are removed as well: what they
// tell of is gone.
func (s Store) Save(r Record) error {
	if err := s.save(r); err != nil {
		return fmt.Errorf("record what is changed: %w", err)
	}
	return nil
}

func (s Store) save(r Record) error {
	if !isBootID.MatchString(r.Boot) {
		return fmt.Errorf("boot %q: %w", r.Boot, fs.ErrInvalid)
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	file := s.File(r.Boot)
	if len(r.Entries) == 0 {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return statefile.SyncFolder(s.Dir)
	}
	s.removeEarlier(r)
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return statefile.Write(file, append(data, '\n'), 0o644)
}

// removeEarlier is only housekeeping: what cannot be removed stays.
func (s Store) removeEarlier(r Record) {
	files, err := filepath.Glob(recordFile(s.Dir, "*"))
	if err != nil || r.Engine == "" {
		return
	}
	for _, file := range files {
		boot := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "tuning-"), ".json")
		if old, err := s.Load(boot); err == nil && boot != r.Boot && old.Engine == r.Engine {
			_ = os.Remove(file)
		}
	}
}

// Lock keeps other processes that use the store from changing anything until
// unlock is called, or the process ends. It does not wait.
func (s Store) Lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("record what is changed: %w", err)
	}
	unlock, err = statefile.Lock(filepath.Join(s.Dir, "tuning.lock"))
	if errors.Is(err, statefile.ErrLocked) {
		err = errors.New("another zeekdemo is tuning right now")
	}
	if err != nil {
		return nil, fmt.Errorf("lock the record of what is changed: %w", err)
	}
	return unlock, nil
}
