package cli

import (
	"regexp"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/assets"
)

// What alerts and dashboards tell people to type is a command with such flags.
func TestTheStacksAdviceCanBeTyped(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile("`zeekdemo ([^`]+)`").FindAllStringSubmatch(string(assets.Compose()), -1) {
		if seen[m[1]] {
			continue
		}
		seen[m[1]] = true
		cmd, args, err := newRoot(System("test")).Find(strings.Fields(m[1]))
		if err != nil || cmd.Name() == "zeekdemo" {
			t.Errorf("zeekdemo %s: no such command: %v", m[1], err)
			continue
		}
		for _, arg := range args {
			if name, flag := strings.CutPrefix(arg, "--"); flag && cmd.Flag(name) == nil {
				t.Errorf("zeekdemo %s: no such flag: --%s", m[1], name)
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d commands are named", len(seen))
	}
}
