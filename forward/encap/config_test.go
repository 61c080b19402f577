package encap

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
)

func TestKind(t *testing.T) {
	for _, k := range []Kind{VXLAN, GENEVE} {
		if got, err := ParseKind(strings.ToUpper(k.String())); err != nil || got != k {
			t.Errorf("ParseKind(%v) = %v, %v", k, got, err)
		}
	}
	if _, err := ParseKind("gre"); err == nil {
		t.Error("ParseKind(gre) passed")
	}
	if VXLAN.Port() != 4789 || GENEVE.Port() != 6081 {
		t.Errorf("ports %d, %d", VXLAN.Port(), GENEVE.Port())
	}
}

func TestNewRefuses(t *testing.T) {
	option := Option{Class: 0x0108, Type: 1, Data: make([]byte, 124)}
	for want, c := range map[string]Config{
		"unknown":                {Kind: 7},
		"24 bits":                {VNI: 1 << 24},
		"start at 1":             {VNIPerLoop: true},
		"VXLAN has no options":   {Options: []Option{option}},
		"needs GENEVE":           {RawIP: true},
		"into GENEVE only":       {InVXLAN: true},
		"no raw IP":              {Kind: GENEVE, InVXLAN: true, RawIP: true},
		"multiple of 4":          {Kind: GENEVE, Options: []Option{{Data: make([]byte, 3)}}},
		"at most 124":            {Kind: GENEVE, Options: []Option{{Data: make([]byte, 128)}}},
		"at most 252":            {Kind: GENEVE, Options: []Option{option, option}},
		"MTU 67":                 {MTU: 67},
		"MTU 65536":              {MTU: 65536},
		"largest datagram 65528": {MaxDatagram: 65528},
		"largest datagram 100":   {MaxDatagram: 100},
		"source port 0":          {PortMax: 5},
		"range 9-8 is empty":     {PortMin: 9, PortMax: 8},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%+v) = %v, want an error with %q", c, err, want)
		}
	}
}

func TestDefaults(t *testing.T) {
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := e.Config()
	if c.MTU != 1500 || c.MaxDatagram != 65507 || c.PortMin != 49152 || c.PortMax != 65535 || c.DestinationPort() != 4789 {
		t.Errorf("defaults are %+v", c)
	}
}

func TestHeaders(t *testing.T) {
	critical, err := ParseOption("0102:85:0a0b0c0d")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		c    Config
		want string
	}{
		{"vxlan", Config{VNI: 0x123456}, "0800000012345600"},
		{"geneve", Config{Kind: GENEVE, VNI: 0x123456}, "0000655812345600"},
		{"geneve, critical option", Config{Kind: GENEVE, VNI: 1, Options: []Option{{Class: 0x0108, Type: 3}, critical}},
			"0340655800000100" + "01080300" + "01028501" + "0a0b0c0d"},
	} {
		e, err := New(tt.c)
		if err != nil {
			t.Fatal(err)
		}
		var b forward.Batch
		frame := tcp4Frame(10, 1)
		out := e.Encapsulate(&b, &forward.Frame{Data: frame, Length: len(frame), LinkType: forward.LinkEthernet, Time: 42})
		want, _ := hex.DecodeString(tt.want)
		if got := b.Payload(0); !bytes.Equal(got, append(want, frame...)) {
			t.Errorf("%s: payload %x, want header %x and the frame", tt.name, got, want)
		}
		if out != (forward.Outcome{Inner: len(frame)}) || b.Datagrams[0].Time != 42 {
			t.Errorf("%s: outcome %+v, datagram %+v", tt.name, out, b.Datagrams[0])
		}
	}
}

func TestVNIPerLoop(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		loop int
		want uint32
	}{
		{Config{VNI: 7}, 5, 7},
		{Config{VNI: 7, VNIPerLoop: true}, 0, 7},
		{Config{VNI: 7, VNIPerLoop: true}, 5, 12},
		{Config{VNI: MaxVNI - 1, VNIPerLoop: true}, 1, MaxVNI},
		{Config{VNI: MaxVNI - 1, VNIPerLoop: true}, 2, 1},
		{Config{VNI: 3, VNIPerLoop: true}, 2 * MaxVNI, 3},
	} {
		e, err := New(tt.c)
		if err != nil {
			t.Fatal(err)
		}
		for _, lt := range []forward.LinkType{forward.LinkEthernet, forward.LinkRaw} {
			var b forward.Batch
			frame := tcp4Frame(10, 1)
			if lt == forward.LinkRaw {
				frame = frame[14:]
			}
			e.Encapsulate(&b, &forward.Frame{Data: frame, LinkType: lt, Loop: tt.loop})
			p := b.Payload(0)
			if got := uint32(p[4])<<16 | uint32(p[5])<<8 | uint32(p[6]); got != tt.want || p[7] != 0 {
				t.Errorf("VNI %d, loop %d: %d, want %d", tt.c.VNI, tt.loop, got, tt.want)
			}
		}
	}
}

func TestParseOption(t *testing.T) {
	for s, want := range map[string]Option{
		"0108:1:0000000000000001": {Class: 0x0108, Type: 1, Data: []byte{0, 0, 0, 0, 0, 0, 0, 1}},
		"0x132:0x81:0xdeadBEEF":   {Class: 0x0132, Type: 0x81, Data: []byte{0xde, 0xad, 0xbe, 0xef}},
		"ffff:ff:":                {Class: 0xffff, Type: 0xff},
		"1:2:de:ad:be:ef":         {Class: 1, Type: 2, Data: []byte{0xde, 0xad, 0xbe, 0xef}},
	} {
		got, err := ParseOption(s)
		if err != nil || got.Class != want.Class || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("ParseOption(%q) = %v, %v", s, got, err)
		}
		if got.Critical() != (want.Type >= 0x80) {
			t.Errorf("%v: critical %v", got, got.Critical())
		}
	}
	for _, s := range []string{
		"", "1", "1:2", "10000:1:", "1:100:", "-1:1:", "x:1:", "1:1:0", "1:1:00", "1:1:000000", "1:1:zz000000",
		"1:1:" + strings.Repeat("00", 128),
	} {
		if o, err := ParseOption(s); err == nil {
			t.Errorf("ParseOption(%q) = %v, want an error", s, o)
		}
	}
}

func FuzzParseOption(f *testing.F) {
	f.Add("0108:1:0000000000000001")
	f.Add("0x132:0x81:0xdeadBEEF")
	f.Add("1:2:")
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseOption(s)
		if err != nil {
			return
		}
		again, err := ParseOption(o.String())
		if err != nil || again.Class != o.Class || again.Type != o.Type || !bytes.Equal(again.Data, o.Data) {
			t.Fatalf("%q: %v became %v, %v", s, o, again, err)
		}
		c := Config{Kind: GENEVE, Options: []Option{o}}
		e, err := New(c)
		if err != nil {
			t.Fatalf("a parsed option was refused: %v", err)
		}
		if len(e.header) != c.HeaderLen() || int(e.header[0]&63)*4 != len(e.header)-8 || (e.header[1] == 0x40) != o.Critical() {
			t.Fatalf("%v: header %x", o, e.header)
		}
	})
}

func TestPresets(t *testing.T) {
	lengths := map[string]int{"aws-mirror": 8, "aws-gwlb": 68 - 28, "aws-mirror-gwlb": 68 - 28 + 28 + 8, "gcp-nsi": 8 + 8 + 20 + 12, "azure-vtap": 8}
	for _, name := range Presets() {
		c, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		if c.HeaderLen() != lengths[name] || c.DestinationPort() != c.Kind.Port() {
			t.Errorf("%s: header of %d bytes to port %d", name, c.HeaderLen(), c.DestinationPort())
		}
		if c.VNI != 0 || c.RawIP != (c.Kind == GENEVE && !c.InVXLAN) {
			t.Errorf("%s: VNI %d, bare IP %v", name, c.VNI, c.RawIP)
		}
		if _, err := New(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Preset("clouds"); err == nil || !strings.Contains(err.Error(), "aws-gwlb") {
		t.Errorf("unknown preset: %v", err)
	}
	c, _ := Preset("aws-gwlb")
	c.SetOption(Option{Class: 0x0108, Type: 2, Data: []byte{1, 2, 3, 4, 5, 6, 7, 8}})
	c.SetOption(Option{Class: 1, Type: 2})
	if len(c.Options) != 4 || c.Options[1].Data[7] != 8 {
		t.Errorf("SetOption made %v", c.Options)
	}
}

func TestLinkTypeNames(t *testing.T) {
	for lt, want := range map[forward.LinkType]string{
		195: "IEEE802_15_4_WITHFCS (195)", 1: "ETHERNET (1)", 276: "LINUX_SLL2 (276)", 60000: "link type 60000",
	} {
		if got := LinkTypeName(lt); got != want {
			t.Errorf("LinkTypeName(%d) = %q, want %q", uint16(lt), got, want)
		}
	}
	if Supported(195) || !Supported(1) || !Supported(127) {
		t.Error("wrong link types are supported")
	}
}
