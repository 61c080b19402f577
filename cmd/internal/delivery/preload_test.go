package delivery

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// From memory comes the same as from the files, loops and filter included, and the
// captures have been read to their end before.
func TestPreloadedReplayIsTheSame(t *testing.T) {
	written := func(loops int, expression string, load bool) (string, uint64) {
		r, open := replay(t), loops
		if load {
			open = 1
		}
		var err error
		if r.Captures, err = OpenCaptures(t.Context(), nil, open, strings.NewReader(""), expression); err != nil {
			t.Fatal(err)
		}
		defer r.Captures.Close()
		if load {
			if err := r.Preload(t.Context(), loops); err != nil {
				t.Fatal(err)
			}
			if done, total := r.Captures.Progress(); done != total || total == 0 {
				t.Errorf("%d of %d bytes are read before", done, total)
			}
		}
		out := filepath.Join(t.TempDir(), "out.pcap")
		doc, err := sent(t, r, File{Path: out})
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(data), doc.Report.FramesFiltered
	}
	testenv.NeedTool(t, "tcpdump")
	for _, expression := range []string{"", "udp"} {
		for _, loops := range []int{1, 2} {
			want, left := written(loops, expression, false)
			// What the filter leaves out is not in memory, and has no part in the times of a second loop.
			times := expression == "" || loops == 1
			if got, filtered := written(loops, expression, true); times && got != want || len(got) != len(want) || filtered != left {
				t.Errorf("%d loops, filter %q: the files are the same: %v; %d filtered, want %d", loops, expression, got == want, filtered, left)
			}
		}
	}
}
