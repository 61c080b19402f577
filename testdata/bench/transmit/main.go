//go:build linux

// Command transmit measures the forwarder alone: it plays captures,
// encapsulated as VXLAN, to an address as fast as the kernel takes them, and
// prints what happened. It waits for nothing and governs nothing, so whatever
// the receiver cannot take is lost.
//
// Usage: transmit [-tx auto|packet|udp] [-loops N] [-cpu auto|off|N] ADDR FILE...
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"runtime/pprof"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pace"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "transmit:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var o transmit.Options
	mode := flag.String("tx", "auto", "transmission")
	loops := flag.Int("loops", 1, "passes over the captures")
	cpuName := flag.String("cpu", "auto", "processor to send from")
	batch := flag.Int("batch", 0, "datagrams per batch")
	profile := flag.String("profile", "", "write a CPU profile to this file")
	flag.IntVar(&o.Sockets, "sockets", 0, "UDP sockets")
	flag.BoolVar(&o.NoGSO, "nogso", false, "no super-packets")
	flag.Parse()
	o.Mode = transmit.Mode(*mode)
	cpu, err := transmit.ParseCPU(*cpuName)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(flag.Arg(0))
	if err != nil {
		return err
	}
	o.Destination = netip.AddrPortFrom(addr, 0)
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	return transmit.Pinned(cpu, func() error { return play(ctx, o, flag.Args()[1:], *loops, *batch) })
}

func play(ctx context.Context, o transmit.Options, files []string, loops, batch int) error {
	source, err := pcapfile.OpenAll(files, pcapfile.Options{Loop: loops})
	if err != nil {
		return err
	}
	defer source.Close()
	encapsulator, err := encap.New(encap.Config{VNI: 4242})
	if err != nil {
		return err
	}
	t, err := transmit.Open(ctx, o)
	if err != nil {
		return err
	}
	defer t.Close()
	p := forward.Pipeline{Source: source, Encapsulator: encapsulator, Sink: t, Clock: pace.NewClock(), BatchDatagrams: batch}
	start := time.Now()
	err = p.Run(ctx)
	took := time.Since(start)
	s := t.Stats()
	fmt.Printf("%v\n%d datagrams in %v: %.0f kpps\n%+v\n", t.Describe(), s.Datagrams, took, float64(s.Datagrams)/took.Seconds()/1e3, s)
	return err
}
