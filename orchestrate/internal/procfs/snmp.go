package procfs

import (
	"fmt"
	"slices"
	"strings"
)

// SNMP reads /proc/net/snmp or /proc/net/netstat (snmp_seq_show and
// netstat_seq_show in net/ipv4/proc.c): pairs of lines, headings and numbers,
// each beginning with a protocol and a colon. Names are the kernel's with the
// protocol in front, as nstat(8) prints them: IpReasmFails, UdpInErrors,
// IpExtInNoECTPkts. Only the protocols that are given are read, for TCP has
// hundreds of numbers; without any, all are.
func SNMP(text string, protocols ...string) (Counters, error) {
	counters := Counters{}
	var heading []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			continue
		case heading == nil:
			heading = fields
			continue
		case len(fields) != len(heading) || fields[0] != heading[0]:
			return nil, fmt.Errorf("the numbers of %q do not fit their heading", heading[0])
		}
		protocol := strings.TrimSuffix(fields[0], ":")
		if len(protocols) == 0 || slices.Contains(protocols, protocol) {
			if err := counters.add(protocol, heading[1:], fields[1:]); err != nil {
				return nil, err
			}
		}
		heading = nil
	}
	return counters, nil
}

func (c Counters) add(protocol string, names, numbers []string) error {
	for i, name := range names {
		n, err := counter(numbers[i])
		if err != nil {
			return fmt.Errorf("%s%s: %w", protocol, name, err)
		}
		c[protocol+name] = n
	}
	return nil
}

// SNMP6 reads /proc/net/snmp6 (snmp6_seq_show in net/ipv6/proc.c): a name and a
// number a line. Names have their protocol in front already: Ip6InReceives,
// Udp6NoPorts. Only those that begin with one of the protocols are read; without
// any, all are. Lines that are no counters are left out.
func SNMP6(text string, protocols ...string) Counters {
	counters := Counters{}
	for line := range strings.Lines(text) {
		name, number, ok := strings.Cut(line, "\t")
		name = strings.TrimSpace(name)
		has := func(protocol string) bool { return strings.HasPrefix(name, protocol) }
		if !ok || len(protocols) > 0 && !slices.ContainsFunc(protocols, has) {
			continue
		}
		if n, err := counter(strings.TrimSpace(number)); err == nil {
			counters[name] = n
		}
	}
	return counters
}
