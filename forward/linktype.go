package forward

import "fmt"

// String names the link type as reports print it: the name behind LINKTYPE_ at
// https://www.tcpdump.org/linktypes.html, or its number where it is not one
// that captures of networks commonly hold.
func (t LinkType) String() string {
	if name, ok := t.name(); ok {
		return name
	}
	return fmt.Sprintf("link type %d", uint16(t))
}

// name is a switch, not a map: it needs no mutable state and no init.
func (t LinkType) name() (string, bool) { //nolint:gocyclo // a table
	switch t {
	case LinkNull:
		return "NULL", true
	case LinkEthernet:
		return "ETHERNET", true
	case 6:
		return "IEEE802_5", true
	case 7:
		return "ARCNET_BSD", true
	case 8:
		return "SLIP", true
	case LinkPPP:
		return "PPP", true
	case LinkFDDI:
		return "FDDI", true
	case LinkRawBSD12, LinkRawBSD14, LinkRaw:
		return "RAW", true
	case LinkPPPHDLC:
		return "PPP_HDLC", true
	case 51:
		return "PPP_ETHER", true
	case 100:
		return "ATM_RFC1483", true
	case 104:
		return "C_HDLC", true
	case LinkIEEE80211:
		return "IEEE802_11", true
	case 107:
		return "FRELAY", true
	case LinkLoop:
		return "LOOP", true
	case LinkLinuxSLL:
		return "LINUX_SLL", true
	case 117:
		return "PFLOG", true
	case 119:
		return "IEEE802_11_PRISM", true
	case 122:
		return "IP_OVER_FC", true
	case LinkRadiotap:
		return "IEEE802_11_RADIOTAP", true
	}
	return t.laterName()
}

// laterName knows the values that were given out after radiotap's.
func (t LinkType) laterName() (string, bool) { //nolint:gocyclo,funlen // a table
	switch t {
	case 141:
		return "MTP2", true
	case 143:
		return "DOCSIS", true
	case 147:
		return "USER0", true
	case 163:
		return "IEEE802_11_AVS", true
	case 187:
		return "BLUETOOTH_HCI_H4", true
	case 189:
		return "USB_LINUX", true
	case LinkIEEE802154:
		return "IEEE802_15_4_WITHFCS", true
	case 201:
		return "BLUETOOTH_HCI_H4_WITH_PHDR", true
	case 220:
		return "USB_LINUX_MMAPPED", true
	case 227:
		return "CAN_SOCKETCAN", true
	case LinkIPv4:
		return "IPV4", true
	case LinkIPv6:
		return "IPV6", true
	case 230:
		return "IEEE802_15_4_NOFCS", true
	case LinkNFLOG:
		return "NFLOG", true
	case 240:
		return "NETANALYZER", true
	case 247:
		return "INFINIBAND", true
	case 249:
		return "USBPCAP", true
	case 251:
		return "BLUETOOTH_LE_LL", true
	case 253:
		return "NETLINK", true
	case 258:
		return "PKTAP", true
	case 271:
		return "VSOCK", true
	case 272:
		return "NORDIC_BLE", true
	case LinkLinuxSLL2:
		return "LINUX_SLL2", true
	case 283:
		return "IEEE802_15_4_TAP", true
	case 288:
		return "USB_2_0", true
	}
	return "", false
}
