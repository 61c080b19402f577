package transmit

import (
	"net/netip"
	"strings"
	"testing"
)

// TestObstacles is the decision itself: what is found, and whether it would act
// on datagrams from 192.0.2.1 to 192.0.2.2:4789 by device 7.
func TestObstacles(t *testing.T) {
	j := journey{src: netip.MustParseAddr("192.0.2.1"), dst: netip.MustParseAddr("192.0.2.2"), port: 4789, device: "eth0", index: 7}
	here, elsewhere := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24")
	rule := func(r routingRule) surroundings { return surroundings{rules: []routingRule{r}} }
	policy := func(p ipsecPolicy) surroundings { return surroundings{policies: []ipsecPolicy{p}} }
	for _, test := range []struct {
		name string
		s    surroundings
		want string // "": none
	}{
		{"nothing", surroundings{}, ""},
		{"rules by address", rule(routingRule{priority: 5, src: here}), ""},
		{"rule for UDP", rule(routingRule{priority: 5, protocol: 17}), "routing rule 5 chooses by protocol"},
		{"rule for TCP", rule(routingRule{protocol: 6}), ""},
		{"rule for UDP to elsewhere", rule(routingRule{protocol: 17, dst: elsewhere}), ""},
		{"rule for UDP to here", rule(routingRule{protocol: 17, dst: here}), "protocol"},
		{"rule for UDP from elsewhere", rule(routingRule{protocol: 17, src: elsewhere}), ""},
		{"rule for the port", rule(routingRule{dstPort: ports{4000, 5000}}), "chooses by port"},
		{"rule for another port", rule(routingRule{dstPort: ports{53, 53}}), ""},
		{"rule for source ports, which differ", rule(routingRule{srcPort: ports{53, 53}}), "chooses by port"},
		{"rule for a mark that nothing sets", rule(routingRule{mark: 5, mask: 0xff}), ""},
		{"rule for a mark that may be set", surroundings{rules: []routingRule{{mark: 5, mask: 0xff}}, marks: true}, "mark"},
		{"policy for all", policy(ipsecPolicy{}), "IPsec"},
		{"policy for here", policy(ipsecPolicy{src: here, dst: here, protocol: 17, dstPort: 4789, index: 7}), "IPsec policy applies to packets to 192.0.2.0/24"},
		{"policy for TCP", policy(ipsecPolicy{protocol: 6}), ""},
		{"policy for another port", policy(ipsecPolicy{dstPort: 53}), ""},
		{"policy from elsewhere", policy(ipsecPolicy{src: elsewhere}), ""},
		{"policy to elsewhere", policy(ipsecPolicy{dst: elsewhere}), ""},
		{"policy on another device", policy(ipsecPolicy{index: 8}), ""},
		{"route that wraps", surroundings{encapsulated: "seg6"}, "wraps packets into seg6"},
		{"translation", surroundings{translations: []string{"iptables, table nat"}}, "network address translation may apply (iptables, table nat)"},
		{"what could not be read", surroundings{unseen: []string{"nftables need CAP_NET_ADMIN"}}, "cannot be seen what acts on packets (nftables need CAP_NET_ADMIN)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			list := test.s.obstacles(j)
			if (len(list) > 0) != (test.want != "") || test.want != "" && !strings.Contains(list[0], test.want) {
				t.Errorf("%q, want %q", list, test.want)
			}
		})
	}
}
