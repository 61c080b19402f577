package orchestrate

import (
	"os"
	"strconv"
	"strings"
)

// Client is a process of some machine for which containers and files were made.
// They carry its text, so that what it leaves behind when it is killed can be
// told from what another one still needs. Clients can be compared with ==.
type Client struct {
	host    string // the machine's name
	pid     int    // 0 where the text has none
	started string // since numbers of processes come again; empty where it is not known
}

// unknownHost stands for machines without a name, which cannot be told apart.
const unknownHost = "unknown"

// ThisClient is this process.
func ThisClient() Client {
	c := ClientOfProcess(os.Getpid())
	c.started = lookAt(c.pid).started
	return c
}

// ClientOfProcess is a process of this machine of which only the number is
// known: whatever has that number now is taken for it.
func ClientOfProcess(pid int) Client { return Client{host: hostname(), pid: max(pid, 0)} }

func hostname() string {
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return unknownHost
}

// ParseClient reads what String wrote: HOST/PID/START, or HOST/PID. Of a text
// without a number nobody can say that its process has ended.
func ParseClient(text string) Client {
	host, rest, _ := strings.Cut(text, "/")
	number, started, _ := strings.Cut(rest, "/")
	pid, err := strconv.Atoi(number)
	if err != nil || pid < 0 {
		pid, started = 0, ""
	}
	return Client{host: host, pid: pid, started: started}
}

// String is what labels hold.
func (c Client) String() string {
	text := c.host + "/" + strconv.Itoa(c.pid)
	if c.started != "" {
		text += "/" + c.started
	}
	return text
}

// Gone reports whether it is a process of this machine that has ended. Of other
// machines' clients nothing is known.
func (c Client) Gone() bool {
	if c.pid == 0 || c.host == unknownHost || c.host != hostname() {
		return false
	}
	now := lookAt(c.pid)
	return !now.exists || c.started != "" && now.started != "" && c.started != now.started
}

// NotHere reports whether it is not a living process of this machine: what it
// left can be removed by somebody who asks for that.
func (c Client) NotHere() bool { return c.host != hostname() || c.Gone() }
