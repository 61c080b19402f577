package hosttune

import (
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// Of these machines the masks are known by heart; the last has holes where
// processors are offline.
func TestMasksOfOnlineProcessors(t *testing.T) {
	for _, tt := range []struct{ online, isolated, noTick, want string }{
		{online: "0", want: "1"},
		{online: "0-1\n", want: "3"},
		{online: "0-7", want: "ff"},
		{online: "0,2-3,5", want: "2d"},
		{online: "0-31", want: "ffffffff"},
		{online: "0-32", want: "1,ffffffff"},
		{online: "0-63", want: "ffffffff,ffffffff"},
		{online: "64", want: "1,00000000,00000000"},
		{online: "0-199", want: "ff,ffffffff,ffffffff,ffffffff,ffffffff,ffffffff,ffffffff"},
		{online: "0-95,104-199", want: "ff,ffffffff,ffffffff,ffffff00,ffffffff,ffffffff,ffffffff"},
		{online: "0-7", isolated: "2-3", want: "f3"},
		{online: "0-7", isolated: "2-3", noTick: "3-7", want: "3"},
		{online: "0-3", noTick: "(null)\n", want: "f"},
		{online: "0-3", isolated: "0-3", want: "f"}, // the kernel then uses all
	} {
		cpus, err := steerable(map[string]string{cpuOnline: tt.online, cpuIsolated: tt.isolated, cpuNoTick: tt.noTick})
		if err != nil || formatMask(cpus) != tt.want {
			t.Errorf("online %q, isolated %q, without tick %q: got %v, %v, want %s", tt.online, tt.isolated, tt.noTick, cpus, err, tt.want)
		}
	}
}

func TestListsThatAreNone(t *testing.T) {
	for _, list := range []string{"a", "1-", "-1", "3-1", "0-99999", "1,,2", "0x3", "1 2"} {
		if set, err := parseList(list); err == nil {
			t.Errorf("%q is taken for %v", list, set)
		}
	}
}

// What the kernel prints, it reads; so does parseMask, whatever the filling.
func TestMasksReadBack(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		set := new(big.Int)
		for range random.IntN(40) {
			set.SetBit(set, random.IntN(256), 1)
		}
		text := formatMask(set)
		for _, filled := range []string{text, "00000000," + fill(text) + "\n"} {
			if got, err := parseMask(filled); err != nil || got.Cmp(set) != 0 {
				t.Fatalf("%s reads back as %v, %v, want %x", filled, got, err, set)
			}
		}
	}
}

// fill gives the first group all its digits, as the kernel prints it.
func fill(mask string) string {
	first, rest, more := strings.Cut(mask, ",")
	first = strings.Repeat("0", 8-len(first)) + first
	if more {
		return first + "," + rest
	}
	return first
}

func FuzzMask(f *testing.F) {
	f.Add("ff,00000001")
	f.Add("0-3,8")
	f.Fuzz(func(t *testing.T, text string) {
		if set, err := parseMask(text); err == nil {
			if again, err := parseMask(formatMask(set)); err != nil || again.Cmp(set) != 0 {
				t.Errorf("%q reads as %x, that as %x, %v", text, set, again, err)
			}
		}
		if set, err := parseList(text); err == nil && set.BitLen() > maxCPU {
			t.Errorf("%q has processor %d", text, set.BitLen()-1)
		}
	})
}

func TestComparing(t *testing.T) {
	for _, tt := range []struct {
		kind          kind
		now, wanted   string
		same, fulfils bool
	}{
		{number, "212992", "33554432", false, false},
		{number, "33554432", "33554432", true, true},
		{number, "67108864", "33554432", false, true}, // never lowered
		{number, "", "1", false, false},
		{number, "4096 87380 6291456", "1", false, false},
		{mask, "0", "3", false, false},
		{mask, "00000000,00000003", "3", true, true},
		{mask, "f", "3", false, true},
		{mask, "5", "3", false, false},
		{mask, "x", "3", false, false},
		{feature, "on", "off", false, false},
		{feature, "off", "off", true, true},
	} {
		if same, fulfils := tt.kind.same(tt.now, tt.wanted), tt.kind.fulfils(tt.now, tt.wanted); same != tt.same || fulfils != tt.fulfils {
			t.Errorf("%s %q for %q: same %v, fulfils %v", tt.kind, tt.now, tt.wanted, same, fulfils)
		}
	}
}
