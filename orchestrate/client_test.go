package orchestrate

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestClientsThatAreGone(t *testing.T) {
	own := ThisClient()
	dead := endedClient(t)
	early, known := own, own.started != "" // else this system does not say when a process started
	early.started = "17"
	host := own.host
	for name, tt := range map[string]struct {
		client        Client
		gone, notHere bool
	}{
		"this process":                           {own, false, false},
		"this process, by its number":            {ClientOfProcess(os.Getpid()), false, false},
		"its parent":                             {ClientOfProcess(os.Getppid()), false, false},
		"one that has ended":                     {dead, true, true},
		"one that has ended, with its start":     {ParseClient(dead.String() + "/17"), true, true},
		"a number that came again":               {early, known, known},
		"another machine's":                      {ParseClient("elsewhere/1"), false, true},
		"another machine's, the number is dead":  {ParseClient("elsewhere/" + strconv.Itoa(dead.pid)), false, true},
		"a machine without a name":               {ParseClient(unknownHost + "/" + strconv.Itoa(dead.pid)), false, host != unknownHost},
		"no client at all":                       {ParseClient(""), false, true},
		"this machine's, without a number":       {ParseClient(host + "/x"), false, false},
		"this machine's, with an absurd number":  {ParseClient(host + "/-1"), false, false},
		"this machine's, of a folder's bad name": {ClientOfProcess(-7), false, false},
	} {
		if gone, notHere := tt.client.Gone(), tt.client.NotHere(); gone != tt.gone || notHere != tt.notHere {
			t.Errorf("%s (%s): gone %t, not here %t; want %t, %t", name, tt.client, gone, notHere, tt.gone, tt.notHere)
		}
	}
}

// What is written on a container is read back, as this version wrote it and as
// earlier ones did.
func TestAClientIsReadAsItWasWritten(t *testing.T) {
	for _, client := range []Client{ThisClient(), ClientOfProcess(4711), ParseClient("elsewhere/12/3456"), ParseClient("a.b-c/1")} {
		if got := ParseClient(client.String()); got != client {
			t.Errorf("%+v was written as %q and read as %+v", client, client, got)
		}
	}
	for text, want := range map[string]Client{
		"h/12/34": {"h", 12, "34"}, "h/12": {"h", 12, ""}, "h/x/34": {host: "h"}, "h/-3": {host: "h"}, "h": {host: "h"}, "": {},
	} {
		if got := ParseClient(text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	if text := ThisClient().String(); !strings.Contains(text, "/"+strconv.Itoa(os.Getpid())) {
		t.Errorf("this process is %q", text)
	}
}
