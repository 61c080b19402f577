package procfs

import (
	"strconv"
	"strings"
)

// Device is a line of /proc/net/dev. Packets are the kernel's buffers: with
// segmentation offload one may hold many datagrams.
type Device struct {
	RxPackets, RxErrors, RxDropped, RxFIFO, RxFrame   uint64
	TxPackets, TxErrors, TxDropped, TxFIFO, TxCarrier uint64
}

// Devices reads /proc/net/dev (dev_seq_printf_stats in net/core/net-procfs.c): a
// name and a colon, eight numbers of receiving, eight of sending. Lines that are
// no devices, such as the two headings, are left out.
func Devices(text string) map[string]Device {
	devices := map[string]Device{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 16 {
			continue
		}
		var n [16]uint64
		for i := range n {
			var err error
			n[i], err = strconv.ParseUint(fields[i], 10, 64)
			ok = ok && err == nil
		}
		if ok {
			devices[strings.TrimSpace(name)] = Device{
				RxPackets: n[1], RxErrors: n[2], RxDropped: n[3], RxFIFO: n[4], RxFrame: n[5],
				TxPackets: n[9], TxErrors: n[10], TxDropped: n[11], TxFIFO: n[12], TxCarrier: n[14],
			}
		}
	}
	return devices
}
