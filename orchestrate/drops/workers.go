package drops

import "strings"

// What is worth a word about how packets divide among workers: so many packets at
// least, and a worker that had so much more than its share, in percent of it.
const (
	unevenPackets = 10_000
	unevenShare   = 150
)

// uneven notes that one worker had far more than the others. The kernel divides by
// the outer source port, which is the same for all packets of a flow: it is no fault,
// and more workers do not help.
func (h *HopReport) uneven() {
	var most *Delta
	var all, workers uint64
	for i := range h.Counters {
		d := &h.Counters[i]
		if d.Role != RoleShare || d.NotKnown {
			continue
		}
		workers++
		all += d.Grown
		if most == nil || d.Grown > most.Grown {
			most = d
		}
	}
	if workers > 1 && all >= unevenPackets && most.Grown*workers*100 > all*unevenShare {
		h.note("%s had %d %% of the packets, %d workers share them: all packets of a flow go to one worker, and no number of workers divides a flow",
			strings.TrimPrefix(most.Name, "packets of "), most.Grown*100/all, workers)
	}
}
