package cli

import (
	"fmt"
	"strings"

	"github.com/zeekdemo/zeekdemo/cmd/internal/ui"
	"github.com/zeekdemo/zeekdemo/orchestrate/hosttune"
)

// print reports what was or would be changed: the changes on standard output,
// what there is to know and to do about them on standard error.
func (t *tuner) print(doc tuneDocument) error {
	if t.o.json {
		return ui.JSON(t.app.Out, doc)
	}
	if len(doc.Changes) > 0 {
		ui.Table(t.app.Out, planRows(doc.Changes, doc.Applied))
	}
	t.printNotes(doc.Notes)
	switch changes := len(doc.Changes); {
	case changes == 0:
		fmt.Fprintf(t.app.Err, "Nothing to change: all %s are good enough.\n", settings(len(doc.Fine)))
	case doc.Applied:
		fmt.Fprintf(t.app.Err, "%s changed, %d good enough before. Take it back with: zeekdemo tune-host --revert\n", settings(changes), len(doc.Fine))
	default:
		fmt.Fprintf(t.app.Err, "%s to change, %d good enough. Nothing was changed (--dry-run).\n", settings(changes), len(doc.Fine))
	}
	if doc.Persisted != "" {
		fmt.Fprintf(t.app.Err, "The limits last over reboots, in %s of the engine's machine; what concerns single interfaces does not.\n", doc.Persisted)
	}
	t.printLate(doc.Late)
	return nil
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

func (t *tuner) printNotes(notes []string) {
	for _, note := range notes {
		fmt.Fprintln(t.app.Err, "note: "+note)
	}
}

// printLate names the sensors that have to be restarted.
func (t *tuner) printLate(late []hosttune.Late) {
	for _, l := range late {
		fmt.Fprintf(t.app.Err, "note: sensor %s has to be restarted: %s\n", l.Name, l.Reason)
	}
	if len(late) > 0 {
		fmt.Fprintln(t.app.Err, "`zeekdemo tune-host --restart-sensors` does that.")
	}
}

var stateWords = map[hosttune.State]string{
	hosttune.Fine:  "good enough",
	hosttune.Tuned: "tuned",
	hosttune.Drift: "drifted: was tuned, is not any more",
	hosttune.Wants: "not tuned",
}

func (t *tuner) printStatus(doc tuneStatus) error {
	if t.o.json {
		return ui.JSON(t.app.Out, doc)
	}
	rows := [][]string{{"SETTING", "WHERE", "NOW", "WANTED", "BEFORE", "STATE"}}
	for _, l := range doc.Lines {
		rows = append(rows, []string{l.Setting, l.Where, l.Now, l.Wanted, dash(l.Before), stateWords[l.State]})
	}
	ui.Table(t.app.Out, rows)
	t.printNotes(doc.Notes)
	summary := doc.Summary()
	if doc.Persisted {
		summary += "; the limits last over reboots (" + hosttune.PersistFile + ")"
	}
	fmt.Fprintf(t.app.Err, "The engine's machine: %s.\n", summary)
	switch {
	case !doc.Tuned:
		fmt.Fprintln(t.app.Err, "`zeekdemo tune-host` tunes it, `zeekdemo tune-host --dry-run` shows why.")
	case doc.Recorded:
		fmt.Fprintln(t.app.Err, "`zeekdemo tune-host --revert` takes it back.")
	}
	t.printOthers(doc.Others)
	t.printLate(doc.Late)
	return nil
}

func (t *tuner) printOthers(n int) {
	if n > 0 {
		fmt.Fprintf(t.app.Err, "note: another user has recorded %s of this machine, which are theirs to take back (root: sudo zeekdemo tune-host --revert)\n", settings(n))
	}
}

func (t *tuner) printRevert(doc revertDocument) error {
	if t.o.json {
		return ui.JSON(t.app.Out, doc)
	}
	if len(doc.Values) > 0 {
		rows := [][]string{{"SETTING", "WHERE", "NOW", "BEFORE", "RESULT"}}
		if doc.Applied {
			rows[0][2], rows[0][3] = "WAS", "NOW"
		}
		for _, u := range doc.Values {
			rows = append(rows, undoRow(u, doc.Applied))
		}
		ui.Table(t.app.Out, rows)
	}
	switch {
	case doc.PersistFile == "foreign":
		fmt.Fprintf(t.app.Err, "note: %s was changed by somebody else: left alone\n", hosttune.PersistFile)
	case doc.PersistFile != "" && doc.Applied:
		fmt.Fprintf(t.app.Err, "Removed %s.\n", hosttune.PersistFile)
	case doc.PersistFile != "":
		fmt.Fprintf(t.app.Err, "%s would be removed.\n", hosttune.PersistFile)
	}
	if len(doc.Values) == 0 && doc.PersistFile != "removed" {
		fmt.Fprintln(t.app.Err, "Nothing to take back: zeekdemo has changed nothing since this machine was started.")
	}
	t.printOthers(doc.Others)
	return nil
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
