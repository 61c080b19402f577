package cli

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// Each flag of replay is in one group and no more, and help shows it once, in the
// order of the groups, which is that of the README.
func TestReplayHelpIsGrouped(t *testing.T) {
	cmd := newReplay(&App{})
	cmd.InitDefaultHelpFlag()
	var out bytes.Buffer
	cmd.SetOut(&out)
	if err := cmd.Usage(); err != nil {
		t.Fatal(err)
	}
	if got := rest(cmd.LocalFlags(), replayGroups()).flags; !slices.Equal(got, []string{"help"}) {
		t.Errorf("in no group: %q", got)
	}
	seen := map[string]bool{}
	var titles []string
	for _, g := range replayGroups() {
		titles = append(titles, g.title)
		for _, name := range g.flags {
			if cmd.Flags().Lookup(name) == nil || seen[name] {
				t.Errorf("%s: there is no flag %s, or it is in two groups", g.title, name)
			}
			seen[name] = true
		}
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if n := len(regexp.MustCompile(`(?m)^ +(-\w, +)?--`+f.Name+`( |$)`).FindAllString(out.String(), -1)); n != 1 && !f.Hidden {
			t.Errorf("help shows --%s %d times", f.Name, n)
		}
	})
	inOrder(t, "help", out.String(), titles, "\n%s:\n")
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## Verifying")
	inOrder(t, "README", strings.TrimSuffix(string(readme), section), titles, "\n| %s |")
}

// inOrder checks that a text has all titles one after the other.
func inOrder(t *testing.T, name, text string, titles []string, form string) {
	t.Helper()
	at := 0
	for _, title := range titles {
		n := strings.Index(text[at:], strings.Replace(form, "%s", title, 1))
		if n < 0 {
			t.Errorf("%s has no %s behind the others", name, title)
			return
		}
		at += n
	}
}
