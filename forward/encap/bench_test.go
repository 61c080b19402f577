package encap

import (
	"net/netip"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Run with: go test -run '^$' -bench . -benchmem ./forward/encap

func benchmarkEncapsulate(b *testing.B, c Config, lt forward.LinkType, data []byte) {
	e, err := New(c)
	if err != nil {
		b.Fatal(err)
	}
	f := forward.Frame{Data: data, Length: len(data), LinkType: lt}
	batch := forward.Batch{Buf: make([]byte, 0, 1<<20), Datagrams: make([]forward.Datagram, 0, 2048)}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i&63 == 0 {
			batch.Reset()
		}
		if out := e.Encapsulate(&batch, &f); out.Refusal != forward.RefusedNot {
			b.Fatal(out)
		}
	}
}

func BenchmarkEncapsulate(b *testing.B) {
	gwlb, _ := Preset("aws-gwlb")
	gwlb.RawIP = false
	tcp4 := tcp4Frame(350-54, 1)
	tcp6 := tcp6Frame(350-74, 1)
	b.Run("vxlan/ipv4", func(b *testing.B) { benchmarkEncapsulate(b, Config{VNI: 1}, forward.LinkEthernet, tcp4) })
	b.Run("vxlan/ipv6", func(b *testing.B) { benchmarkEncapsulate(b, Config{VNI: 1}, forward.LinkEthernet, tcp6) })
	b.Run("vxlan/vlan", func(b *testing.B) {
		benchmarkEncapsulate(b, Config{VNI: 1}, forward.LinkEthernet, vlanTag(tcp4, 7))
	})
	b.Run("vxlan/udp", func(b *testing.B) {
		frame := ether(1, 2, 0x0800, ip4(1, 200, 17, 0x4000, udp(50000, 443, payloadBytes(350-42))))
		benchmarkEncapsulate(b, Config{VNI: 1}, forward.LinkEthernet, with(frame, 40, 0x12, 0x34))
	})
	b.Run("vxlan/tunnel", func(b *testing.B) {
		benchmarkEncapsulate(b, Config{VNI: 1}, forward.LinkEthernet, nestings()["vxlan"](1, 2, tcp4))
	})
	b.Run("vxlan/fixed", func(b *testing.B) {
		benchmarkEncapsulate(b, Config{VNI: 1, FixChecksums: true}, forward.LinkEthernet, unfinishedFrames()[0].frame)
	})
	b.Run("geneve/ipv4", func(b *testing.B) { benchmarkEncapsulate(b, gwlb, forward.LinkEthernet, tcp4) })
	b.Run("vxlan/raw", func(b *testing.B) { benchmarkEncapsulate(b, Config{VNI: 1}, forward.LinkRaw, tcp4[14:]) })
	b.Run("vxlan/super", func(b *testing.B) {
		benchmarkEncapsulate(b, Config{VNI: 1, ResegmentAll: true}, forward.LinkEthernet, tcp4Frame(64000, 1))
	})
}

func BenchmarkFlowHash(b *testing.B) {
	for name, frame := range map[string][]byte{
		"ipv4": tcp4Frame(100, 1), "ipv6": tcp6Frame(100, 1), "vlan": vlanTag(tcp4Frame(100, 1), 7),
	} {
		b.Run(name, func(b *testing.B) {
			var h uint64
			for b.Loop() {
				h += flowHash(frame)
			}
			_ = h
		})
	}
}

func BenchmarkOuter(b *testing.B) {
	payload := make([]byte, 358)
	hdr := make([]byte, OuterLen6)
	for name, c := range map[string]OuterConfig{
		"vxlan4":  {Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")},
		"geneve4": {Kind: GENEVE, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")},
		"vxlan6":  {Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2")},
	} {
		o, err := NewOuter(c)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/full", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				o.Put(hdr, payload, 50000)
			}
		})
		b.Run(name+"/partial", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				o.PutPartial(hdr, len(payload), 50000)
			}
		})
	}
}
