package encap

import (
	"errors"
	"fmt"
	"strings"
)

// Option classes that IANA assigned
// (https://www.iana.org/assignments/nvo3/nvo3.xhtml#geneve-option-class).
const (
	classAWS    = 0x0108
	classGoogle = 0x0132
)

// Presets lists the names that [Preset] knows.
func Presets() []string {
	return []string{"aws-mirror", "aws-gwlb", "aws-mirror-gwlb", "gcp-nsi", "azure-vtap"}
}

// Preset returns the configuration that makes datagrams look as a cloud's
// mirroring service makes them:
//
//   - aws-mirror, VPC Traffic Mirroring: VXLAN to port 4789, a VNI chosen per
//     session, whole Ethernet frames; the source port is a hash of the 5-tuple,
//     of the 3-tuple for what is neither ICMP, TCP nor UDP.
//     https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-packet-formats.html
//     The service cuts mirrored packets to the target's MTU; this does not.
//     Whether its hash is symmetric and over which ports is not documented.
//   - aws-gwlb, Gateway Load Balancer: GENEVE to port 6081, VNI 0, bare IP packets
//     (protocol type 0x0800 or 0x86dd; Amazon's own handler refuses others), over
//     IPv4 in any case, options of class 0x0108: type 1, 64 bits, the endpoint; type 2, 64 bits, the
//     attachment; type 3, 32 bits, a cookie per flow. The headers take 68 bytes
//     with IPv4 and UDP.
//     https://aws.amazon.com/blogs/networking-and-content-delivery/integrate-your-custom-logic-or-appliance-with-aws-gateway-load-balancer/,
//     github.com/aws-samples/aws-gateway-load-balancer-tunnel-handler: GenevePacket.cpp,
//     https://docs.aws.amazon.com/elasticloadbalancing/latest/gateway/gateway-load-balancers.html
//     The cookie here is the same for all flows.
//   - aws-mirror-gwlb, VPC Traffic Mirroring to a Gateway Load Balancer endpoint: what
//     aws-mirror sends, UDP over IPv4 and VXLAN with the session's VNI, is in GENEVE
//     what aws-gwlb carries.
//     https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-packet-formats.html
//     ("both outer GENEVE encapsulation and an inner VXLAN encapsulation")
//   - gcp-nsi, Google Cloud Network Security Integration (out-of-band and
//     in-band): GENEVE to port 6081, VNI 0 (the service does not fill it in), bare IP
//     packets (no protocol type but 0x0800 and 0x86dd), options of class 0x0132: type 1, 28
//     bits of network, 4 of flags (the last is the direction: 0 ingress, 1
//     egress, seen from the mirrored machine); type 2, 128 bits, the capturing
//     interface; type 3, 64 bits, the security profile group. The source port is
//     a hash, the same for both directions, "over the entire 16-bit range"; here
//     without the privileged ports, which an ordinary user cannot bind.
//     https://cloud.google.com/network-security-integration/docs/understand-geneve
//     The direction here is always ingress: a capture does not tell it.
//   - azure-vtap, Azure virtual network TAP: VXLAN to port 4789 ("this cannot be
//     changed"), whole Ethernet frames.
//     https://learn.microsoft.com/azure/virtual-network/virtual-network-tap-overview,
//     https://techcommunity.microsoft.com/blog/azurenetworkingblog/a-demonstration-of-virtual-network-tap/4479136
//     Which VNI it uses is documented nowhere we know of.
//
// What the identifiers in the options mean only the cloud knows; they are zero
// here, and [Config.SetOption] replaces them. How aws-gwlb and azure-vtap choose
// the source port we found documented nowhere. Where the range is not known, the
// default one is used.
//
// What the GENEVE services send is not what a Zeek takes that listens for Ethernet: its
// listener ignores the protocol type, and what is inside is fixed with its address:
// udp::0.0.0.0:6081:geneve:dlt=raw takes what aws-gwlb and gcp-nsi send, and
// udp::0.0.0.0:6081:geneve+vxlan what aws-mirror-gwlb sends
// (github.com/zeek/zeek-packet-source-udp: src/packet_source_options.cc). With
// Config.RawIP false the tunnel header stays, and the frames in it are Ethernet.
func Preset(name string) (Config, error) {
	switch name {
	case "aws-mirror", "azure-vtap":
		return Config{Kind: VXLAN, Port: 4789}, nil
	case "aws-gwlb", "aws-mirror-gwlb":
		mirror := name == "aws-mirror-gwlb"
		return Config{Kind: GENEVE, Port: 6081, RawIP: !mirror, InVXLAN: mirror, Options: []Option{
			{Class: classAWS, Type: 1, Data: make([]byte, 8)},
			{Class: classAWS, Type: 2, Data: make([]byte, 8)},
			{Class: classAWS, Type: 3, Data: make([]byte, 4)},
		}}, nil
	case "gcp-nsi":
		return Config{Kind: GENEVE, Port: 6081, RawIP: true, PortMin: 1024, PortMax: 65535, Options: []Option{
			{Class: classGoogle, Type: 1, Data: make([]byte, 4)},
			{Class: classGoogle, Type: 2, Data: make([]byte, 16)},
			{Class: classGoogle, Type: 3, Data: make([]byte, 8)},
		}}, nil
	case "":
		return Config{}, errors.New("find preset: no name given; known are " + strings.Join(Presets(), ", "))
	}
	return Config{}, fmt.Errorf("find preset %q: known are %s", name, strings.Join(Presets(), ", "))
}

// SetOption replaces the option of the same class and type, or adds o where
// there is none.
func (c *Config) SetOption(o Option) {
	for i, old := range c.Options {
		if old.Class == o.Class && old.Type == o.Type {
			c.Options[i] = o
			return
		}
	}
	c.Options = append(c.Options, o)
}
