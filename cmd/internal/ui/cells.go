package ui

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// A cell is the place of one narrow character on a terminal. A wide character,
// as Chinese has them, takes two; an accent of its own and an escape sequence
// none. Everything here that fits text to a width counts cells.

// Width is how many cells a text takes.
func Width(text string) int { return ansi.StringWidth(text) }

// Cut keeps a text within a width; what was cut off is marked by an ellipsis.
func Cut(text string, width int) string { return ansi.Truncate(text, width, "…") }

// Pad fills a text with spaces up to a width; a wider one stays as it is.
func Pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-Width(text)))
}

// Wrap breaks a text between words into lines of at most width cells. A word
// that is longer is cut.
func Wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && Width(line)+1+Width(word) > width {
			lines, line = append(lines, line), ""
		}
		line = Cut(strings.TrimPrefix(line+" "+word, " "), width)
	}
	return append(lines, line)
}
