package ui

import (
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery"
)

func TestFlowInALine(t *testing.T) {
	last := delivery.Flow{Name: "eth0", Packets: 1000, Bytes: 100_000}
	now := delivery.Flow{Name: "eth0", Packets: 3000, Bytes: 350_000, Dropped: 7}
	if got, want := flowLine(now, last, 2), "eth0: 3 000 packets, 350 kB, 1.00 kpps, 1.00 Mbit/s, 7 dropped"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// News and steps are plain lines where there is no terminal.
func TestObserverWithoutATerminal(t *testing.T) {
	var out strings.Builder
	o := NewObserver(&out, Terminal{})
	o.Say("Run 7")
	o.Meter(func() delivery.Reading { return delivery.Reading{} })()
	end := o.Flows(func() []delivery.Flow { return nil })
	o.Say("The sensor has gone")
	end()
	o.Step(delivery.Step{ID: "a.pcap", Text: "Sending", Detail: "direct"})
	o.Step(delivery.Step{ID: "a.pcap", Text: "differs", State: delivery.Unsuccessful})
	o.Close()
	if want := "Run 7\nThe sensor has gone\na.pcap: Sending (direct)\na.pcap: differs\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
