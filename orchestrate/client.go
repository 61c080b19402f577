package orchestrate

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// Client is a process for which containers, devices and files were made. They
// carry its text, so that what it leaves behind when it is killed can be told from
// what another one still needs. Clients can be compared with ==.
//
// A process is known by its number, its start, and where these numbers count: its
// PID namespace and the boot of the kernel. Hosts' names do not tell that. Two
// containers may have the same one, and in each PID 17 is another process.
type Client struct {
	pid     int    // 0 where the text has none
	started uint64 // in clock ticks since boot, for numbers of processes come again; 0 where it is not known
	space   uint64 // the PID namespace's inode; 0 where the system has none
	boot    string // the kernel's boot ID; empty where it is not known

	host, user string // for people
}

// Life is what can be said of a client from here.
type Life int

// What may have become of a client.
const (
	// Unknown is said of one of another machine or another PID namespace. It is
	// not taken for dead.
	Unknown Life = iota
	Alive
	Gone
)

// ThisClient is this process.
func ThisClient() Client {
	c := ClientOfProcess(os.Getpid())
	c.started = lookAt(c.pid).started
	c.host, c.user = hostname(), username()
	return c
}

// ClientOfProcess is a process of this PID namespace of which only the number is
// known: whatever has that number now is taken for it.
func ClientOfProcess(pid int) Client { return ClientHere(pid, 0, pidSpace()) }

// ClientHere is a process of this boot of this machine, by its number, its start in
// clock ticks since boot, and its PID namespace's inode. [Client.Numbers] gives them
// back. Without a number it is nobody.
func ClientHere(pid int, started, space uint64) Client {
	if pid <= 0 {
		return Client{}
	}
	return Client{pid: pid, started: started, space: space, boot: bootID()}
}

// Numbers are what tells a process from the others of this boot.
func (c Client) Numbers() (pid int, started, space uint64) { return c.pid, c.started, c.space }

func hostname() string {
	if name, err := os.Hostname(); err == nil {
		return strings.ReplaceAll(name, "/", "")
	}
	return ""
}

func username() string {
	if u, err := user.Current(); err == nil {
		return strings.ReplaceAll(u.Username, "/", "")
	}
	return strconv.Itoa(os.Getuid())
}

// ParseClient reads what String wrote: HOST/PID/START/SPACE/BOOT/USER. Earlier
// versions wrote the beginning of it, from which nobody can say whether the process
// has ended.
func ParseClient(text string) (c Client) {
	parts := append(strings.Split(text, "/"), make([]string, 6)...)
	c.host, c.boot, c.user = parts[0], parts[4], parts[5]
	pid, err1 := strconv.Atoi(parts[1])
	started, err2 := strconv.ParseUint(parts[2], 10, 64)
	space, err3 := strconv.ParseUint(parts[3], 10, 64)
	if err1 != nil || pid <= 0 || err2 != nil || err3 != nil {
		return Client{host: c.host, pid: max(pid, 0)}
	}
	c.pid, c.started, c.space = pid, started, space
	return c
}

// String is what labels hold.
func (c Client) String() string {
	return fmt.Sprintf("%s/%d/%d/%d/%s/%s", c.host, c.pid, c.started, c.space, c.boot, c.user)
}

// Person says for people who it is: its user, machine and number.
func (c Client) Person() string {
	who := c.user
	if who == "" {
		who = "somebody"
	}
	if c.host != "" {
		who += " on " + c.host
	}
	if c.pid > 0 {
		who += fmt.Sprintf(" (process %d)", c.pid)
	}
	return who
}

// Life says whether the process still runs, as far as that is seen from here.
func (c Client) Life() Life {
	return c.lifeSeenFrom(view{boot: bootID(), space: pidSpace(), look: lookAt})
}

// Gone reports whether it has ended for sure.
func (c Client) Gone() bool { return c.Life() == Gone }

// view is from where clients are judged.
type view struct {
	boot  string
	space uint64
	look  func(pid int) seen
}

func (c Client) lifeSeenFrom(here view) Life {
	if c.pid <= 0 || c.boot == "" || c.boot != here.boot || c.space != here.space {
		return Unknown
	}
	now := here.look(c.pid)
	if !now.exists || c.started != 0 && now.started != 0 && c.started != now.started {
		return Gone
	}
	return Alive
}
