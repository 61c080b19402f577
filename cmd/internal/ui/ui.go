// Package ui is everything that a person or a program reads of zeekdemo.
//
// The rules, for every command:
//
//   - Standard output carries the result and nothing else; with --json that is
//     one JSON document. Everything else goes to standard error.
//   - Progress moves only on a terminal. Elsewhere it is plain lines, one per
//     change, without carriage returns or colours.
//   - An error is printed once: `zeekdemo: ` and what failed, lower case, the
//     verb and the object first and the cause last; then one line `hint: ` that
//     says what to do, where there is something to do.
//   - Colour only marks a state that the words say as well, only on a
//     terminal, and never with NO_COLOR set or TERM=dumb.
//   - Numbers carry their units, and large ones a separator.
//   - What does not fit a line of the terminal ends in an ellipsis there.
package ui

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Streams are a command's standard streams and what is known of them.
type Streams struct {
	In       io.Reader
	Out      io.Writer
	Err      io.Writer
	Terminal Terminal // of Err, where progress goes
}

// Terminal describes the terminal behind standard error.
type Terminal struct {
	Live  bool              // it is one, and cursor movement works
	Color bool              // colours are wanted
	Size  func() (w, h int) // columns and rows; may change
}

// Standard returns the process's own streams.
func Standard(getenv func(string) string) Streams {
	fd := int(os.Stderr.Fd())
	live := term.IsTerminal(fd) && getenv("TERM") != "dumb"
	return Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Terminal: Terminal{
		Live:  live,
		Color: live && getenv("NO_COLOR") == "",
		Size: func() (int, int) {
			if w, h, err := term.GetSize(fd); err == nil && w > 0 && h > 0 {
				return w, h
			}
			return 80, 24
		},
	}}
}

// Interactive reports whether a person sees standard output and can press keys.
func (s Streams) Interactive(getenv func(string) string) bool {
	out, ok := s.Out.(*os.File)
	in, ok2 := s.In.(*os.File)
	return ok && ok2 && getenv("TERM") != "dumb" && term.IsTerminal(int(out.Fd())) && term.IsTerminal(int(in.Fd()))
}

// JSON writes one document, indented for people.
func JSON(w io.Writer, document any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(document); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// Error prints an error and its hint, if any error in its chain has one.
func Error(w io.Writer, err error) {
	fmt.Fprintf(w, "zeekdemo: %v\n", err)
	var advice interface{ Hint() string }
	if errors.As(err, &advice) && advice.Hint() != "" {
		fmt.Fprintf(w, "hint: %s\n", advice.Hint())
	}
}

// Table writes rows in aligned columns, the first row as the heading. Cells
// are plain text; the last column is not padded.
func Table(w io.Writer, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], Width(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if i < len(row)-1 {
				cell = Pad(cell, widths[i]+2)
			}
			line.WriteString(cell)
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}
