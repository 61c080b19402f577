package delivery

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/assets/samples"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// count reads up to most frames.
func count(c *Captures, most int) (n int, err error) {
	for f := (forward.Frame{}); n < most; n++ {
		if err := c.Next(&f); err != nil {
			return n, err
		}
	}
	return n, nil
}

// temporary is where samples are unpacked; it must be empty afterwards.
func temporary(t *testing.T) {
	t.Helper()
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	t.Cleanup(func() {
		if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

// Captures are played as often as asked for, 0 for ever; the sample leaves
// nothing behind.
func TestCapturesArePlayedAsOftenAsAskedFor(t *testing.T) {
	temporary(t)
	for loop, want := range map[int]int{1: sampleFrames, 3: 3 * sampleFrames, 0: 10 * sampleFrames} {
		c, err := OpenCaptures(t.Context(), nil, loop, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		n, err := count(c, 10*sampleFrames)
		if n != want || (err == nil) != (loop == 0) || err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("loop %d: %d frames, want %d: %v", loop, n, want, err)
		}
		if done, _ := c.Progress(); done <= 0 || c.Title() != "the embedded sample" || c.filtered() != 0 {
			t.Errorf("%d bytes of %s", done, c.Title())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Only what the filter lets pass is yielded, and what it left out is counted.
func TestAFilterLeavesOut(t *testing.T) {
	testenv.NeedTool(t, "tcpdump")
	temporary(t)
	passed := map[string]int{}
	for _, expression := range []string{"udp", "not udp", "less 1"} {
		c, err := OpenCaptures(t.Context(), nil, 1, nil, expression)
		if err != nil {
			t.Fatal(err)
		}
		n, err := count(c, sampleFrames+1)
		if !errors.Is(err, io.EOF) || n+int(c.filtered()) != sampleFrames {
			t.Errorf("%s: %d passed, %d left out: %v", expression, n, c.filtered(), err)
		}
		passed[expression] = n
		c.Close()
	}
	if passed["udp"]+passed["not udp"] != sampleFrames || passed["udp"] == 0 || passed["not udp"] == 0 || passed["less 1"] != 0 {
		t.Errorf("passed: %v", passed)
	}
	if _, err := OpenCaptures(t.Context(), nil, 1, nil, "no such word"); err == nil {
		t.Error("a filter that means nothing")
	}
}

// What cannot be played is refused when it is opened, and named.
func TestCapturesThatCannotBePlayed(t *testing.T) {
	temporary(t)
	folder := t.TempDir()
	radio, no := filepath.Join(folder, "radio.pcap"), filepath.Join(folder, "no.pcap")
	if err := os.WriteFile(radio, []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 195, 0, 0, 0}, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{radio, no} {
		if c, err := OpenCaptures(t.Context(), []string{name}, 1, nil, ""); c != nil || err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A wait for standard input ends when it is told to, or when the run's context
// does, whatever it has brought before.
func TestAWaitForStandardInputEnds(t *testing.T) {
	for name, end := range map[string]func(c *Captures, cancel func()){
		"stopped":     func(c *Captures, _ func()) { c.Stop() },
		"interrupted": func(_ *Captures, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			stdin, out, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			defer out.Close()
			if _, err := out.Write(samples.Sample()[:2000]); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c, err := OpenCaptures(ctx, []string{"-"}, 1, stdin, "")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if c.Title() != "-" {
				t.Errorf("title %q", c.Title())
			}
			ended := make(chan error, 1)
			go func() {
				_, err := count(c, sampleFrames)
				ended <- err
			}()
			end(c, cancel)
			select {
			case err := <-ended:
				if err == nil {
					t.Error("all of the sample came, though a piece of it was written")
				}
			case <-time.After(20 * time.Second):
				t.Error("it does not end")
			}
		})
	}
}
