package procfs

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n"

// A sensor on two networks, as a little-endian kernel prints it and a big-endian
// one does.
const (
	routesLittle = heading +
		"eth1\t00000000\t010013AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n" +
		"eth1\t000013AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
	routesBig = heading +
		"eth1\t00000000\tAC130001\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\tAC120000\t00000000\t0001\t0\t0\t0\tFFFF0000\t0\t0\t0\n" +
		"eth1\tAC130000\t00000000\t0001\t0\t0\t0\tFFFF0000\t0\t0\t0\n"
)

func TestRoutesInEitherByteOrder(t *testing.T) {
	none := netip.IPv4Unspecified()
	want := []Route{
		{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("172.19.0.1"), "eth1", 3},
		{netip.MustParsePrefix("172.18.0.0/16"), none, "eth0", 1},
		{netip.MustParsePrefix("172.19.0.0/16"), none, "eth1", 1},
	}
	for text, order := range map[string]binary.ByteOrder{routesLittle: binary.LittleEndian, routesBig: binary.BigEndian} {
		if got := routes(text, order); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v\nwant %+v", order, got, want)
		}
	}
	// Of the other machine's routes nothing is believed that is not the same in
	// both orders.
	for text, order := range map[string]binary.ByteOrder{routesLittle: binary.BigEndian, routesBig: binary.LittleEndian} {
		if got := routes(text, order); len(got) != 1 || got[0].To != want[0].To {
			t.Errorf("read as %s: %+v", order, got)
		}
	}
}

func TestRoutesThatAreNone(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                  "",
		"the heading":              heading,
		"cut":                      "eth0\t000012AC\t00000000\t0001\t0\t0\t0\n",
		"a name alone":             "eth1\n",
		"no numbers":               "eth1 x 00000000 1 2 3 4 y\n",
		"an address of IPv6":       "eth0 00000000000000000000000000000000 00000000 0001 0 0 0 0000FFFF 0 0 0\n",
		"a mask of IPv6":           "eth0 000012AC 00000000 0001 0 0 0 00000000000000000000000000000000 0 0 0\n",
		"a mask with a hole in it": "eth0 000012AC 00000000 0001 0 0 0 00FF00FF 0 0 0\n",
		"flags that are none":      "eth0 000012AC 00000000 xyz 0 0 0 0000FFFF 0 0 0\n",
	} {
		if got := routes(text, binary.LittleEndian); len(got) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestOnLink(t *testing.T) {
	const nested = routesLittle +
		"tun0\t000010AC\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0\n" + // 172.16.0.0/12
		"eth2\t0007000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" + // 10.0.7.0/24
		"*\t0907000A\t00000000\t0205\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n" + // unreachable 10.0.7.9
		"eth2\t0000A8C0\t0107000A\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n" + // 192.168.0.0/16 via 10.0.7.1
		"eth3\t000064C6\t00000000\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n" + // 198.100.0.0/16 via inet6
		"wg0\t00000000\t00000000\t0001\t0\t0\t9\t00000000\t0\t0\t0\n" // default dev wg0
	list := routes(nested, binary.LittleEndian)
	reversed := slices.Clone(list)
	slices.Reverse(reversed)
	for address, want := range map[string]string{
		"172.18.0.2":        "eth0",
		"::ffff:172.18.0.2": "eth0",
		"172.19.0.2":        "eth1", // the more specific one, whichever comes first
		"172.20.0.2":        "tun0",
		"10.0.7.1":          "eth2",
		"10.0.7.9":          "eth2", // what is unreachable has no device
		"192.168.1.1":       "",     // behind a gateway
		"198.100.0.1":       "",     // behind one of IPv6
		"8.8.8.8":           "",     // a default route is no network
		"fd00::1":           "",
	} {
		for _, l := range [][]Route{list, reversed} {
			if got := OnLink(l, netip.MustParseAddr(address)); got != want {
				t.Errorf("%s is on %q, want %q", address, got, want)
			}
		}
	}
	if got := OnLink(list, netip.Addr{}); got != "" {
		t.Errorf("no address is on %q", got)
	}
}

// What the kernel prints of a route, by the format of fib_route_seq_show, is
// read back, on machines of either byte order.
func FuzzRoutes(f *testing.F) {
	f.Add(uint32(0xac120000), uint32(0), uint16(1), uint8(16), "eth0", false)
	f.Add(uint32(0), uint32(0xac120001), uint16(3), uint8(0), "eth0", true)
	f.Fuzz(func(t *testing.T, to, gateway uint32, flags uint16, length uint8, device string, big bool) {
		length %= 33
		if name := strings.Fields(device); len(name) != 1 || name[0] != device {
			t.Skip() // dev_valid_name
		}
		order := eitherOrder(big)
		at := func(n uint32) netip.Addr { return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n))) }
		mask := at(uint32(uint64(0xffffffff) << (32 - length)))
		line := fmt.Sprintf("%s\t%s\t%s\t%04X\t%d\t%d\t%d\t%s\t%d\t%d\t%d", device, asWords(at(to), order), asWords(at(gateway), order),
			flags, 0, 0, 100, asWords(mask, order), 0, 0, 0)
		want := Route{netip.PrefixFrom(at(to), int(length)), at(gateway), device, flags}
		if got := routes(heading+line+"\n", order); len(got) != 1 || got[0] != want {
			t.Errorf("%q:\n%+v\nwant %+v", line, got, want)
		}
	})
}

const trie = `Main:
  +-- 0.0.0.0/0 3 0 4
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 10.244.1.5
        /32 link UNICAST
     +-- 172.17.0.0/16 2 0 2
        +-- 172.17.0.0/31 1 0 0
           |-- 172.17.0.0
              /16 link UNICAST
           |-- 172.17.0.1
              /32 host LOCAL
        |-- 172.17.255.255
           /32 link BROADCAST
Local:
  +-- 0.0.0.0/0 3 0 4
           |-- 127.0.0.1
              /32 host LOCAL
`

// A namespace's own addresses, each once, and no others that look alike.
func TestLocalAddresses(t *testing.T) {
	want := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("172.17.0.1")}
	if got := LocalAddresses(trie); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, text := range []string{"", "|-- x\n/32 host LOCAL\n", "/32 host LOCAL\n", "|-- 10.0.0.1\n/32\n"} {
		if got := LocalAddresses(text); len(got) != 0 {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestAddresses6(t *testing.T) {
	const text = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n" +
		"00000000000000000000000000000001 01 80 10 80       lo\n" +
		"fd000000000000000000000000000002 104 40 00 82 enp193s0f0np0\n"
	want := []Address6{{netip.MustParsePrefix("fe80::fc:ff:fe00:1/64"), "eth0"}, {netip.MustParsePrefix("::1/128"), "lo"}, {netip.MustParsePrefix("fd00::2/64"), "enp193s0f0np0"}}
	if got := Addresses6(text); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, text := range []string{"", "fe80 04 40 20 80 eth0\n", "fe8000000000000000fc00fffe000001 04 81 20 80 eth0\n", "fe8000000000000000fc00fffe000001 04 40\n"} {
		if got := Addresses6(text); len(got) != 0 {
			t.Errorf("%q: %v", text, got)
		}
	}
}
