package zeeklog

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Expectation is one line of an expectations file:
//
//	[CAPTURE:] LOG [FIELD=VALUE ...] OP NUMBER        how many lines there are
//	[CAPTURE:] LOG [FIELD=VALUE ...] FIELD OP VALUE   what every one of them holds
//
// CAPTURE is a file name or a pattern of path.Match for it, without folders;
// without one the line is for every capture. LOG is a log's file name, such as
// notice.log. FIELD=VALUE chooses lines: those whose field has the value, or
// whose set or vector holds it; all of several must be true. OP is one of ==,
// !=, <, <=, >, >=, with blanks on both sides. Values with blanks are written
// in double quotes, as Go strings. Numbers are compared as numbers, all else as
// text, for which only == and != are defined; the value of an unset field is
// "". A # at the start of a line or after a blank starts a comment.
//
//	# what a detection must find
//	sqli.pcap: notice.log note=HTTP::SQL_Injection >= 1
//	*.pcapng:  dns.log query="example.com" proto=udp == 2
//	conn.log missed_bytes == 0
type Expectation struct {
	Line    int    // in the file, from 1
	Text    string // as written
	Capture string // pattern; empty for all
	Log     string // without suffix
	Where   []Selector
	Field   string // empty: lines are counted
	Op      string
	Value   string
}

// Selector is FIELD=VALUE.
type Selector struct{ Field, Value string }

// ParseExpectations reads a file of them. Errors name the line; all wrong lines
// are reported.
func ParseExpectations(r io.Reader) ([]Expectation, error) {
	var list []Expectation
	var errs []error
	in := bufio.NewScanner(r)
	for number := 1; in.Scan(); number++ {
		words, err := split(in.Text())
		if err == nil && len(words) > 0 {
			var e Expectation
			if e, err = parseExpectation(words); err == nil {
				e.Line, e.Text = number, strings.Trim(in.Text(), blanks)
				list = append(list, e)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", number, err))
		}
	}
	if err := in.Err(); err != nil {
		errs = append(errs, err)
	}
	return list, errors.Join(errs...)
}

// word is a word of a line, and where its first = outside of quotes is, or -1.
type word struct {
	text   string
	equals int
	quoted bool
}

// blanks divide words; nothing else does.
const blanks = " \t\r"

// split divides a line at blanks outside of quotes and drops its comment.
func split(text string) ([]word, error) {
	var words []word
	for {
		text = strings.TrimLeft(text, blanks)
		if text == "" || text[0] == '#' {
			return words, nil
		}
		w, rest, err := nextWord(text)
		if err != nil {
			return nil, err
		}
		words, text = append(words, w), rest
	}
}

func nextWord(text string) (w word, rest string, err error) {
	w.equals = -1
	for text != "" && !strings.ContainsRune(blanks, rune(text[0])) {
		if text[0] != '"' {
			if text[0] == '=' && w.equals < 0 {
				w.equals = len(w.text)
			}
			w.text, text = w.text+text[:1], text[1:]
			continue
		}
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return w, "", fmt.Errorf("%s: the quotes do not close", text)
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return w, "", fmt.Errorf("%s: %w", quoted, err)
		}
		w.text, w.quoted, text = w.text+value, true, text[len(quoted):]
	}
	return w, text, nil
}

var operators = []string{"==", "!=", "<", "<=", ">", ">="}

func isOperator(w word) bool { return !w.quoted && slices.Contains(operators, w.text) }

// logName is a log's file name as Zeek makes them.
var logName = regexp.MustCompile(`^[A-Za-z0-9_-]+\.log$`)

func parseExpectation(words []word) (e Expectation, err error) {
	if first := words[0].text; strings.HasSuffix(first, ":") {
		e.Capture, words = strings.TrimSuffix(first, ":"), words[1:]
		if _, err := path.Match(e.Capture, ""); err != nil || e.Capture == "" {
			return e, fmt.Errorf("capture %q: want a file name or a pattern such as *.pcap", e.Capture)
		}
	}
	if len(words) == 0 || !logName.MatchString(words[0].text) {
		return e, errors.New("want the name of a log, such as conn.log")
	}
	e.Log, words = strings.TrimSuffix(words[0].text, logSuffix), words[1:]
	for len(words) > 0 && words[0].equals > 0 && !isOperator(words[0]) {
		w := words[0]
		e.Where, words = append(e.Where, Selector{w.text[:w.equals], w.text[w.equals+1:]}), words[1:]
	}
	if len(words) > 0 && !isOperator(words[0]) {
		e.Field, words = words[0].text, words[1:]
	}
	if len(words) != 2 || !isOperator(words[0]) {
		return e, fmt.Errorf("want an operator (%s) and a value at the end", strings.Join(operators, " "))
	}
	e.Op, e.Value = words[0].text, words[1].text
	return e, e.check()
}

func (e Expectation) check() error {
	number := isNumber(e.Value)
	if e.Field == "" {
		if _, err := strconv.ParseUint(e.Value, 10, 63); err != nil {
			return fmt.Errorf("%q: want a number of lines", e.Value)
		}
	}
	if !number && e.Op != "==" && e.Op != "!=" {
		return fmt.Errorf("%s %q: only numbers have an order", e.Op, e.Value)
	}
	return nil
}

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// For reports whether the expectation is about the capture, a file name
// without folders.
func (e Expectation) For(capture string) bool {
	if e.Capture == "" || e.Capture == capture {
		return true
	}
	ok, err := path.Match(e.Capture, capture)
	return ok && err == nil
}

// Check returns nil if the logs are as expected, else an error that says what
// they hold instead. A log that is not there has no lines.
func (e Expectation) Check(logs Logs) error {
	n := 0
	for _, r := range logs[e.Log] {
		if !e.chooses(r) {
			continue
		}
		n++
		if e.Field != "" && !holds(r[e.Field], e.Op, e.Value) {
			return fmt.Errorf("%s: %s is %q in %s", e.Text, e.Field, r.text(e.Field), describe(r))
		}
	}
	if e.Field == "" && !compare(strconv.Itoa(n), e.Op, e.Value) {
		return fmt.Errorf("%s: there are %d", e.Text, n)
	}
	return nil
}

func describe(r Record) string {
	if key := endpoints(r); key != "" {
		return key
	}
	return "a line without a connection"
}

func (e Expectation) chooses(r Record) bool {
	return !slices.ContainsFunc(e.Where, func(s Selector) bool { return !holds(r[s.Field], "==", s.Value) })
}

// holds compares a field. A set or vector is equal to each of its elements,
// and unequal to what it does not hold.
func holds(v any, op, value string) bool {
	list, ok := v.([]any)
	if !ok {
		return compare(valueText(v), op, value)
	}
	some := func(op string) bool {
		return slices.ContainsFunc(list, func(v any) bool { return compare(valueText(v), op, value) })
	}
	if op == "!=" {
		return !some("==")
	}
	return some(op)
}

func compare(a, op, b string) bool {
	c := strings.Compare(a, b)
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	numbers := err1 == nil && err2 == nil
	if numbers {
		c = cmp.Compare(x, y)
	}
	switch op {
	case "==":
		return c == 0
	case "!=":
		return c != 0
	case "<":
		return numbers && c < 0
	case "<=":
		return numbers && c <= 0
	case ">":
		return numbers && c > 0
	case ">=":
		return numbers && c >= 0
	}
	return false
}
