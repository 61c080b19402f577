package mirror

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// hostEnds lists the devices here whose veth peers are in the network namespace
// of a process. Each end knows the index of the other.
func hostEnds(pid int) ([]string, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, needsRoot(fmt.Errorf("open its network namespace: %w", err))
	}
	defer ns.Close()
	if own, err := netns.Get(); err == nil {
		defer own.Close()
		if own.Equal(ns) {
			return nil, orchestrate.WithHint(errors.New("it uses this machine's own network"), "name an interface instead")
		}
	}
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, needsRoot(fmt.Errorf("enter its network namespace: %w", err))
	}
	defer inside.Close()
	links, err := inside.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list its interfaces: %w", err)
	}
	var names []string
	for _, link := range links {
		if name, ok := hostEnd(link); ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, orchestrate.WithHint(errors.New("none of its interfaces has its other end on this machine"), "name an interface instead")
	}
	return names, nil
}

// hostEnd finds the other end of a veth, which must point back.
func hostEnd(link netlink.Link) (string, bool) {
	if link.Type() != "veth" {
		return "", false
	}
	peer, err := net.InterfaceByIndex(link.Attrs().ParentIndex)
	if err != nil {
		return "", false
	}
	other, err := netlink.LinkByName(peer.Name)
	if err != nil || other.Type() != "veth" || other.Attrs().ParentIndex != link.Attrs().Index {
		return "", false
	}
	return peer.Name, true
}

func needsRoot(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return orchestrate.WithHint(err, "looking into a container's network needs root (CAP_SYS_PTRACE and CAP_SYS_ADMIN)")
	}
	return err
}
