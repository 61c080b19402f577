package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
)

// tuneReport prints what came out: results to out, what there is to know and to
// do about them to err. Its methods take a document with the error beside it,
// and return that; without a document they print nothing.
type tuneReport struct {
	out, err io.Writer
	json     bool
}

// tuned reports what was or would be changed.
func (r tuneReport) tuned(doc *hosttune.TuneDocument, err error) error {
	switch {
	case doc == nil:
		return err
	case r.json:
		return errors.Join(ui.JSON(r.out, doc), err)
	}
	if len(doc.Changes) > 0 {
		ui.Table(r.out, planRows(doc.Changes, doc.Applied))
	}
	r.notes(doc.Notes)
	switch changes := len(doc.Changes); {
	case changes == 0:
		fmt.Fprintf(r.err, "Nothing to change: all %s are good enough.\n", settings(len(doc.Fine)))
	case doc.Applied:
		fmt.Fprintf(r.err, "%s changed, %d good enough before. Take it back with: zeekdemo tune-host --revert\n", settings(changes), len(doc.Fine))
	default:
		fmt.Fprintf(r.err, "%s to change, %d good enough. Nothing was changed (--dry-run).\n", settings(changes), len(doc.Fine))
	}
	if doc.Persisted != "" {
		fmt.Fprintf(r.err, "The limits last over reboots, in %s of the engine's machine; what concerns single interfaces does not.\n", doc.Persisted)
	}
	r.late(doc.Late)
	return err
}

func settings(n int) string {
	if n == 1 {
		return "1 setting"
	}
	return fmt.Sprintf("%d settings", n)
}

func planRows(items []hosttune.Item, applied bool) [][]string {
	rows := [][]string{{"SETTING", "WHERE", "NOW", "WANTED", "WHY"}}
	if applied {
		rows[0][2], rows[0][3] = "BEFORE", "NOW"
	}
	for _, i := range items {
		rows = append(rows, []string{i.Setting, i.Where, i.Now, i.Wanted, i.Why})
	}
	return rows
}

func (r tuneReport) notes(notes []string) {
	for _, note := range notes {
		fmt.Fprintln(r.err, "note: "+note)
	}
}

// late names the sensors that have to be restarted.
func (r tuneReport) late(late []hosttune.Late) {
	for _, l := range late {
		fmt.Fprintf(r.err, "note: sensor %s has to be restarted: %s\n", l.Name, l.Reason)
	}
	if len(late) > 0 {
		fmt.Fprintln(r.err, "`zeekdemo tune-host --restart-sensors` does that.")
	}
}

var stateWords = map[hosttune.State]string{
	hosttune.Fine:  "good enough",
	hosttune.Tuned: "tuned",
	hosttune.Drift: "drifted: was tuned, is not any more",
	hosttune.Wants: "not tuned",
}

// status reports how each setting stands.
func (r tuneReport) status(doc *hosttune.StatusDocument, err error) error {
	switch {
	case doc == nil:
		return err
	case r.json:
		return errors.Join(ui.JSON(r.out, doc), err)
	}
	rows := [][]string{{"SETTING", "WHERE", "NOW", "WANTED", "BEFORE", "STATE"}}
	for _, l := range doc.Lines {
		rows = append(rows, []string{l.Setting, l.Where, l.Now, l.Wanted, dash(l.Before), stateWords[l.State]})
	}
	ui.Table(r.out, rows)
	r.notes(doc.Notes)
	summary := doc.Summary()
	if doc.Persisted {
		summary += "; the limits last over reboots (" + hosttune.PersistFile + ")"
	}
	fmt.Fprintf(r.err, "The engine's machine: %s.\n", summary)
	switch {
	case !doc.Tuned:
		fmt.Fprintln(r.err, "`zeekdemo tune-host` tunes it, `zeekdemo tune-host --dry-run` shows why.")
	case doc.Recorded:
		fmt.Fprintln(r.err, "`zeekdemo tune-host --revert` takes it back.")
	}
	r.late(doc.Late)
	return err
}

// reverted reports what was or would be taken back.
func (r tuneReport) reverted(doc *hosttune.RevertDocument, err error) error {
	switch {
	case doc == nil:
		return err
	case r.json:
		return errors.Join(ui.JSON(r.out, doc), err)
	}
	if len(doc.Values) > 0 {
		rows := [][]string{{"SETTING", "WHERE", "NOW", "BEFORE", "RESULT"}}
		if doc.Applied {
			rows[0][2], rows[0][3] = "WAS", "NOW"
		}
		for _, u := range doc.Values {
			rows = append(rows, undoRow(u, doc.Applied))
		}
		ui.Table(r.out, rows)
	}
	switch {
	case doc.PersistFile == "foreign":
		fmt.Fprintf(r.err, "note: %s was changed by somebody else: left alone\n", hosttune.PersistFile)
	case doc.PersistFile != "" && doc.Applied:
		fmt.Fprintf(r.err, "Removed %s.\n", hosttune.PersistFile)
	case doc.PersistFile != "":
		fmt.Fprintf(r.err, "%s would be removed.\n", hosttune.PersistFile)
	}
	if len(doc.Values) == 0 && doc.PersistFile != "removed" {
		fmt.Fprintln(r.err, "Nothing to take back: zeekdemo has changed nothing since this machine was started.")
	}
	return err
}

// printTuning says in a line of `status` how the machine stands.
func printTuning(to io.Writer, doc *hosttune.GlanceDocument) {
	if doc == nil {
		return
	}
	advice := ""
	if !doc.Seen {
		advice = " (zeekdemo tune-host --status)"
	} else if !doc.Tuned {
		advice = " (zeekdemo tune-host)"
	}
	fmt.Fprintf(to, "\nThe kernel's limits on the packets' way: %s%s\n", doc.Summary, advice)
}

// undoRow shows one value; what is left alone keeps its present one.
func undoRow(u hosttune.Undo, applied bool) []string {
	row := []string{u.Setting, u.Where, dash(u.Now), u.Before, ""}
	switch u.Fate {
	case hosttune.Restore:
		row[4] = "restored"
	case hosttune.Already:
		row[4] = "is as it was before"
	case hosttune.Foreign:
		row[4] = "left alone: somebody else changed it since"
		if applied {
			row[3] = u.Now
		}
	case hosttune.Gone:
		row[4] = "gone, and the value with it"
		if applied {
			row[3] = "-"
		}
	}
	if !applied {
		row[4] = strings.Replace(row[4], "restored", "would be restored", 1)
	}
	return row
}
