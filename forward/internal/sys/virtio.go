package sys

import "encoding/binary"

// VirtioLen is the length of the virtio-net header that precedes each frame on
// a socket with PACKET_VNET_HDR, in bytes (struct virtio_net_hdr of
// linux/virtio_net.h, its legacy form).
const VirtioLen = 10

// The values that VirtioHeader uses, from linux/virtio_net.h.
const (
	virtioNeedsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	virtioSegmentUDP    = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
)

// PutVirtioPlain writes the header of a frame that is complete in itself.
func PutVirtioPlain(b []byte) { clear(b[:VirtioLen]) }

// PutVirtioChecksum writes the header of a frame whose UDP checksum the kernel
// or the device completes: udpStart is the offset of the UDP header in the
// frame. If segment is not 0, the frame is a super-packet, to be split into
// datagrams with this many bytes of payload each, the last of which may be
// shorter.
func PutVirtioChecksum(b []byte, udpStart, segment int) {
	const udpLen, checksumOffset = 8, 6
	b = b[:VirtioLen]
	b[0], b[1] = virtioNeedsChecksum, 0
	if segment != 0 {
		b[1] = virtioSegmentUDP
	}
	// A legacy header is in the byte order of the host.
	binary.NativeEndian.PutUint16(b[2:], uint16(udpStart+udpLen))
	binary.NativeEndian.PutUint16(b[4:], uint16(segment))
	binary.NativeEndian.PutUint16(b[6:], uint16(udpStart))
	binary.NativeEndian.PutUint16(b[8:], checksumOffset)
}
