package encap

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Kind is a tunnel protocol.
type Kind uint8

// The tunnel protocols that monitors terminate.
const (
	VXLAN  Kind = iota // RFC 7348
	GENEVE             // RFC 8926
)

// String names the protocol as flags and reports write it: "vxlan", "geneve".
func (k Kind) String() string {
	switch k {
	case VXLAN:
		return "vxlan"
	case GENEVE:
		return "geneve"
	}
	return fmt.Sprintf("encapsulation %d", uint8(k))
}

// ParseKind is the inverse of [Kind.String]; case does not matter.
func ParseKind(s string) (Kind, error) {
	for _, k := range []Kind{VXLAN, GENEVE} {
		if strings.EqualFold(s, k.String()) {
			return k, nil
		}
	}
	return 0, fmt.Errorf("parse encapsulation %q: must be vxlan or geneve", s)
}

// Port is the protocol's UDP destination port as IANA assigned it: 4789 for
// VXLAN (RFC 7348 section 8), 6081 for GENEVE (RFC 8926 section 3.3).
func (k Kind) Port() uint16 {
	if k == GENEVE {
		return 6081
	}
	return 4789
}

// ZeroChecksum reports whether the outer UDP checksum is to be sent as zero,
// that is, not computed:
//
//   - VXLAN over IPv4: "SHOULD be transmitted as zero" (RFC 7348 section 5).
//   - GENEVE over IPv4: "SHOULD be generated" (RFC 8926 section 3.3), so it is.
//   - Either over IPv6: computed. RFC 7348 gives no exception from RFC 8200
//     section 8.1, and the one of RFC 8926 section 4.3.1 has conditions (RFC
//     6936) that a sender cannot check for the receiver.
func (k Kind) ZeroChecksum(ipv6 bool) bool { return k == VXLAN && !ipv6 }

// Limits and defaults of [Config].
const (
	MaxVNI             = 1<<24 - 1 // a VNI has 24 bits
	DefaultMTU         = 1500      // Ethernet's
	DefaultMaxDatagram = 65507     // 65 535 less an IPv4 and a UDP header
	DefaultPortMin     = 49152     // the dynamic ports, as RFC 7348 section 5
	DefaultPortMax     = 65535     // and RFC 8926 section 3.3 recommend

	minMTU         = 68    // RFC 791 section 3.2: what every IPv4 link carries
	minMaxDatagram = 576   // what every IPv4 host takes; leaves room for all headers
	maxMaxDatagram = 65527 // 65 535 less a UDP header: IPv6 does not count its own
)

// Config says how frames are encapsulated. Its zero value is VXLAN with VNI 0
// and all the defaults.
type Config struct {
	Kind Kind

	// Port is the UDP destination port that goes with this configuration, 0
	// for the protocol's own. Only whoever writes the outer headers uses it;
	// see DestinationPort.
	Port uint16

	// VNI is the virtual network identifier, 0 to MaxVNI. With VNIPerLoop it
	// is that of the first loop, and each further one (Frame.Loop) takes the
	// next, wrapping from MaxVNI to 1: a VNI of 0 is never made, so the first
	// must not be 0 either.
	VNI        uint32
	VNIPerLoop bool

	// Options follow the GENEVE header in this order. VXLAN has none.
	Options []Option

	// RawIP sends the inner IP packet without an Ethernet header, GENEVE
	// protocol type 0x0800 or 0x86dd, as AWS's and Google's services do. Zeek's
	// own GENEVE source expects Ethernet whatever the protocol type says, unless
	// it listens with dlt=raw. Frames without an IP packet (VLAN tags are
	// looked through) are refused as forward.SkippedNoPacket.
	RawIP bool

	// InVXLAN puts the frame into VXLAN, that into UDP over IPv4, and that without
	// Ethernet into GENEVE, as a VPC mirror session does whose target is a Gateway
	// Load Balancer endpoint; Zeek calls it geneve+vxlan. The VNI is VXLAN's, that
	// of GENEVE is 0. VXLAN's addresses are those of RFC 5737, its destination port
	// is 4789, and its source port that of the datagram.
	InVXLAN bool

	// MTU is the size of the IP packets that a TCP super-frame is cut into, in
	// bytes; 0 means DefaultMTU. It is lowered silently where such a packet
	// would not fit MaxDatagram.
	MTU int

	// ResegmentAll cuts every TCP packet larger than MTU, not only those that
	// MaxDatagram does not let through: what a capturing interface with GRO or
	// TSO saw becomes what was on the wire.
	ResegmentAll bool

	// FixChecksums computes the checksums of IP, TCP, UDP, ICMP, ICMPv6 and GRE that
	// the capturing host had left to its network card, also in packets within tunnels,
	// and anew those of a tunnel that were right over what is inside. Others that are
	// wrong stay so.
	FixChecksums bool

	// MaxDatagram is the largest UDP payload that may be sent, tunnel header
	// included, in bytes; 0 means DefaultMaxDatagram. Lower it to what the
	// receiver takes.
	MaxDatagram int

	// PadCut fills frames that the capture cut (snap length) with zeros to
	// their recorded length, as far as MaxDatagram lets them.
	PadCut bool

	// PortMin and PortMax bound the source ports, inclusive; both 0 means
	// DefaultPortMin and DefaultPortMax. Equal values fix the port, and with
	// it the monitor's worker.
	PortMin, PortMax uint16
}

// DestinationPort is Port, or the protocol's own where Port is 0.
func (c Config) DestinationPort() uint16 {
	if c.Port != 0 {
		return c.Port
	}
	return c.Kind.Port()
}

// HeaderLen is the length of what stands before the inner frame in a datagram, in
// bytes: the tunnel header with its options, and with InVXLAN three headers more.
func (c Config) HeaderLen() int {
	n := baseHeaderLen + c.optionsLen()
	if c.InVXLAN {
		n += sessionLen
	}
	return n
}

// optionsLen is the length of the GENEVE options, in bytes.
func (c Config) optionsLen() (n int) {
	for _, o := range c.Options {
		n += o.Len()
	}
	return n
}

// withDefaults replaces zero values.
func (c Config) withDefaults() Config {
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.MaxDatagram == 0 {
		c.MaxDatagram = DefaultMaxDatagram
	}
	if c.PortMin == 0 && c.PortMax == 0 {
		c.PortMin, c.PortMax = DefaultPortMin, DefaultPortMax
	}
	return c
}

// validate reports everything that is wrong with c, defaults already applied.
func (c Config) validate() error {
	return errors.Join(c.validateTunnel(), c.validateSizes(), c.validatePorts())
}

func (c Config) validateTunnel() error {
	switch {
	case c.Kind > GENEVE:
		return fmt.Errorf("unknown %v", c.Kind)
	case c.VNI > MaxVNI:
		return fmt.Errorf("VNI %d does not fit 24 bits (at most %d)", c.VNI, MaxVNI)
	case c.VNIPerLoop && c.VNI == 0:
		return errors.New("a VNI per loop must start at 1 or more")
	case c.Kind == VXLAN && len(c.Options) > 0:
		return errors.New("VXLAN has no options; GENEVE has")
	case c.Kind == VXLAN && c.RawIP:
		return errors.New("VXLAN carries Ethernet only; raw IP needs GENEVE")
	case c.Kind == VXLAN && c.InVXLAN:
		return errors.New("VXLAN goes into GENEVE only, not into VXLAN")
	case c.InVXLAN && c.RawIP:
		return errors.New("VXLAN within GENEVE carries Ethernet only, no raw IP")
	}
	return validateOptions(c.Options)
}

func (c Config) validateSizes() error {
	switch {
	case c.MTU < minMTU || c.MTU > math.MaxUint16:
		return fmt.Errorf("MTU %d is not within %d to %d", c.MTU, minMTU, math.MaxUint16)
	case c.MaxDatagram < minMaxDatagram || c.MaxDatagram > maxMaxDatagram:
		return fmt.Errorf("largest datagram %d is not within %d to %d", c.MaxDatagram, minMaxDatagram, maxMaxDatagram)
	}
	return nil
}

func (c Config) validatePorts() error {
	switch {
	case c.PortMin == 0:
		return errors.New("source port 0 cannot be used")
	case c.PortMin > c.PortMax:
		return fmt.Errorf("source port range %d-%d is empty", c.PortMin, c.PortMax)
	}
	return nil
}

var _ forward.Encapsulator = (*Encapsulator)(nil)
