package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/cmd/internal/units"
	"github.com/zeekdemo/zeekdemo/orchestrate/doctor"
)

// doctorWidth is how wide the lines are at most.
const doctorWidth = 80

// writeDoctor prints each line in columns: the state, the check, and the fact,
// with what mends it below.
func writeDoctor(w io.Writer, r doctor.Report) {
	for _, line := range r.Lines {
		state := string(line.State)
		if line.State == doctor.Unknown {
			state = "-"
		}
		head := fmt.Sprintf("%-9s%-10s", state, line.Check)
		writeWrapped(w, head, strings.Repeat(" ", len(head)), line.Fact)
		if line.Remedy != "" {
			writeWrapped(w, strings.Repeat(" ", len(head))+"-> ", strings.Repeat(" ", len(head)+3), line.Remedy)
		}
	}
}

// writeWrapped breaks a text between words; first begins its first line, next
// the others. A word that is longer than a line stays whole.
func writeWrapped(w io.Writer, first, next, text string) {
	line := first
	empty := true
	for _, word := range strings.Fields(text) {
		if !empty && len([]rune(line))+1+len([]rune(word)) > doctorWidth {
			fmt.Fprintln(w, strings.TrimRight(line, " "))
			line, empty = next, true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	fmt.Fprintln(w, strings.TrimRight(line, " "))
}

// bundleDocument is what `doctor --bundle --json` prints.
type bundleDocument struct {
	Bundle  string        `json:"bundle"`
	Bytes   int64         `json:"bytes"`
	Files   []bundleFile  `json:"files"`
	Missing []string      `json:"missing"`
	Report  doctor.Report `json:"report"`
}

type bundleFile struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
}

// bundleGroup is the part of a name by which the files are listed: a folder of
// the first level, or the file itself.
func bundleGroup(name string) string {
	if folder, _, found := strings.Cut(name, "/"); found {
		return folder + "/"
	}
	return name
}

// listBundle says what is in the bundle and what is not.
func listBundle(app *App, doc bundleDocument) {
	words := bundleWords()
	var rows [][]string
	counts, sizes := map[string]int{}, map[string]int{}
	var order []string
	for _, f := range doc.Files {
		group := bundleGroup(f.Name)
		if counts[group] == 0 {
			order = append(order, group)
		}
		counts[group]++
		sizes[group] += f.Bytes
	}
	for _, group := range order {
		files := ""
		if strings.HasSuffix(group, "/") {
			files = fmt.Sprintf("%d files, ", counts[group])
		}
		rows = append(rows, []string{group, files + units.Bytes(int64(sizes[group])), words[group]})
	}
	ui.Table(app.Out, rows)
	for _, m := range doc.Missing {
		fmt.Fprintln(app.Err, "missing: "+m)
	}
	fmt.Fprintf(app.Err, "\nWrote %s (%s). Secrets that were recognised are removed; look through it before you give it away.\n", doc.Bundle, units.Bytes(doc.Bytes))
}

// bundleWords say what the parts of a bundle are.
func bundleWords() map[string]string {
	return map[string]string{
		"README.txt":      "what is in it, and what is missing",
		"compose.json":    "the stack as `up` would make it now",
		"containers/":     "the stack as the engine describes it",
		"counters/":       "packets received and dropped",
		"doctor.json":     "what the doctor says",
		"doctor.txt":      "the same, to be read",
		"engine/":         "version, settings, networks, volumes",
		"environment.txt": "variables that concern the stack",
		"facts.json":      "what the doctor looked at",
		"logs/":           "last lines of the services, not your traffic",
		"machine/":        "kernel, memory, processors, network settings",
		"version.json":    "of this program",
	}
}
