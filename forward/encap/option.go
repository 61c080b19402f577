package encap

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	optionHeaderLen = 4
	maxOptionData   = 31 * 4 // the option length field has 5 bits, in 4-byte words
	maxOptionsLen   = 63 * 4 // the header's has 6 bits, likewise
	criticalBit     = 0x80   // of the option type
)

// Option is a GENEVE option (RFC 8926 section 3.5).
type Option struct {
	Class uint16 // namespace of Type, assigned by IANA
	Type  uint8  // with the critical bit, 0x80: who does not know it must drop the packet
	Data  []byte // a multiple of 4 bytes, at most 124
}

// ParseOption reads CLASS:TYPE:HEX, for example 0108:1:00000000000000ff. Class
// and type are hexadecimal, with or without 0x; the type includes the critical
// bit 0x80. HEX is the option's data, its bytes optionally separated by
// colons; it may be empty, and must be a multiple of 4 bytes: how to pad is
// for the option's definition to say (RFC 8926 section 3.5.1 only demands the
// multiple), so a guess here could change its meaning.
func ParseOption(s string) (Option, error) {
	o, err := parseOption(s)
	if err != nil {
		return Option{}, fmt.Errorf("parse GENEVE option %q: %w", s, err)
	}
	return o, nil
}

func parseOption(s string) (Option, error) {
	part := strings.SplitN(s, ":", 3)
	if len(part) != 3 {
		return Option{}, errors.New("must be CLASS:TYPE:HEX")
	}
	class, err := parseHex(part[0], 16)
	if err != nil {
		return Option{}, fmt.Errorf("class: %w", err)
	}
	kind, err := parseHex(part[1], 8)
	if err != nil {
		return Option{}, fmt.Errorf("type: %w", err)
	}
	data, err := hex.DecodeString(strings.ReplaceAll(trimHexPrefix(part[2]), ":", ""))
	if err != nil {
		return Option{}, fmt.Errorf("data: %w", err)
	}
	o := Option{Class: uint16(class), Type: uint8(kind), Data: data}
	return o, o.validate()
}

func parseHex(s string, bits int) (uint64, error) {
	v, err := strconv.ParseUint(trimHexPrefix(s), 16, bits)
	if err != nil {
		return 0, fmt.Errorf("%q is not a hexadecimal number of at most %d bits", s, bits)
	}
	return v, nil
}

func trimHexPrefix(s string) string {
	if rest, ok := strings.CutPrefix(s, "0x"); ok {
		return rest
	}
	return strings.TrimPrefix(s, "0X")
}

// Critical reports whether a receiver that does not know the option must drop
// the packet.
func (o Option) Critical() bool { return o.Type&criticalBit != 0 }

// Len is the option's length on the wire, in bytes.
func (o Option) Len() int { return optionHeaderLen + len(o.Data) }

// String writes the option in the form that [ParseOption] reads.
func (o Option) String() string { return fmt.Sprintf("%04x:%02x:%x", o.Class, o.Type, o.Data) }

func (o Option) validate() error {
	switch {
	case len(o.Data)%4 != 0:
		return fmt.Errorf("%d bytes of data: must be a multiple of 4, padded as the option's definition says", len(o.Data))
	case len(o.Data) > maxOptionData:
		return fmt.Errorf("%d bytes of data: at most %d", len(o.Data), maxOptionData)
	}
	return nil
}

func validateOptions(options []Option) error {
	total := 0
	for _, o := range options {
		if err := o.validate(); err != nil {
			return fmt.Errorf("GENEVE option %v: %w", o, err)
		}
		total += o.Len()
	}
	if total > maxOptionsLen {
		return fmt.Errorf("GENEVE options take %d bytes: at most %d", total, maxOptionsLen)
	}
	return nil
}

// appendTo appends the option's wire form.
func (o Option) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, o.Class)
	b = append(b, o.Type, byte(len(o.Data)/4))
	return append(b, o.Data...)
}
