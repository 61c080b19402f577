// Package doctor looks at everything that can keep the stack from working, or
// packets from arriving, before it does. It changes nothing and never hangs.
//
// The nouns:
//
//   - A Prober asks the engine, this machine and the running stack, all at the
//     same time and each for a bounded time.
//   - [Facts] are its answers, as plain data: what is not known says why.
//   - A Line is one check's judgement of the facts: its state, the fact in
//     words, and the command that mends it. [Diagnose] makes all of them and
//     looks at nothing but the facts.
//   - A Bundle is a set of files with what a bug report needs, the facts among
//     them, out of which a [Redactor] has taken the secrets.
//
// Files of /proc, /sys and /etc tell of the machine that this program runs on.
// The engine's may be another one (a virtual machine, a remote host); then they
// are not looked at, and what cannot be told from afar is said to be unknown
// rather than guessed.
package doctor

import (
	"context"
	"encoding/json"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Engine is what a doctor asks a container engine beyond [orchestrate.Engine].
// Every method only reads.
type Engine interface {
	// Machine describes the engine's machine and settings.
	Machine(ctx context.Context) (Machine, error)
	// Image looks for an image on the engine's machine. It is no error if it is
	// not there.
	Image(ctx context.Context, ref string) (Image, error)
	// Registry asks the image's registry, from the engine's machine, for which
	// platforms it has the image, such as "linux/amd64".
	Registry(ctx context.Context, ref string) (platforms []string, err error)
	// Networks lists all networks of the engine.
	Networks(ctx context.Context) ([]Network, error)
	// Complete returns what a Compose file says once its variables are filled
	// in. It does not need the engine to answer.
	Complete(ctx context.Context, p orchestrate.Project) (Stack, error)
	// Documents returns what the engine says of itself and of a project's
	// objects, as JSON documents by file name. What it could get comes with the
	// error about what it could not.
	Documents(ctx context.Context, project string) (map[string]json.RawMessage, error)
}

// State is the judgement of one check.
type State string

// The states, from good to bad. What is Unknown could not be looked at.
const (
	OK      State = "ok"
	Unknown State = "unknown"
	Warning State = "warning"
	Problem State = "problem"
)

// Line is what a check found.
type Line struct {
	Check  string `json:"check"` // its name, e.g. "ports"
	State  State  `json:"state"`
	Fact   string `json:"fact"`             // one sentence, lower case
	Remedy string `json:"remedy,omitempty"` // the command that mends it
}

// Report is all that the checks found.
type Report struct {
	Verdict State  `json:"verdict"` // the worst of the lines: ok, warning or problem
	Lines   []Line `json:"checks"`
}

// Diagnose judges the facts. The order of the lines is that in which trouble is
// best mended: nothing works without the engine, and so on.
func Diagnose(f Facts) Report {
	r := Report{Verdict: OK, Lines: []Line{}}
	for _, check := range checks() {
		line := check.judge(f)
		line.Check = check.name
		r.Lines = append(r.Lines, line)
		switch {
		case line.State == Problem:
			r.Verdict = Problem
		case line.State == Warning && r.Verdict == OK:
			r.Verdict = Warning
		}
	}
	return r
}

// check turns facts into a line.
type check struct {
	name  string
	judge func(Facts) Line
}

func checks() []check {
	return []check{
		{"engine", judgeEngine},
		{"defects", judgeDefects},
		{"features", judgeFeatures},
		{"images", judgeImages},
		{"ports", judgePorts},
		{"memory", judgeMemory},
		{"disk", judgeDisk},
		{"cpus", judgeCPUs},
		{"clock", judgeClock},
		{"networks", judgeNetworks},
		{"proxy", judgeProxy},
		{"stack", judgeStack},
		{"direct", judgeDirect},
		{"tuning", judgeTuning},
		{"buffers", judgeBuffers},
		{"tcpdump", judgeFilter},
	}
}

func ok(fact string) Line { return Line{State: OK, Fact: fact} }

func warning(fact, remedy string) Line { return Line{State: Warning, Fact: fact, Remedy: remedy} }

func problem(fact, remedy string) Line { return Line{State: Problem, Fact: fact, Remedy: remedy} }

func unknown(why string) Line { return Line{State: Unknown, Fact: why} }
