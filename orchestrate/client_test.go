package orchestrate

import (
	"os"
	"strings"
	"testing"
)

// From here only the processes of this boot and this PID namespace are seen.
// Whatever the machine is called, no other is taken for dead.
func TestWhatIsSeenOfAClient(t *testing.T) {
	here := view{boot: "b1", space: 41, look: func(pid int) seen {
		return map[int]seen{7: {exists: true, started: 700}, 8: {exists: true}, 9: {exists: false, started: 900}}[pid]
	}}
	for name, tt := range map[string]struct {
		client Client
		want   Life
	}{
		"one that runs":                              {Client{pid: 7, started: 700, space: 41, boot: "b1", host: "a"}, Alive},
		"one that runs, its machine renamed":         {Client{pid: 7, started: 700, space: 41, boot: "b1", host: "b"}, Alive},
		"one that runs, the start not written":       {Client{pid: 7, space: 41, boot: "b1"}, Alive},
		"one that runs, the start not seen":          {Client{pid: 8, started: 800, space: 41, boot: "b1"}, Alive},
		"one that has ended":                         {Client{pid: 6, started: 600, space: 41, boot: "b1"}, Gone},
		"one that was not waited for":                {Client{pid: 9, started: 900, space: 41, boot: "b1"}, Gone},
		"a number that came again":                   {Client{pid: 7, started: 699, space: 41, boot: "b1"}, Gone},
		"another container's, of the same host name": {Client{pid: 6, started: 600, space: 42, boot: "b1", host: "a"}, Unknown},
		"another container's, the number runs here":  {Client{pid: 7, started: 700, space: 42, boot: "b1"}, Unknown},
		"another machine's of the same host name":    {Client{pid: 6, started: 600, space: 41, boot: "b2", host: "a"}, Unknown},
		"a boot that was not written":                {Client{pid: 6, started: 600, space: 41}, Unknown},
		"one without a number":                       {Client{space: 41, boot: "b1"}, Unknown},
		"an earlier version's":                       {ParseClient("a/6/600"), Unknown},
		"none":                                       {ParseClient(""), Unknown},
	} {
		if got := tt.client.lifeSeenFrom(here); got != tt.want {
			t.Errorf("%s (%s): %d, want %d", name, tt.client, got, tt.want)
		}
	}
	blind := view{look: here.look}
	if got := (Client{pid: 6}).lifeSeenFrom(blind); got != Unknown {
		t.Errorf("where the boot is not known: %d", got)
	}
}

func TestClientsOfThisSystem(t *testing.T) {
	if bootID() == "" {
		t.Skip("SKIPPED: this system does not tell its boot")
	}
	early := ThisClient()
	early.started = 17
	for name, tt := range map[string]struct {
		client Client
		want   Life
	}{
		"this process":                {ThisClient(), Alive},
		"this process, by its number": {ClientOfProcess(os.Getpid()), Alive},
		"its parent":                  {ClientOfProcess(os.Getppid()), Alive},
		"one that has ended":          {endedClient(t), Gone},
		"no number":                   {ClientOfProcess(-7), Unknown},
	} {
		if got := tt.client.Life(); got != tt.want {
			t.Errorf("%s (%s): %d, want %d", name, tt.client, got, tt.want)
		}
	}
	if ThisClient().started != 0 && !early.Gone() {
		t.Errorf("%s, whose number came again, is %d", early, early.Life())
	}
}

// What is written on a container is read back, and of what earlier versions wrote
// as much as it tells.
func TestAClientIsReadAsItWasWritten(t *testing.T) {
	for _, client := range []Client{ThisClient(), ClientOfProcess(4711), {pid: 1, started: 2, space: 3, boot: "b-1", host: "a.b-c", user: `DOMAIN\hans`}} {
		if got := ParseClient(client.String()); got != client {
			t.Errorf("%+v was written as %q and read as %+v", client, client, got)
		}
	}
	for text, want := range map[string]Client{
		"h/12/34": {host: "h", pid: 12}, "h/12": {host: "h", pid: 12}, "h/x/34/1/b/u": {host: "h"}, "h/-3/1/1/b": {host: "h"}, "h": {host: "h"}, "": {},
		"h/12/34/5/b": {host: "h", pid: 12, started: 34, space: 5, boot: "b"}, "h/1/2/3/b/u/more": {host: "h", pid: 1, started: 2, space: 3, boot: "b", user: "u"},
	} {
		if got := ParseClient(text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func TestAClientIsNamedForPeople(t *testing.T) {
	for want, client := range map[string]Client{
		"hans on box (process 7)": {pid: 7, host: "box", user: "hans"},
		"somebody on box":         ParseClient("box/x"),
		"somebody":                {},
	} {
		if got := client.Person(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if who := ThisClient().Person(); !strings.Contains(who, username()) {
		t.Errorf("this process is of %q", who)
	}
}
