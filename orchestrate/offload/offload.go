// Package offload switches off what a network card merges, so that a capture on
// its interface sees packets as they are on the wire, and on again.
//
// The nouns:
//
//   - A feature is one switch of `ethtool -k`.
//   - A Hold is a process's claim that an interface's merging features are off. Several
//     processes may have one; the last to release it switches them on again.
//   - A record is a file that tells, for one interface, which features were on. It
//     is written before anything is switched. Who has a Hold has the file locked
//     (flock); the kernel unlocks it when the process dies, so a record that nobody
//     has locked is a dead process's, and whoever finds it puts things right.
//
// Records lie under /run: they are gone after a reboot, as what they record is.
package offload

import "errors"

// StateDir is where records are kept.
const StateDir = "/run/zeekdemo/offloads"

// record is what a file of StateDir holds.
type record struct {
	Interface string   `json:"interface"`
	Index     int      `json:"index"`
	Namespace uint64   `json:"namespace"` // inode of the network namespace
	On        []string `json:"on"`        // features that were on, and are to be again
	Detached  bool     `json:"detached"`  // kept off although no process holds it
}

// ErrHeld says that another process needs the features to stay off.
var ErrHeld = errors.New("another mirror holds them off")
