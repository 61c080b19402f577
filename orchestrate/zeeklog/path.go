package zeeklog

import (
	"fmt"
	"slices"
	"strings"
)

// Path is what the two ends of a replay counted, and what lies between. Bytes
// are those of datagram payloads, tunnel headers included.
type Path struct {
	Sent      uint64 `json:"sent"` // datagrams handed to the kernel
	SentBytes uint64 `json:"sent_bytes"`
	// Counted says whether the sensor told what it received.
	Counted       bool   `json:"counted"`
	Received      uint64 `json:"received"`
	ReceivedBytes uint64 `json:"received_bytes"`
	// Dropped is what the kernel dropped because the sensor's socket was full,
	// and DropsKnown whether that could be read.
	Dropped    uint64 `json:"dropped"`
	DropsKnown bool   `json:"drops_known"`
	Refused    uint64 `json:"refused"` // datagrams that the kernel refused to send
	// Taken is what the sensor took as the kernel counts it, where that is known.
	Taken      uint64 `json:"taken,omitempty"`
	TakenKnown bool   `json:"taken_known,omitempty"`
	// ProxyDropped is what was dropped because docker-proxy's socket was full.
	ProxyDropped uint64 `json:"dropped_at_proxy,omitempty"`
	// Disordered is how many packets reached the sensor before one that was sent
	// earlier, where every packet was looked at.
	Disordered uint64 `json:"disordered,omitempty"`
	OrderKnown bool   `json:"order_known,omitempty"`
	// Altered is how many arrived with other bytes than they were sent with, where
	// every one was looked at.
	Altered    uint64 `json:"altered,omitempty"`
	BytesKnown bool   `json:"bytes_known,omitempty"`
	// Elsewhere are other counters of losses that grew meanwhile, in words, such
	// as "device eth0 rx_dropped of the sensor (3)". They count other packets
	// too, so they only explain what is missing.
	Elsewhere []string `json:"counted_elsewhere,omitempty"`
}

// Finding is one fault of the path and the hop where it happened.
type Finding struct {
	Cause Cause  `json:"cause"`
	Hop   string `json:"hop"`  // "sensor's socket", "docker-proxy's socket", "between sender and sensor's socket", "sensor", "an unknown place"
	Text  string `json:"text"` // one line for a person
}

// The hops.
const (
	hopSocket = "sensor's socket"
	hopProxy  = "docker-proxy's socket"
	hopBefore = "between sender and sensor's socket"
	hopSensor = "sensor"
	hopNone   = "an unknown place"
)

// Explain names the faults of a run: what the counts prove first, then what
// only the connections show. Without any fault it returns nothing.
func Explain(p Path, differences []Difference) []Finding {
	findings := p.counts()
	if len(findings) > 0 || len(differences) == 0 {
		return findings
	}
	if p.Counted {
		return p.arrived(differences)
	}
	return fromConnections(differences)
}

// counts is what the numbers of datagrams and bytes prove.
func (p Path) counts() []Finding {
	var list []Finding
	add := func(c Cause, hop, format string, args ...any) {
		list = append(list, Finding{c, hop, fmt.Sprintf(format, args...)})
	}
	if p.Refused > 0 {
		add(Lost, hopBefore, "%d datagrams were refused by the kernel: nobody listened", p.Refused)
	}
	if p.ProxyDropped > 0 {
		add(Lost, hopProxy, "%d datagrams were dropped at docker-proxy's own socket: its queue was full", p.ProxyDropped)
	}
	if p.Dropped > 0 {
		add(Lost, hopSocket, "%d datagrams were dropped at the sensor's own socket: its queue was full", p.Dropped)
	}
	received, known := p.Received, p.Counted
	if !known {
		received, known = p.Taken, p.TakenKnown
	}
	switch arrived, reached := received+p.Dropped, p.Sent-min(p.ProxyDropped, p.Sent); {
	case !known:
	case arrived < reached && p.DropsKnown:
		add(Lost, hopBefore, "%d of %d datagrams were lost before the sensor's socket%s", reached-arrived, p.Sent, p.elsewhere())
	case arrived < reached:
		add(Lost, hopBefore, "%d of %d datagrams were lost on the way or at the sensor's socket%s", reached-arrived, p.Sent, p.elsewhere())
	case !p.Counted: // the kernel's count may hold others' packets
	case arrived > p.Sent:
		add(Doubled, hopBefore, "%d datagrams more arrived than the %d that were sent", arrived-p.Sent, p.Sent)
	case p.Received == p.Sent && p.ReceivedBytes < p.SentBytes:
		add(Cut, hopSocket, "every datagram arrived, but %d of %d bytes are missing: some were cut", p.SentBytes-p.ReceivedBytes, p.SentBytes)
	case p.Received == p.Sent && p.ReceivedBytes > p.SentBytes:
		add(Altered, hopBefore, "as many datagrams arrived as were sent, with %d bytes more: some were replaced", p.ReceivedBytes-p.SentBytes)
	}
	if p.OrderKnown && p.Disordered > 0 {
		add(Reordered, hopBefore, "%d of %d packets arrived in another order than they were sent", p.Disordered, p.Sent)
	}
	if p.BytesKnown && p.Altered > 0 {
		add(Altered, hopBefore, "%d of %d packets arrived with other bytes than they were sent with", p.Altered, p.Sent)
	}
	return list
}

// elsewhere names the counters that may explain a loss.
func (p Path) elsewhere() string {
	if len(p.Elsewhere) == 0 {
		return ""
	}
	return "; meanwhile grew " + strings.Join(p.Elsewhere, ", ")
}

// arrived explains differences where every datagram arrived once and whole.
func (p Path) arrived(differences []Difference) []Finding {
	if slices.ContainsFunc(differences, func(d Difference) bool { return d.Cause == TimedOut }) {
		return []Finding{{TimedOut, hopSensor, fmt.Sprintf("all %d datagrams arrived whole; connections were divided otherwise, as where a pause falls on the other side of a timeout", p.Sent)}}
	}
	return []Finding{{Unexplained, hopNone, fmt.Sprintf("all %d datagrams arrived, as many bytes as were sent; %s", p.Sent, p.unseen())}}
}

// unseen says what was not looked at and may be the reason.
func (p Path) unseen() string {
	switch {
	case p.OrderKnown && p.BytesKnown:
		return "they had their order and their bytes, so the reason is not on the path"
	case p.OrderKnown:
		return "they had their order, and whether they were altered was not looked at"
	case p.BytesKnown:
		return "they had their bytes, and whether they had their order was not looked at"
	}
	return "whether they had their order and their bytes was not looked at"
}

// fromConnections is all that can be said where the sensor counted nothing.
func fromConnections(differences []Difference) []Finding {
	numbers := map[Cause]int{}
	for _, d := range differences {
		numbers[d.Cause]++
	}
	var list []Finding
	for _, c := range []struct {
		cause Cause
		hop   string
		as    string
	}{
		{Lost, hopBefore, "as if packets were lost"}, {Doubled, hopBefore, "as if packets were doubled"},
		{Cut, hopBefore, "as if packets were cut"}, {Altered, hopBefore, "as if packets were altered"},
		{TimedOut, hopSensor, "as if connections were divided at a timeout"}, {Unexplained, hopNone, "without a known reason"},
	} {
		if n := numbers[c.cause]; n > 0 {
			list = append(list, Finding{c.cause, c.hop, fmt.Sprintf("%d lines differ %s; the sensor told no counts", n, c.as)})
		}
	}
	return list
}
