package forward

import "fmt"

// Further link types that package encap normalises to Ethernet: headers that are only
// stepped over.
const (
	LinkIEEE8025            LinkType = 6   // IEEE 802.5 token ring
	LinkSLIP                LinkType = 8   // SLIP, with a header of 16 bytes
	LinkOldPFLOG            LinkType = 17  // OpenBSD's pflog before 3.4
	LinkPPPEther            LinkType = 51  // PPPoE session
	LinkATM                 LinkType = 100 // RFC 2684 LLC
	LinkCHDLC               LinkType = 104 // Cisco HDLC
	LinkFrameRelay          LinkType = 107 // Frame Relay
	LinkENC                 LinkType = 109 // IPsec of OpenBSD, FreeBSD
	LinkPFLOG               LinkType = 117 // OpenBSD packet filter log
	LinkPrism               LinkType = 119 // Prism or AVS header, then IEEE 802.11
	LinkIPOverFC            LinkType = 122 // RFC 2625
	LinkFireWire            LinkType = 138 // IP over IEEE 1394 of macOS
	LinkAVS                 LinkType = 163 // AVS header, then IEEE 802.11
	LinkPPPD                LinkType = 166 // PPP with direction, of pppd
	LinkPPI                 LinkType = 192 // per-packet information, another link type inside
	LinkERF                 LinkType = 197 // Endace extensible record format
	LinkPPPDirection        LinkType = 204 // direction, then PPP
	LinkCHDLCDirection      LinkType = 205 // direction, then Cisco HDLC
	LinkFrameRelayDirection LinkType = 206 // direction, then Frame Relay
	LinkIPNET               LinkType = 226 // Solaris ipnet
	LinkNetAnalyzer         LinkType = 240 // Hilscher netANALYZER
	LinkIPoIB               LinkType = 242 // IP over InfiniBand
	LinkPKTAP               LinkType = 258 // Apple's pktap, another link type inside
)

// String names the link type as reports print it: the name behind LINKTYPE_ at
// https://www.tcpdump.org/linktypes.html, or its number where it is not one
// that captures of networks commonly hold.
func (t LinkType) String() string {
	name, ok := map[LinkType]string{
		LinkNull: "NULL", LinkEthernet: "ETHERNET", LinkIEEE8025: "IEEE802_5", 7: "ARCNET_BSD", LinkSLIP: "SLIP", LinkPPP: "PPP",
		LinkFDDI: "FDDI", LinkRawBSD12: "RAW", LinkRawBSD14: "RAW", LinkOldPFLOG: "OLD_PFLOG", LinkRaw: "RAW", LinkPPPHDLC: "PPP_HDLC",
		LinkPPPEther: "PPP_ETHER", LinkATM: "ATM_RFC1483", LinkCHDLC: "C_HDLC", LinkIEEE80211: "IEEE802_11", LinkFrameRelay: "FRELAY",
		LinkLoop: "LOOP", LinkENC: "ENC", LinkLinuxSLL: "LINUX_SLL", LinkPFLOG: "PFLOG", LinkPrism: "IEEE802_11_PRISM", LinkIPOverFC: "IP_OVER_FC",
		LinkRadiotap: "IEEE802_11_RADIOTAP", LinkFireWire: "APPLE_IP_OVER_IEEE1394", 141: "MTP2", 143: "DOCSIS", 147: "USER0", LinkAVS: "IEEE802_11_AVS",
		LinkPPPD: "PPP_PPPD", 187: "BLUETOOTH_HCI_H4", 189: "USB_LINUX", LinkPPI: "PPI", LinkIEEE802154: "IEEE802_15_4_WITHFCS", LinkERF: "ERF",
		201: "BLUETOOTH_HCI_H4_WITH_PHDR", LinkPPPDirection: "PPP_WITH_DIR", LinkCHDLCDirection: "C_HDLC_WITH_DIR", LinkFrameRelayDirection: "FRELAY_WITH_DIR",
		220: "USB_LINUX_MMAPPED", LinkIPNET: "IPNET", 227: "CAN_SOCKETCAN", LinkIPv4: "IPV4",
		LinkIPv6: "IPV6", 230: "IEEE802_15_4_NOFCS", LinkNFLOG: "NFLOG", LinkNetAnalyzer: "NETANALYZER", LinkIPoIB: "IPOIB", 247: "INFINIBAND",
		249: "USBPCAP", 251: "BLUETOOTH_LE_LL", 253: "NETLINK", LinkPKTAP: "PKTAP", 271: "VSOCK", 272: "NORDIC_BLE",
		LinkLinuxSLL2: "LINUX_SLL2", 283: "IEEE802_15_4_TAP", 288: "USB_2_0",
	}[t]
	if !ok {
		return fmt.Sprintf("link type %d", uint16(t))
	}
	return name
}
