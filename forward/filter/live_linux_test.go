package filter

import (
	"errors"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// Of a live frame the kernel keeps the tag beside the data: the program asks for
// it there. For files it looks into the frame.
func TestLiveFiltersAskTheKernelForTags(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "tcpdump")
	const tagPresent = 0xfffff000 + 48 // SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT of linux/filter.h
	asks := func(p *Program) bool {
		for _, ins := range p.Raw() {
			if ins.K == tagPresent {
				return true
			}
		}
		return false
	}
	live, err := CompileLive(t.Context(), "vlan 100 and tcp port 80", "lo", forward.LinkEthernet)
	if err != nil {
		t.Fatal(err)
	}
	if !asks(live) {
		t.Error("the live program does not ask for the tag")
	}
	file, err := CompileLive(t.Context(), "tcp port 80", "lo", forward.LinkRaw)
	if err != nil || asks(file) {
		t.Errorf("raw IP: %v", err)
	}
	var refused *Error
	if _, err := CompileLive(t.Context(), "tcp prot 80", "lo", forward.LinkEthernet); !errors.As(err, &refused) {
		t.Errorf("a wrong expression: %v", err)
	}
}
