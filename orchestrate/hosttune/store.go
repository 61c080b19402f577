package hosttune

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate/internal/statefile"
	"github.com/zeekdemo/zeekdemo/orchestrate/nsenter"
)

// Records keeps what is changed on a machine: one file for each of its boots.
type Records interface {
	// Load returns the record of a boot; an empty one if there is none.
	Load(ctx context.Context, boot string) (Record, error)
	// Save keeps a record, durably: when it returns, neither a crash nor a power
	// cut loses it or leaves half of it. One without entries is removed. Records
	// of earlier boots are removed as well: what they tell of is gone.
	Save(ctx context.Context, r Record) error
	// File is where the record of a boot is kept.
	File(boot string) string
}

var (
	_ Records = (*machineRecords)(nil)
	_ Records = Store{}
)

// recordName is the name of a boot's record in its folder, for "*" of any's.
func recordName(boot string) string { return "tuning-" + boot + ".json" }

// bootOfName is the boot whose record has the name.
func bootOfName(file string) string {
	return strings.TrimSuffix(strings.TrimPrefix(path.Base(filepath.ToSlash(file)), "tuning-"), ".json")
}

func checkBoot(boot string) error {
	if !isBootID.MatchString(boot) {
		return fmt.Errorf("boot %q: %w", boot, fs.ErrInvalid)
	}
	return nil
}

// machineRecords are on the machine that is tuned, where everybody who tunes it
// finds them: root there, and by a helper container whoever may use its engine,
// from whichever machine. Nobody but root can write them.
//
// What lies with a client (see [Store]) is taken over when something is saved.
type machineRecords struct {
	machine Machine
	client  Store
	stale   []string // files of earlier boots
}

// File is on the machine.
func (*machineRecords) File(boot string) string {
	return path.Join(nsenter.RecordFolder, recordName(boot))
}

func (m *machineRecords) Load(ctx context.Context, boot string) (Record, error) {
	none := Record{Boot: boot}
	if err := checkBoot(boot); err != nil {
		return none, fmt.Errorf("read the record of what was changed: %w", err)
	}
	files, err := m.machine.Read(ctx, nsenter.Namespace{}, m.File("*"))
	if err != nil {
		return none, fmt.Errorf("read the record of what was changed: %w", err)
	}
	m.stale = nil
	for file := range files {
		if file != m.File(boot) {
			m.stale = append(m.stale, file)
		}
	}
	r := none
	if text, ok := files[m.File(boot)]; ok {
		if r, err = parseRecord([]byte(text), boot); err != nil {
			return none, fmt.Errorf("read the record of what was changed, %s of the engine's machine: %w", m.File(boot), err)
		}
	}
	with, err := m.client.Load(ctx, boot)
	if err != nil {
		return none, err
	}
	return r.merge(with), nil
}

func (m *machineRecords) Save(ctx context.Context, r Record) error {
	text, err := r.text()
	if err == nil {
		err = m.machine.Write(ctx, nsenter.Namespace{}, m.File(r.Boot), text)
	}
	if err == nil {
		err = m.client.forget(r.Boot)
	}
	if err != nil {
		return fmt.Errorf("record what is changed: %w", err)
	}
	for _, file := range m.stale {
		_ = m.machine.Write(ctx, nsenter.Namespace{}, file, "") // only housekeeping: what cannot be removed stays
	}
	m.stale = nil
	return nil
}

// text is what is kept; empty without entries.
func (r Record) text() (string, error) {
	if err := checkBoot(r.Boot); err != nil || len(r.Entries) == 0 {
		return "", err
	}
	data, err := json.Marshal(r)
	return string(data) + "\n", err
}

// lock keeps other processes that tune the machine from changing anything until
// unlock is called, or the process ends, and says where the record is kept. It
// does not wait. Where the machine's folder cannot be reached, it is with this
// client, and that is told.
func (t *Tuner) lock(ctx context.Context) (r Records, unlock func(), err error) {
	unlock, err = t.Machine.Lock(ctx, path.Join(nsenter.RecordFolder, lockName))
	switch {
	case err == nil:
		return t.records(), unlock, nil
	case errors.Is(err, nsenter.ErrLocked):
		return nil, nil, errAnotherTunes
	case !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported):
		return nil, nil, fmt.Errorf("record what is changed: %w", err)
	}
	why := err
	unlock, err = t.Store.lock()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("record what is changed: %w", why), err)
	}
	t.Observer.note(fmt.Sprintf("what is changed is recorded in %s, where others who use this engine do not see it: %v", t.Store.Dir, why))
	return t.Store, unlock, nil
}

// records are those on the machine.
func (t *Tuner) records() *machineRecords {
	return &machineRecords{machine: t.Machine, client: t.Store}
}

const lockName = "tuning.lock"

var errAnotherTunes = errors.New("lock the record of what is changed: another zeekdemo is tuning right now")

// Store keeps records in a folder of a client, which only its user sees. It is
// where earlier versions kept them, and where they are kept if the machine's own
// folder cannot be reached. It may lack a folder; then there is no record.
type Store struct {
	Dir string
	// Others are folders with records of other users, which are read only.
	Others []string
}

// SystemFolder is where root's records were, for everybody to read.
const SystemFolder = "/var/lib/zeekdemo"

// UserStore returns the store of this process's user: as XDG_STATE_HOME says,
// else root's for the whole machine, and others' in their home folder.
func UserStore(getenv func(string) string, euid int) Store {
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return Store{Dir: filepath.Join(dir, "zeekdemo"), Others: []string{SystemFolder}}
	}
	if euid == 0 {
		return Store{Dir: SystemFolder}
	}
	if home := getenv("HOME"); home != "" {
		return Store{Dir: filepath.Join(home, ".local", "state", "zeekdemo"), Others: []string{SystemFolder}}
	}
	return Store{Others: []string{SystemFolder}}
}

// File is in the store's folder.
func (s Store) File(boot string) string { return filepath.Join(s.Dir, recordName(boot)) }

// Load returns the record of a boot, others' included as far as they may be read.
func (s Store) Load(_ context.Context, boot string) (Record, error) {
	r, err := s.load(boot)
	if err != nil {
		return r, fmt.Errorf("read the record of what was changed, %w", err)
	}
	for _, dir := range s.Others {
		if other, err := (Store{Dir: dir}).load(boot); err == nil && dir != s.Dir {
			r = r.merge(other)
		}
	}
	return r, nil
}

// load reads a file that this user or root has written; what others could have
// written is as if it were not there.
func (s Store) load(boot string) (Record, error) {
	none := Record{Boot: boot}
	if err := checkBoot(boot); err != nil {
		return none, err
	}
	file := s.File(boot)
	if !s.trusts(file) {
		return none, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return none, err
	}
	r, err := parseRecord(data, boot)
	if err != nil {
		return none, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// Save keeps a record in the store's folder. Records of earlier boots of the same
// engine's machine are removed; a client's folder may have other machines' too.
func (s Store) Save(_ context.Context, r Record) error {
	text, err := r.text()
	if err == nil && text == "" {
		err = s.forget(r.Boot)
	} else if err == nil {
		err = s.save(r, text)
	}
	if err != nil {
		return fmt.Errorf("record what is changed: %w", err)
	}
	return nil
}

func (s Store) save(r Record, text string) error {
	if err := s.make(); err != nil {
		return err
	}
	s.removeEarlier(r)
	return statefile.Write(s.File(r.Boot), []byte(text), 0o644)
}

func (s Store) make() error {
	if s.Dir == "" {
		return errors.New("neither HOME nor XDG_STATE_HOME is set")
	}
	return os.MkdirAll(s.Dir, 0o755)
}

// forget removes the record of a boot, if it is one that [Store.Load] has read.
func (s Store) forget(boot string) error {
	if !s.trusts(s.File(boot)) {
		return nil
	}
	if err := os.Remove(s.File(boot)); err != nil {
		return err
	}
	return statefile.SyncFolder(s.Dir)
}

// trusts reports whether a file is there, and nobody but this user or root can
// have written it.
func (s Store) trusts(file string) bool {
	return s.Dir != "" && statefile.Trust(s.Dir) == nil && statefile.Trust(file) == nil
}

// removeEarlier is only housekeeping: what cannot be removed stays.
func (s Store) removeEarlier(r Record) {
	files, err := filepath.Glob(s.File("*"))
	if err != nil || r.Engine == "" {
		return
	}
	for _, file := range files {
		boot := bootOfName(file)
		if old, err := s.load(boot); err == nil && boot != r.Boot && old.Engine == r.Engine {
			_ = os.Remove(file)
		}
	}
}

// lock keeps other processes that use the store from changing anything until
// unlock is called, or the process ends. It does not wait.
func (s Store) lock() (unlock func(), err error) {
	if err := s.make(); err != nil {
		return nil, fmt.Errorf("record what is changed: %w", err)
	}
	unlock, err = statefile.Lock(filepath.Join(s.Dir, lockName))
	if errors.Is(err, statefile.ErrLocked) {
		return nil, errAnotherTunes
	}
	if err != nil {
		return nil, fmt.Errorf("lock the record of what is changed: %w", err)
	}
	return unlock, nil
}
