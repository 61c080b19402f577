package assets_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/zeekdemo/zeekdemo/assets"
)

var update = flag.Bool("update", false, "renew the blocks of stack/compose.yaml from the files they name")

// blockHeader is a line that opens a literal block and says what the block holds.
var blockHeader = regexp.MustCompile(`^( *)(?:- |[\w-]+: )\| # from (\S.*)$`)

// inline renews the marked blocks of a Compose file from the files they name.
// Everything else stays as it is.
func inline(text []byte, files fs.FS) ([]byte, error) {
	var out bytes.Buffer
	depth := -1 // indentation of the header whose old block is being skipped
	for line := range strings.Lines(string(text)) {
		if depth >= 0 && (strings.TrimSpace(line) == "" || indentation(line) > depth) {
			continue
		}
		depth = -1
		out.WriteString(line)
		m := blockHeader.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		depth = len(m[1])
		for name := range strings.FieldsSeq(m[2]) {
			if err := writeBlock(&out, files, name, strings.Repeat(" ", depth+2)); err != nil {
				return nil, err
			}
		}
	}
	return out.Bytes(), nil
}

func indentation(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// escape doubles the dollar signs that begin no variable of the stack's own.
func escape(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "$", "$$"), "$${ZEEKDEMO_", "${ZEEKDEMO_")
}

// writeBlock writes one file, indented and escaped.
func writeBlock(out *bytes.Buffer, files fs.FS, name, indent string) error {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return fmt.Errorf("fill block: %w", err)
	}
	if !bytes.HasSuffix(data, []byte("\n")) || bytes.HasSuffix(data, []byte("\n\n")) || bytes.HasPrefix(data, []byte(" ")) {
		return fmt.Errorf("fill block: %s must start in the first column and end in exactly one newline", name)
	}
	for line := range strings.Lines(escape(string(data))) {
		if line != "\n" {
			out.WriteString(indent)
		}
		out.WriteString(line)
	}
	return nil
}

func TestComposeHoldsTheFiles(t *testing.T) {
	const path = "stack/compose.yaml"
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := inline(have, os.DirFS("stack"))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(have, want) {
		t.Errorf("%s is out of date: run go generate ./assets", path)
	}
	if !bytes.Equal(assets.Compose(), have) {
		t.Error("the embedded file is not the one on disk")
	}
}

// Every file beside compose.yaml is in it; none is forgotten.
func TestComposeNamesEveryFile(t *testing.T) {
	named := map[string]bool{"compose.yaml": true}
	for line := range strings.Lines(string(assets.Compose())) {
		if m := blockHeader.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			for name := range strings.FieldsSeq(m[2]) {
				named[name] = true
			}
		}
	}
	err := fs.WalkDir(os.DirFS("stack"), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !named[path] {
			t.Errorf("stack/%s is in no block of compose.yaml", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestInline(t *testing.T) {
	files := fstest.MapFS{
		"a":        {Data: []byte("cost: $5\n\n  deep\n")},
		"b":        {Data: []byte("second\n")},
		"c":        {Data: []byte("${ZEEKDEMO_X:-$1} ${OTHER}\n")},
		"open-end": {Data: []byte("no newline")},
	}
	tests := []struct {
		name, in, want string
		err            error
	}{
		{name: "no block", in: "a: 1\n\nb: | # as it is\n  text\n", want: "a: 1\n\nb: | # as it is\n  text\n"},
		{
			name: "block is replaced, neighbours stay",
			in:   "x:\n  y: | # from a\n    old\n\n    older\n  z: 1\n",
			want: "x:\n  y: | # from a\n    cost: $$5\n\n      deep\n  z: 1\n",
		},
		{
			name: "list item of two files",
			in:   "x:\n  - | # from a b\n  - next\n",
			want: "x:\n  - | # from a b\n    cost: $$5\n\n      deep\n    second\n  - next\n",
		},
		{name: "a variable of the stack", in: "y: | # from c\n", want: "y: | # from c\n  ${ZEEKDEMO_X:-$$1} $${OTHER}\n"},
		{name: "missing file", in: "y: | # from nowhere\n", err: fs.ErrNotExist},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := inline([]byte(tt.in), files)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if string(got) != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	if _, err := inline([]byte("y: | # from open-end\n"), files); err == nil {
		t.Error("a file without a final newline was accepted: a literal block would add one")
	}
}
