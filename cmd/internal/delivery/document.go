package delivery

import (
	"fmt"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Document is what a run came to, as `replay --json` prints it. Run is the VNI.
type Document struct {
	Run           uint32                `json:"run"`
	RunPerLoop    bool                  `json:"run_per_loop,omitempty"` // each loop has the next VNI, from Run on
	Files         []string              `json:"files"`
	Encapsulation string                `json:"encapsulation"`
	Destination   string                `json:"destination"`          // address and port, or the file written
	Via           way.Kind              `json:"via"`                  // published, direct, sidecar, to or file
	ViaReason     string                `json:"via_reason,omitempty"` // why not by a better way
	Transmission  *transmit.Description `json:"transmission,omitempty"`
	Kernel        *transmit.Stats       `json:"kernel,omitempty"`
	Report        forward.Report        `json:"report"`
	Lossless      *Account              `json:"lossless,omitempty"` // not for a file
	GrafanaURL    string                `json:"grafana_url,omitempty"`
	Verdict       Verdict               `json:"verdict"`
	Delivery      Delivered             `json:"delivery,omitempty"` // not for a file
	Error         string                `json:"error,omitempty"`
}

// linkAfter is how long after a run its log lines may still come: Zeek writes
// a UDP or ICMP flow's line a minute after its last packet.
const linkAfter = 3 * time.Minute

// Link leads to exactly one run in its time range; empty without a Grafana.
func Link(g orchestrate.Grafana, c encap.Config, rep forward.Report) string {
	if g.URL == "" {
		return ""
	}
	return g.URL + linkPath(c, rep)
}

// linkPath is the link's part below Grafana's address. Where each loop has its own
// VNI, no single one is chosen.
func linkPath(c encap.Config, rep forward.Report) string {
	variable := fmt.Sprintf("&var-run=%d", c.VNI)
	if c.VNIPerLoop {
		variable = ""
	}
	return fmt.Sprintf("/d/zeekdemo-logs?from=%d&to=%d%s", rep.Start.Add(-time.Second).UnixMilli(), rep.End.Add(linkAfter).UnixMilli(), variable)
}
