package transmit

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
)

// obstacles lists what would act on packets to o's destination that the packet
// transmission passes by, or may.
func (e exit) obstacles(o Options) []string {
	j := journey{dst: e.dst, port: o.Destination.Port(), device: e.link.Attrs().Name, index: e.link.Attrs().Index}
	src, _ := netip.AddrFromSlice(e.route.Src)
	j.src = src.Unmap()
	return e.lookAround(j).obstacles(j)
}

// lookAround reads the surroundings of a journey that begins at the exit.
func (e exit) lookAround(j journey) surroundings {
	s := surroundings{encapsulated: encapsulation(e.route)}
	var privileged []string // what could not be read for want of a privilege
	for _, part := range []struct {
		name string
		read func() error
	}{
		{"routing rules", func() (err error) { s.rules, err = routingRules(j.dst); return err }},
		{"IPsec policies", func() (err error) { s.policies, err = ipsecPolicies(j.dst); return err }},
		{"nftables", func() error { return s.readNFTables(j) }},
		{"iptables", func() error { return s.readIPTables(j) }},
	} {
		switch err := part.read(); {
		case errors.Is(err, os.ErrPermission):
			privileged = append(privileged, part.name)
		case err != nil:
			s.unseen = append(s.unseen, fmt.Sprintf("%s: %v", part.name, err))
		}
	}
	if len(privileged) > 0 {
		s.unseen = append(s.unseen, strings.Join(privileged, ", ")+" need CAP_NET_ADMIN")
	}
	return s
}

// encapsulation names what a route wraps packets into (ip-route(8), encap).
func encapsulation(r netlink.Route) string {
	switch {
	case r.Encap != nil:
		return r.Encap.String()
	case r.NewDst != nil:
		return r.NewDst.String()
	}
	return ""
}

// routingRules reads the rules that look at more than addresses and devices,
// which looking up a route takes into account.
func routingRules(dst netip.Addr) ([]routingRule, error) {
	list, err := netlink.RuleList(familyOf(dst.AsSlice()))
	if err != nil {
		return nil, err
	}
	var rules []routingRule
	for _, r := range list {
		rule := routingRule{priority: r.Priority, protocol: r.IPProto, mark: r.Mark, src: prefix(r.Src), dst: prefix(r.Dst)}
		if r.Sport != nil {
			rule.srcPort = ports{r.Sport.Start, r.Sport.End}
		}
		if r.Dport != nil {
			rule.dstPort = ports{r.Dport.Start, r.Dport.End}
		}
		if r.Mask != nil {
			rule.mask = *r.Mask
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// ipsecPolicies reads the policies for outgoing packets. A kernel without IPsec
// has none.
func ipsecPolicies(dst netip.Addr) ([]ipsecPolicy, error) {
	list, err := netlink.XfrmPolicyList(familyOf(dst.AsSlice()))
	if err != nil {
		if errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP) {
			return nil, nil
		}
		return nil, err
	}
	var policies []ipsecPolicy
	for _, p := range list {
		if p.Dir != netlink.XFRM_DIR_OUT {
			continue
		}
		policies = append(policies, ipsecPolicy{
			src: prefix(p.Src), dst: prefix(p.Dst), protocol: int(p.Proto), dstPort: uint16(p.DstPort), index: p.Ifindex,
		})
	}
	return policies, nil
}

// prefix converts a network, of which nil is any.
func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}
	}
	if addr.Is4In6() && size == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, bits)
}
