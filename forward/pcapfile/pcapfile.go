// Package pcapfile reads capture files as a [forward.Source] and writes
// encapsulated packets to one as a [forward.Sink].
//
// Read are pcap (microseconds and nanoseconds, both byte orders, and the
// "modified" variant of patched libpcaps) and pcapng (several sections of
// different byte order, several interfaces with link types, time resolutions
// and offsets of their own), stored plain or compressed by gzip, zstd, xz, bzip2
// or lz4. What a file is follows from its first bytes, never from its name. Captures
// that were put together as by cat are read one after the other.
//
// The nouns, from the outside in:
//
//   - [Files] is a run of captures, one after the other, as often as asked for.
//   - A [Reader] is one capture.
//   - A window is the piece of the uncompressed capture that is in memory. It
//     is one buffer, filled by read(2) and used again and again, so that
//     resident memory does not depend on the size of the capture; frames lie
//     in it and are lent from it.
//   - A record (pcap) or block (pcapng) is one entry of the file.
//
// Captures are read, not mapped. Mapping a warm file in windows of 4 to 16 MiB
// was measured at about 20 ns per 350-byte frame that is then looked at,
// reading it at about 40, where sending one takes the kernel 3000. That is not
// worth a process that dies by SIGBUS when the file shrinks or the file server
// is gone.
//
// # Damage
//
// A capture that is cut short or corrupt yields every frame before the damage
// and then a [DamageError]. Lengths are believed only as far as they are
// plausible: no frame is longer than 262 144 bytes and a little slack, the
// largest snap length that libpcap and Wireshark accept. In a run of captures
// [Options.SkipDamage] goes on with the next one.
//
// # Frame check sequences
//
// Where a pcap file or an interface of a pcapng file says that frames end in a
// frame check sequence, it is taken off: no monitor wants it. What single
// packets of a pcapng file say about theirs (epb_flags) goes before that.
//
// # Sources
//
// The formats are those of draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng and
// libpcap's sf-pcap.c and sf-pcapng.c.
package pcapfile

import "github.com/zeekdemo/zeekdemo/forward"

// The interfaces that this package implements.
var (
	_ forward.Source   = (*Reader)(nil)
	_ forward.Progress = (*Reader)(nil)
	_ forward.Readier  = (*Reader)(nil)
	_ forward.Source   = (*Files)(nil)
	_ forward.Progress = (*Files)(nil)
	_ forward.Readier  = (*Files)(nil)
	_ forward.Stopper  = (*Files)(nil)
)

// maxFrame is the longest frame that is believed: MAXIMUM_SNAPLEN of libpcap's
// pcap-int.h, and room for what some writers put on top of their snap length.
const maxFrame = 262144 + 4096
