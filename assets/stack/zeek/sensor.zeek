# What both sensors share. It reaches Zeek by -e on the command line, which is
# read after the site's local.zeek: one directive per line, because a load
# directive takes the rest of its line.

# One JSON document per line, which the collector ships as it is.
redef LogAscii::use_json = T;

# Captures taken on the sending host have no valid checksums (the card computes
# them later); Zeek would discard such packets.
redef ignore_checksums = T;

# A message with more questions than this is taken for something else than DNS;
# the default is 25.
redef dns_max_queries = 100;

# The whole path is fast only if this buffer is large. The kernel clamps what is
# asked for to net.core.rmem_max, silently, when the socket opens.
redef PacketSource::UDP::udp_recv_buffer_size = 32 * 1024 * 1024;

# Bytes read of one datagram. The default of 9248 cuts longer ones without a
# word; a UDP datagram over IPv4 or IPv6 never holds more than 65527.
redef PacketSource::UDP::recvmmsg_buffer_size = 65535;

# Gaps in acknowledged TCP data, reported soon enough for a short replay.
@load misc/capture-loss
redef CaptureLoss::watch_interval = 30sec;

# Zeek's own account of packets, memory and lag, as a log.
@load misc/stats
redef Stats::report_interval = 1min;

# The VNI becomes part of the connection key and of every id.ctx: two replays of
# one capture under two VNIs stay apart, and each is found by its number.
