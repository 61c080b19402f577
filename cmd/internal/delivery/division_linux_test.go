package delivery

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// workers are sockets that share a port in a network namespace, as the workers of a
// cluster do: which of them a datagram goes to, the kernel decides.
type workers struct {
	host  way.Host
	conns []*net.UDPConn
}

// newWorkers opens n of them on a port of their own.
func newWorkers(t *testing.T, c testenv.Container, n int) *workers {
	t.Helper()
	port := 4700 + n
	host, err := way.ParseTo(c.Addr.String(), uint16(port))
	if err != nil {
		t.Fatal(err)
	}
	w := &workers{host: host}
	c.Inside(t, func() error {
		for range n {
			w.conns = append(w.conns, testenv.ListenUDP(t, fmt.Sprintf(":%d", port), holdsAll))
		}
		return nil
	})
	return w
}

// taken is what a worker took: the frame inside, and which worker.
type taken struct {
	frame  string
	worker int
}

// collect reads until all workers together have n datagrams, or none comes for long.
func (w *workers) collect(n int) (all []taken) {
	deadline := time.Now().Add(60 * time.Second)
	list := make(chan taken, 1024)
	var readers sync.WaitGroup
	for i, c := range w.conns {
		_ = c.SetReadDeadline(deadline)
		readers.Go(func() {
			for buf := make([]byte, 1<<16); ; {
				size, err := c.Read(buf)
				if err != nil {
					return
				}
				list <- taken{string(buf[vxlanLen:size]), i}
			}
		})
	}
	go func() { readers.Wait(); close(list) }()
	for got := range list {
		if all = append(all, got); len(all) == n {
			for _, c := range w.conns {
				_ = c.SetReadDeadline(time.Now())
			}
		}
	}
	return all
}

// judgedCapture is a capture's frames as they arrive, and what tshark says of them.
type judgedCapture struct {
	frames int
	flows  map[string]judged // by the frame's bytes
	left   unknowable
}

func judgeCapture(t *testing.T, name string) judgedCapture {
	t.Helper()
	inside, _ := insideAndPorts(t, name)
	all := identify(t, inside)
	j := judgedCapture{frames: len(all), flows: make(map[string]judged, len(all)), left: settle(all)}
	for i, frame := range inside {
		j.flows[string(frame)] = all[i]
	}
	return j
}

// divide plays the capture into the workers and demands that each flow went to one.
// It returns how many datagrams each worker took.
func (j judgedCapture) divide(t *testing.T, name string, w *workers, kind encap.Kind, tx transmit.Mode) []int {
	t.Helper()
	collected := make(chan []taken, 1)
	go func() { collected <- w.collect(j.frames) }()
	played(t, name, func(p *Replay) {
		p.Config.Kind, p.Tx = kind, tx
		p.Pace = pace.Spec{Pace: pace.AsRecorded, Speed: "1x", PPS: 60_000, Given: map[string]bool{"pps": true}}
	}, Monitor{Host: w.host})
	got := <-collected
	if len(got) != j.frames {
		t.Fatalf("%d datagrams arrived, want %d", len(got), j.frames)
	}
	shares := make([]int, len(w.conns))
	all := make([]judged, 0, len(got))
	for _, g := range got {
		flow, known := j.flows[g.frame]
		if !known {
			t.Fatalf("a frame arrived that is not in the capture: % .60x", g.frame)
		}
		shares[g.worker]++
		all = append(all, flow)
	}
	for i, flow := range parted(all, func(i int) int { return got[i].worker }) {
		if i < 8 {
			t.Errorf("%d workers, %v by %s: several took %s", len(w.conns), kind, tx, flow)
		}
	}
	return shares
}

// However many workers share a port, each flow is one worker's: both directions,
// fragments, ICMP errors about it, and what is in tunnels; by both transmissions and
// in both tunnels. So the kernel decides, of every capture.
func TestEveryFlowIsOneWorkers(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: every capture, ten times; runs without -short")
	}
	c := testenv.NewContainer(t, 65535)
	var groups []*workers
	for _, n := range []int{2, 3, 4, 8} {
		groups = append(groups, newWorkers(t, c, n))
	}
	for _, name := range captures(t) {
		if refused(t, name) {
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			j := judgeCapture(t, name)
			if j.frames == 0 {
				return // nobody would know that all have come
			}
			for _, w := range groups {
				for _, kind := range []encap.Kind{encap.VXLAN, encap.GENEVE} {
					if kind == encap.GENEVE && len(w.conns) != 4 {
						continue // the source ports are the same
					}
					for _, tx := range []transmit.Mode{transmit.Packet, transmit.UDP} {
						shares := j.divide(t, name, w, kind, tx)
						if fair := j.frames / len(shares); filepath.Base(name) == "mix.pcap" && slices.Min(shares) < fair/10 { // the kernel's hash has a key of each boot
							t.Errorf("%v by %s: the workers' shares are %v", kind, tx, shares)
						}
					}
				}
			}
		})
	}
}
