package zeeklog

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"strings"
)

// Columns are the types of the logs' fields, by log and field, as Zeek's function
// record_fields names them: "time", "set[string]", "vector of string".
type Columns map[string]map[string]string

// ColumnsFile is what ColumnsScript writes, beside the logs.
const ColumnsFile = "zeekdemo-columns.txt"

//go:embed columns.zeek
var columnsScript string

// ColumnsScript is Zeek script text that lets a process write its Columns into
// ColumnsFile. It is for the end of an -e text: Zeek takes only one of those.
func ColumnsScript() string { return columnsScript }

// ParseColumns reads lines "LOG FIELD TYPE". Errors name the line.
func ParseColumns(r io.Reader) (Columns, error) {
	columns := Columns{}
	in := bufio.NewScanner(r)
	for number := 1; in.Scan(); number++ {
		words := strings.SplitN(strings.TrimSpace(in.Text()), " ", 3)
		if words[0] == "" {
			continue
		}
		if len(words) < 3 {
			return nil, fmt.Errorf("line %d: want a log, a field and its type", number)
		}
		if columns[words[0]] == nil {
			columns[words[0]] = map[string]string{}
		}
		columns[words[0]][words[1]] = words[2]
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read the types of the logs' fields: %w", err)
	}
	return columns, nil
}

//go:embed columns.txt
var knownColumns string

// KnownColumns are the times, intervals, sets and vectors in the logs of Zeek 9's
// own scripts, for processes that did not tell theirs.
func KnownColumns() Columns {
	columns, err := ParseColumns(strings.NewReader(knownColumns))
	if err != nil {
		return Columns{} // a test reads them
	}
	return columns
}

// shape is how the values of a field are compared.
type shape int

const (
	whole    shape = iota // as they are
	measured              // a time or an interval
	ordered               // a vector
	unsorted              // a set, or a list of which nothing is known
)

// shape of a field with that value; other is asked where c does not know it.
func (c Columns) shape(other Columns, log, field string, value any) shape {
	text, known := c[log][field]
	if !known {
		text = other[log][field]
	}
	switch {
	case text == "time", text == "interval", text == "" && field == "ts":
		return measured
	case strings.HasPrefix(text, "vector of "):
		return ordered
	}
	if _, list := value.([]any); list {
		return unsorted
	}
	return whole
}
