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
	what := LinkTypeName(links[0])
	if !strings.HasPrefix(what, "link type ") {
		what = "link type " + what
	}
	return fmt.Errorf("%s is none of those that are normalised to Ethernet here", what)
}

// LinkForm is a link type that frames can have.
type LinkForm struct {
	Link forward.LinkType
	What string // whose captures have it, and what is taken of them
	// AsCaptured says that filters are compiled for the link type itself and see the
	// frame as captured. They see the Ethernet form where tcpdump cannot do that.
	AsCaptured bool
}

// LinkForms lists all link types that are supported, by number. The README's table is
// made of it.
func LinkForms() []LinkForm {
	return []LinkForm{
		{forward.LinkNull, "BSD loopback: address family, IP", true},
		{forward.LinkEthernet, "Ethernet, as it is", true},
		{forward.LinkIEEE8025, "token ring with LLC, source routing left out", true},
		{forward.LinkSLIP, "SLIP without header compression", false},
		{forward.LinkPPP, "PPP, with or without ff 03; Cisco HDLC", true},
		{forward.LinkFDDI, "FDDI with LLC", true},
		{forward.LinkRawBSD12, "raw IP", true},
		{forward.LinkRawBSD14, "raw IP", false},
		{forward.LinkOldPFLOG, "pflog of OpenBSD before 3.4", false},
		{forward.LinkPPPHDLC, "PPP in HDLC-like framing; Cisco HDLC", true},
		{forward.LinkPPPEther, "PPPoE sessions", true},
		{forward.LinkATM, "ATM with LLC (RFC 2684)", true},
		{forward.LinkRaw, "raw IP", true},
		{forward.LinkCHDLC, "Cisco HDLC", true},
		{forward.LinkIEEE80211, "802.11: data frames in the clear, A-MSDUs taken apart", true},
		{forward.LinkFrameRelay, "Frame Relay: RFC 2427 and Cisco's framing", false},
		{forward.LinkLoop, "OpenBSD loopback", true},
		{forward.LinkENC, "OpenBSD's and FreeBSD's enc: IP before and after IPsec", true},
		{forward.LinkLinuxSLL, "Linux cooked v1; Ethernet, 802.11 and Frame Relay in it", true},
		{forward.LinkPFLOG, "pflog of OpenBSD, FreeBSD, NetBSD and macOS", true},
		{forward.LinkPrism, "802.11 behind a Prism or AVS header", true},
		{forward.LinkIPOverFC, "IP over Fibre Channel", true},
		{forward.LinkRadiotap, "802.11 behind a radiotap header", true},
		{forward.LinkFireWire, "IP over IEEE 1394 of macOS", true},
		{forward.LinkAVS, "802.11 behind an AVS header", true},
		{forward.LinkPPPD, "PPP of pppd, with direction", false},
		{forward.LinkPPI, "PPI: any of these inside", false},
		{forward.LinkERF, "Endace ERF: Ethernet, IP, PPP and Cisco HDLC records", false},
		{forward.LinkPPPDirection, "PPP with direction", false},
		{forward.LinkCHDLCDirection, "Cisco HDLC with direction", false},
		{forward.LinkFrameRelayDirection, "Frame Relay with direction", false},
		{forward.LinkIPNET, "Solaris IPNET", true},
		{forward.LinkIPv4, "raw IPv4", true},
		{forward.LinkIPv6, "raw IPv6", true},
		{forward.LinkNFLOG, "Linux netfilter log", false},
		{forward.LinkNetAnalyzer, "netANALYZER: Ethernet with its frame check sequence", false},
		{forward.LinkIPoIB, "IP over InfiniBand", false},
		{forward.LinkPKTAP, "PKTAP of macOS: any of these inside", false},
		{forward.LinkLinuxSLL2, "Linux cooked v2; Ethernet, 802.11 and Frame Relay in it", true},
	}
}

// Form makes the Ethernet forms of frames, one after the other, in memory of its own.
// Its zero value is ready; it is not safe for concurrent use.
type Form struct{ e Encapsulator }

// Of returns the Ethernet frame that f becomes, the first one of an A-MSDU, and the
// bytes it had on the wire; ok is false where it becomes none. It is valid until the
// next call.
func (m *Form) Of(f *forward.Frame) (frame []byte, length int, ok bool) {
	if m.e.normalise(f) != forward.RefusedNot {
		return nil, 0, false
	}
	return m.e.whole(), m.e.inner.length, true
}
