package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagGroup is a part of a command's flags under a heading of its own.
type flagGroup struct {
	title string
	flags []string // names, in the order in which help lists them
}

// groupFlags has the command's help list its flags in groups, as far as they are in
// any, as docker compose and gh do for many.
func groupFlags(cmd *cobra.Command, groups []flagGroup) {
	cmd.SetUsageFunc(func(c *cobra.Command) error {
		var b strings.Builder
		fmt.Fprintf(&b, "Usage:\n  %s\n", c.UseLine())
		if c.HasExample() {
			fmt.Fprintf(&b, "\nExamples:\n%s\n", c.Example)
		}
		for _, g := range append(groups, rest(c.LocalFlags(), groups)) {
			flagSection(&b, g.title, pick(c.LocalFlags(), g.flags))
		}
		flagSection(&b, "Global flags", c.InheritedFlags())
		_, err := fmt.Fprint(c.OutOrStderr(), b.String())
		return err
	})
}

// flagSection writes the usage of flags under a title, if there are any.
func flagSection(b *strings.Builder, title string, flags *pflag.FlagSet) {
	if flags.HasAvailableFlags() {
		fmt.Fprintf(b, "\n%s:\n%s\n", title, strings.TrimRight(flags.FlagUsages(), " \n"))
	}
}

// pick takes flags by their names.
func pick(from *pflag.FlagSet, names []string) *pflag.FlagSet {
	some := pflag.NewFlagSet("", pflag.ContinueOnError)
	some.SortFlags = false
	for _, name := range names {
		if f := from.Lookup(name); f != nil {
			some.AddFlag(f)
		}
	}
	return some
}

// rest is the group of those that are in none.
func rest(all *pflag.FlagSet, groups []flagGroup) flagGroup {
	known := map[string]bool{}
	for _, g := range groups {
		for _, name := range g.flags {
			known[name] = true
		}
	}
	other := flagGroup{title: "Other"}
	all.VisitAll(func(f *pflag.Flag) {
		if !known[f.Name] {
			other.flags = append(other.flags, f.Name)
		}
	})
	return other
}
