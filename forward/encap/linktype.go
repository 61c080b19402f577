package encap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Supported reports whether frames of the link type have an Ethernet form.
// Those of all others are refused as forward.RefusedLinkType.
func Supported(lt forward.LinkType) bool {
	return lt == forward.LinkEthernet || normaliserOf(lt) != nil
}

// LinkTypeName names a link type with its number, as refusals print it:
// "IEEE802_15_4_WITHFCS (195)", or "link type 147" where it has no name.
func LinkTypeName(lt forward.LinkType) string {
	number := fmt.Sprint(uint16(lt))
	if name := lt.String(); !strings.HasSuffix(name, number) {
		return name + " (" + number + ")"
	}
	return "link type " + number
}

// CheckLinkTypes fails where nothing of a capture with these link types could
// pass: that shows before anything is sent. Where some of it can, the rest is
// refused frame by frame. A pcapng without interfaces has no frames either.
func CheckLinkTypes(links []forward.LinkType) error {
	if len(links) == 0 || slices.ContainsFunc(links, Supported) {
		return nil
	}
	return fmt.Errorf("link type %s carries no network packets that Ethernet could carry", LinkTypeName(links[0]))
}
