package forward

import "fmt"

// String names the link type as reports print it: the name behind LINKTYPE_ at
// https://www.tcpdump.org/linktypes.html, or its number where it is not one
// that captures of networks commonly hold.
func (t LinkType) String() string {
	name, ok := map[LinkType]string{
		LinkNull: "NULL", LinkEthernet: "ETHERNET", 6: "IEEE802_5", 7: "ARCNET_BSD", 8: "SLIP", LinkPPP: "PPP",
		LinkFDDI: "FDDI", LinkRawBSD12: "RAW", LinkRawBSD14: "RAW", LinkRaw: "RAW", LinkPPPHDLC: "PPP_HDLC",
		51: "PPP_ETHER", 100: "ATM_RFC1483", 104: "C_HDLC", LinkIEEE80211: "IEEE802_11", 107: "FRELAY",
		LinkLoop: "LOOP", LinkLinuxSLL: "LINUX_SLL", 117: "PFLOG", 119: "IEEE802_11_PRISM", 122: "IP_OVER_FC",
		LinkRadiotap: "IEEE802_11_RADIOTAP", 141: "MTP2", 143: "DOCSIS", 147: "USER0", 163: "IEEE802_11_AVS",
		187: "BLUETOOTH_HCI_H4", 189: "USB_LINUX", LinkIEEE802154: "IEEE802_15_4_WITHFCS",
		201: "BLUETOOTH_HCI_H4_WITH_PHDR", 220: "USB_LINUX_MMAPPED", 227: "CAN_SOCKETCAN", LinkIPv4: "IPV4",
		LinkIPv6: "IPV6", 230: "IEEE802_15_4_NOFCS", LinkNFLOG: "NFLOG", 240: "NETANALYZER", 247: "INFINIBAND",
		249: "USBPCAP", 251: "BLUETOOTH_LE_LL", 253: "NETLINK", 258: "PKTAP", 271: "VSOCK", 272: "NORDIC_BLE",
		LinkLinuxSLL2: "LINUX_SLL2", 283: "IEEE802_15_4_TAP", 288: "USB_2_0",
	}[t]
	if !ok {
		return fmt.Sprintf("link type %d", uint16(t))
	}
	return name
}
