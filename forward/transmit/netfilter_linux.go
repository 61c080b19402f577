package transmit

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"

	"github.com/zeekdemo/zeekdemo/forward/internal/sys"
)

// Numbers of linux/netfilter/nfnetlink.h and nf_tables.h.
const (
	netlinkNetfilter = 12 // NETLINK_NETFILTER
	nftSubsystem     = 10 << 8
	nftNewChain      = nftSubsystem | 3
	nftGetChain      = nftSubsystem | 4
	nftNewRule       = nftSubsystem | 6
	nftGetRule       = nftSubsystem | 7
	nfgenLen         = 4
	familyInet       = 1 // NFPROTO_INET
)

// nfgenmsg begins each message of nfnetlink.
type nfgenmsg struct{ family uint8 }

func (m nfgenmsg) Len() int          { return nfgenLen }
func (m nfgenmsg) Serialize() []byte { return []byte{m.family, 0, 0, 0} }

// tableKey names a table.
type tableKey struct {
	family uint8
	name   string
}

// readNFTables finds out what nftables would do to the journey's packets. It
// needs CAP_NET_ADMIN.
func (s *surroundings) readNFTables(j journey) error {
	tables, err := nftTables(j.dst.Is6())
	if err != nil {
		return err
	}
	keys := slices.SortedFunc(maps.Keys(tables), func(a, b tableKey) int { return strings.Compare(a.name, b.name) })
	uid := uint32(os.Geteuid())
	for _, key := range keys {
		_, marks := tables[key].translates(j, uid, false)
		s.marks = s.marks || marks
	}
	for _, key := range keys {
		if acts, _ := tables[key].translates(j, uid, s.marks); acts {
			s.translations = append(s.translations, "nftables, table "+key.name)
		}
	}
	return nil
}

// nftTables reads all tables that see packets of an address family. A kernel
// without nftables has none.
func nftTables(six bool) (map[tableKey]nftTable, error) {
	tables := make(map[tableKey]nftTable)
	family := uint8(familyIPv4)
	if six {
		family = familyIPv6
	}
	for _, family := range []uint8{family, familyInet} {
		chains, err := dump(nftGetChain, nftNewChain, family)
		if errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL) {
			return tables, nil
		}
		if err != nil {
			return nil, err
		}
		for _, m := range chains {
			addChain(tables, family, attributeMap(m))
		}
		rules, err := dump(nftGetRule, nftNewRule, family)
		if err != nil {
			return nil, err
		}
		for _, m := range rules {
			a := attributeMap(m)
			if chain := tables[tableKey{family, cString(a[1])}][cString(a[2])]; chain != nil {
				chain.rules = append(chain.rules, parseRule(a[4]))
			}
		}
	}
	return tables, nil
}

// addChain adds a chain without its rules.
func addChain(tables map[tableKey]nftTable, family uint8, a map[uint16][]byte) {
	key := tableKey{family, cString(a[1])}
	if tables[key] == nil {
		tables[key] = make(nftTable)
	}
	c := &nftChain{kind: cString(a[7])}
	if hook, ok := a[4]; ok {
		c.base, c.hook = true, bigEndian32(attributeMap(hook)[1])
	}
	tables[key][cString(a[3])] = c
}

// dump asks for all objects of a family, and returns their attributes.
func dump(request, answer int, family uint8) ([][]byte, error) {
	req := nl.NewNetlinkRequest(request, syscall.NLM_F_DUMP)
	req.AddData(nfgenmsg{family})
	messages, err := req.Execute(netlinkNetfilter, uint16(answer))
	if err != nil {
		return nil, err
	}
	var list [][]byte
	for _, m := range messages {
		if len(m) >= nfgenLen {
			list = append(list, m[nfgenLen:])
		}
	}
	return list, nil
}

// readIPTables does the same for the older iptables, whose tables are others. A
// table that is not there is not asked for, for asking would make it.
func (s *surroundings) readIPTables(j journey) error {
	six := j.dst.Is6()
	file := "/proc/thread-self/net/ip_tables_names"
	if six {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	names, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(names)) {
		if name != "nat" {
			s.marks = s.marks || name == "mangle"
			continue
		}
		table, err := sys.ReadIPTable(six, name)
		if err != nil {
			return err
		}
		acts, err := legacyTranslates(table, j)
		if err != nil {
			return fmt.Errorf("table %s: %w", name, err)
		}
		if acts {
			s.translations = append(s.translations, "iptables, table "+name)
		}
	}
	return nil
}
