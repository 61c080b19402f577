package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// options is Zeek's command line as far as the stack uses it.
type options struct {
	iface    string   // -i: the packet source, such as udp::0.0.0.0:4789:vxlan
	readFile string   // -r: a capture file
	exec     string   // -e: script text; of several the last, as with Zeek
	scripts  []string // script names and files, in order
	version  bool     // -v, --version

	loadSeeds string // -G, --load-seeds: a file of seeds
	saveSeeds string // -H, --save-seeds: where to write them
}

// parseArgs understands -i, -r, -e, -C, -b, -D, -G, -H and -v as getopt would: an
// option's value may be attached or be the next word, options and script
// names may mix.
func parseArgs(args []string) (options, error) {
	var o options
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--version":
			o.version = true
		case arg == "--":
			o.scripts = append(o.scripts, args[i+1:]...)
			return o, nil
		case len(arg) < 2 || arg[0] != '-':
			o.scripts = append(o.scripts, arg)
		case arg[1] == '-':
			took, err := o.long(arg[2:], args[i+1:])
			if err != nil {
				return o, err
			}
			i += took
		default:
			took, err := o.short(arg[1:], args[i+1:])
			if err != nil {
				return o, err
			}
			i += took
		}
	}
	return o, nil
}

// long applies --NAME=VALUE or --NAME VALUE; next are the words after it. It
// returns how many of them it used.
func (o *options) long(arg string, next []string) (int, error) {
	name, value, attached := strings.Cut(arg, "=")
	flag, ok := map[string]rune{"load-seeds": 'G', "save-seeds": 'H'}[name]
	if !ok {
		return 0, fmt.Errorf("unknown option --%s", name)
	}
	if !attached && len(next) == 0 {
		return 0, fmt.Errorf("option --%s needs a value", name)
	}
	if attached {
		o.set(flag, value)
		return 0, nil
	}
	o.set(flag, next[0])
	return 1, nil
}

// short applies one cluster of short options; next are the words after it. It
// returns how many of them it used.
func (o *options) short(cluster string, next []string) (int, error) {
	for i, flag := range cluster {
		switch flag {
		case 'C', 'b', 'D': // checksums, bare mode, determinism: nothing to do here
		case 'v':
			o.version = true
		case 'i', 'r', 'e', 'G', 'H':
			value, took := cluster[i+1:], 0
			if value == "" {
				if len(next) == 0 {
					return 0, fmt.Errorf("option -%c needs a value", flag)
				}
				value, took = next[0], 1
			}
			o.set(flag, value)
			return took, nil
		default:
			return 0, fmt.Errorf("unknown option -%c", flag)
		}
	}
	return 0, nil
}

func (o *options) set(flag rune, value string) {
	switch flag {
	case 'i':
		o.iface = value
	case 'r':
		o.readFile = value
	case 'e':
		o.exec = value
	case 'G':
		o.loadSeeds = value
	case 'H':
		o.saveSeeds = value
	}
}

// source is a parsed UDP packet source: where it listens, what it strips, and what
// is inside.
type source struct {
	path  string // as given, which is how Zeek announces it
	addr  netip.AddrPort
	encap string // a key of decapsulators
	link  int    // link type of what is inside
}

// String is the form in which Zeek announces the source.
func (s source) String() string { return s.path }

// parseSource reads udp::ADDR:PORT and options, each after a colon: an encapsulation
// (Zeek's default is VXLAN) and dlt=LINKTYPE (its default is Ethernet). An IPv6
// address is in brackets. As in Zeek each may be given once, in lower case, and
// anything else is an error. Its encapsulations raw and skip are not here.
func parseSource(iface string) (source, error) {
	path, ok := strings.CutPrefix(iface, "udp::")
	if !ok {
		return source{}, fmt.Errorf("open interface %s: the stand-in has only the udp:: packet source", iface)
	}
	bracket := strings.LastIndexByte(path, ']') + 1
	words := strings.Split(path[bracket:], ":")
	if len(words) < 2 {
		return source{}, fmt.Errorf("packet-source-udp: invalid path: missing port in path '%s'", path)
	}
	addr, err := netip.ParseAddrPort(path[:bracket] + words[0] + ":" + words[1])
	if err != nil {
		return source{}, fmt.Errorf("packet-source-udp: invalid path: %w", err)
	}
	s := source{path: path, addr: addr, link: -1}
	for _, option := range words[2:] {
		if err := s.set(option); err != nil {
			return source{}, fmt.Errorf("packet-source-udp: invalid path: %w", err)
		}
	}
	s.encap = cmp.Or(s.encap, "vxlan")
	if s.link < 0 {
		s.link = linkEthernet
	}
	return s, nil
}

// set applies one option of a source's path.
func (s *source) set(option string) error {
	links := map[string]int{"dlt=en10mb": linkEthernet, "dlt=raw": linkRaw, "dlt=ppp": linkPPP}
	link, isLink := links[option]
	switch {
	case decapsulators()[option] != nil && s.encap != "":
		return fmt.Errorf("encapsulation already set - unexpected '%s'", option)
	case decapsulators()[option] != nil:
		s.encap = option
	case s.link >= 0:
		return fmt.Errorf("data link_type already set - unexpected '%s'", option)
	case !isLink:
		return fmt.Errorf("invalid option: '%s'", option)
	default:
		s.link = link
	}
	return nil
}
