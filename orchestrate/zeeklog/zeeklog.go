// Package zeeklog reads the JSON logs that one Zeek process wrote and tells
// whether two processes saw the same traffic.
//
// The nouns:
//
//   - A Record is one line, a JSON object with flat field names such as
//     "id.orig_h".
//   - Logs are all lines of one process, by the name of their log.
//   - Columns are the types of the logs' fields, as the process told them.
//   - A Difference is what one process wrote and the other did not, by Rules.
//   - An Attribution divides the differences into faults of the path and what
//     Zeek itself does otherwise in every process.
//   - A Path is what the two ends of a replay counted; with the differences it
//     makes Findings, which name the hop where a fault lies.
//   - An Expectation is one line of a file in which people state what a
//     capture must bring into the logs.
//
// What is compared, and what is not, was decided on the logs of a real Zeek 9
// that had the same captures once live and once from a file; package tests hold
// the decisions against them.
package zeeklog

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Record is one line of a log. Numbers are [json.Number], so that nothing is
// rounded; sets and vectors are []any; unset fields are absent.
type Record map[string]any

// Logs are the lines of one Zeek process by log name without suffix, e.g.
// "conn".
type Logs map[string][]Record

// maxLine bounds one line in bytes: a field may hold a long URI or a whole
// certificate chain, but a line beyond this is no log.
const maxLine = 16 << 20

// Parse reads one log, a JSON object per line. Errors name the line.
func Parse(r io.Reader) ([]Record, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxLine)
	var records []Record
	number := 0
	for in.Scan() {
		number++
		line := bytes.TrimSpace(in.Bytes())
		if len(line) == 0 {
			continue
		}
		record, err := parseLine(line)
		if err != nil {
			return records, fmt.Errorf("line %d: %w", number, err)
		}
		records = append(records, record)
	}
	if err := in.Err(); err != nil {
		return records, fmt.Errorf("line %d: %w", number+1, err)
	}
	return records, nil
}

func parseLine(line []byte) (Record, error) {
	if line[0] == '#' {
		return nil, errors.New("this is Zeek's tab-separated form, not JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	var record Record
	if err := decoder.Decode(&record); err != nil {
		return nil, err
	}
	if record == nil {
		return nil, errors.New("not a JSON object")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("more than one JSON object")
	}
	return record, nil
}

// logSuffix is how Zeek's log files end.
const logSuffix = ".log"

// ReadFS reads every log in the top folder of fsys.
func ReadFS(fsys fs.FS) (Logs, error) {
	names, err := fs.Glob(fsys, "*"+logSuffix)
	if err != nil {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	logs := Logs{}
	for _, name := range names {
		if err := logs.open(fsys, name); err != nil {
			return nil, err
		}
	}
	return logs, nil
}

func (l Logs) open(fsys fs.FS, name string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return fmt.Errorf("read logs: %w", err)
	}
	defer f.Close()
	return l.add(name, f)
}

func (l Logs) add(name string, r io.Reader) error {
	records, err := Parse(r)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	key := strings.TrimSuffix(path.Base(name), logSuffix)
	l[key] = append(l[key], records...)
	return nil
}

// ReadTar reads every log of a tar archive, as a container engine hands out a
// folder. Entries that are not regular files named *.log are left out.
func ReadTar(r io.Reader) (Logs, error) {
	run, err := ReadRun(r)
	return run.Logs, err
}

// Run is what one process wrote.
type Run struct {
	Logs    Logs
	Columns Columns // nil: it did not tell, see ColumnsScript
}

// ReadRun reads a tar archive as ReadTar does, and with the logs ColumnsFile.
func ReadRun(r io.Reader) (Run, error) {
	archive := tar.NewReader(r)
	run := Run{Logs: Logs{}}
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return run, nil
		}
		if err != nil {
			return Run{}, fmt.Errorf("read logs: %w", err)
		}
		if err := run.add(header, archive); err != nil {
			return Run{}, err
		}
	}
}

func (run *Run) add(header *tar.Header, r io.Reader) (err error) {
	switch {
	case header.Typeflag != tar.TypeReg:
	case path.Base(header.Name) == ColumnsFile:
		run.Columns, err = ParseColumns(r)
	case strings.HasSuffix(header.Name, logSuffix):
		err = run.Logs.add(header.Name, r)
	}
	return err
}

// text returns a field as expectations and reports write it: "" for an unset
// one, elements joined by commas for a set or vector.
func (r Record) text(field string) string { return valueText(r[field]) }

func valueText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		if v {
			return "true"
		}
		return "false"
	case []any:
		return strings.Join(elements(v), ",")
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// elements are the texts of a set or vector in sorted order: Zeek writes sets
// in the order of a hash table that differs from process to process.
func elements(list []any) []string {
	texts := make([]string, 0, len(list))
	for _, v := range list {
		texts = append(texts, valueText(v))
	}
	slices.Sort(texts)
	return texts
}

// numeric returns a JSON number; ok is false for anything else.
func numeric(v any) (f float64, ok bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

// number returns a field as an unsigned number, 0 where it is unset or none.
func (r Record) number(field string) uint64 {
	f, ok := numeric(r[field])
	if !ok || f < 0 || f >= 1<<63 {
		return 0
	}
	return uint64(f)
}

// PacketsReceived returns how many packets the process took from its source and
// how many bytes those had, datagram payloads with their tunnel headers, from
// stats.log, whose last line is written at the end. ok is false without one.
func (l Logs) PacketsReceived() (packets, payload uint64, ok bool) {
	for _, r := range l["stats"] {
		packets += r.number("pkts_proc")
		payload += r.number("bytes_recv")
	}
	return packets, payload, len(l["stats"]) > 0
}
