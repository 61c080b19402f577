package drops

// Names of the collector's counters.
const (
	enqueueFailed   = "otelcol_exporter_enqueue_failed_log_records"
	receiverRefused = "otelcol_receiver_refused_log_records"
)

// loki is the store's hop, nil if it is not known.
func (c clues) loki() *HopReport {
	if l := c.r.hop(HopLoki, ""); l != nil && l.Lost != nil {
		return l
	}
	return nil
}

// collectorAdvices are for lines that the collector lost. What Loki refused is
// Loki's loss already, see [Report.refusedLines].
func collectorAdvices() []advice {
	return []advice{
		{"collector, vanished", func(c clues) bool { return c.most(c.h, vanishedLines) }, func(clues) (string, string) {
			return "its queue lost lines that it had accepted: why is not known", "zeekdemo logs collector --tail 20"
		}},
		{"collector, Loki unseen", func(c clues) bool { return c.loki() == nil }, func(clues) (string, string) {
			return "the collector gave lines up; whether Loki refused them for good is not known", "zeekdemo logs collector --tail 20"
		}},
		{"collector, unknown", always, func(clues) (string, string) {
			return "the collector gave lines up that Loki did not refuse: why is not known", "zeekdemo logs collector --tail 20"
		}},
	}
}

// lokiAdvices are for lines that Loki discarded. It counts them by reasons.
func lokiAdvices() []advice {
	return []advice{
		{"loki, reasons", func(c clues) bool { return grownNames(c.h, RolePart) != "" }, func(c clues) (string, string) {
			return "Loki discards lines: " + grownNames(c.h, RolePart), "zeekdemo logs loki --tail 20"
		}},
		{"loki, unknown", always, func(clues) (string, string) {
			return "Loki discards lines, and its counters do not say why", "zeekdemo logs loki --tail 20"
		}},
	}
}

// heldAdvices are for a collector that cannot go on.
func heldAdvices() []advice {
	return []advice{
		{"held, queue", func(c clues) bool { return c.h.grew(enqueueFailed) > 0 && len(c.h.Queues) > 0 }, func(clues) (string, string) {
			return "its queue is full: Loki does not take lines as fast as they come", "zeekdemo logs collector --tail 20"
		}},
		{"held, memory", func(c clues) bool { return c.h.grew(receiverRefused) > 0 }, func(clues) (string, string) {
			return "it refuses what it reads, as it does when it is short of memory", "zeekdemo logs collector --tail 20"
		}},
		{"held, refused", func(c clues) bool { return c.h.Held > 0 }, func(c clues) (string, string) {
			return "why is not known beyond the counters' names: " + grownNames(c.h, RoleHeld), "zeekdemo logs collector --tail 20"
		}},
		{"held, Loki unseen", func(c clues) bool { return c.loki() == nil }, func(clues) (string, string) {
			return "Loki does not answer here either", "zeekdemo up"
		}},
		{"held, unknown", always, func(clues) (string, string) {
			return "Loki does not answer the collector, or refuses for now; which of these is not known", "zeekdemo logs loki --tail 20"
		}},
	}
}
