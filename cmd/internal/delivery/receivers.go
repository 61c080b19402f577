package delivery

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"

	"github.com/zeekdemo/zeekdemo/cmd/internal/delivery/way"
	"github.com/zeekdemo/zeekdemo/forward/encap"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
	"github.com/zeekdemo/zeekdemo/forward/transmit"
	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// File is a capture that is written in place of sending.
type File struct {
	Path   string    // "-" for Stdout
	Stdout io.Writer // for a Path of "-"
	To     *way.Host // in the outer headers; nil for an address of documentation
}

// Monitor is any receiver, of which nothing is known.
type Monitor struct{ Host way.Host }

// Sensor is the stack's.
type Sensor struct {
	Engine orchestrate.Engine
	Way    way.Request
}

// outerFile are the addresses in a file's outer headers where no destination
// was given: the documentation range of RFC 5737, and locally administered
// hardware addresses.
func outerFile() encap.OuterConfig {
	return encap.OuterConfig{
		SrcMAC: [6]byte{2, 0, 0, 0, 0, 1}, DstMAC: [6]byte{2, 0, 0, 0, 0, 2},
		Src: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Dst: netip.AddrFrom4([4]byte{192, 0, 2, 2}),
	}
}

// open implements Receiver.
func (f File) open(ctx context.Context, r *Replay) (sender, error) {
	outer := outerFile()
	outer.Kind, outer.DstPort = r.Config.Kind, r.Config.DestinationPort()
	if f.To != nil {
		to, err := f.To.Resolve(ctx)
		if err != nil {
			return nil, err
		}
		outer.Dst, outer.DstPort = to.Addr(), to.Port()
		if to.Addr().Is6() {
			outer.Src = netip.MustParseAddr("2001:db8::1") // RFC 3849
		}
	}
	outer.TTL, outer.DSCP, outer.MayFragment = r.Outer.TTL, r.Outer.DSCP, r.Outer.MayFragment
	if r.Outer.Source.IsValid() {
		outer.Src = r.Outer.Source
	}
	header, err := encap.NewOuter(outer)
	if err != nil {
		return nil, err
	}
	if err := refuseOverwrite(f.Path, r.Captures.Names); err != nil {
		return nil, err
	}
	sink, err := pcapfile.Create(f.Path, f.Stdout, header, ctx.Done())
	if err != nil {
		return nil, err
	}
	return &intoFile{path: f.Path, sink: sink}, nil
}

// refuseOverwrite keeps a capture from being truncated by its own output.
func refuseOverwrite(out string, inputs []string) error {
	target, err := os.Stat(out)
	if err != nil {
		return nil // a new file
	}
	for _, name := range inputs {
		if in, err := os.Stat(name); err == nil && os.SameFile(in, target) {
			return way.Usagef("--write %s: that is the capture to be read", out)
		}
	}
	return nil
}

// open implements Receiver.
func (m Monitor) open(ctx context.Context, r *Replay) (sender, error) {
	target, err := m.Host.Target(ctx)
	if err != nil {
		return nil, err
	}
	return r.transmission(ctx, target)
}

// open implements Receiver.
func (s Sensor) open(ctx context.Context, r *Replay) (sender, error) {
	opened, target, err := s.find(ctx, r)
	var has interface{ Hint() string }
	if err != nil && !errors.As(err, &has) {
		err = orchestrate.WithHint(err, "--to HOST sends to any monitor without an engine")
	}
	if err != nil {
		return nil, err
	}
	if opened.Kind != way.Sidecar {
		return r.transmission(ctx, target)
	}
	if err := r.Outer.checkSidecar(); err != nil {
		return nil, err
	}
	client, err := opened.Client(ctx, s.Engine, target.Sensor)
	if err != nil {
		return nil, err
	}
	return &bySidecar{to: target, client: client}, nil
}

// checkSidecar refuses what a sidecar has no use for.
func (o Outer) checkSidecar() error {
	if o == (Outer{}) {
		return nil
	}
	return orchestrate.WithHint(way.Usagef("send by sidecar: it sends over the loopback of the sensor's namespace, where --ttl, --dscp, --df, --source and --device mean nothing"),
		"--via direct or --via published send from this machine")
}

// find finds the sensor and opens the way to it.
func (s Sensor) find(ctx context.Context, r *Replay) (opened way.Opened, target way.Target, err error) {
	sensor, err := orchestrate.FindSensor(ctx, s.Engine, r.Config.Kind.String())
	if err != nil {
		return opened, target, err
	}
	if err := way.CheckPort(r.Config.Port, sensor); err != nil {
		return opened, target, err
	}
	if err := way.CheckMode(r.Config, sensor); err != nil {
		return opened, target, err
	}
	if opened, err = s.Way.Open(ctx, s.Engine, sensor); err != nil {
		return opened, target, err
	}
	if news := opened.Announcement(); news != "" {
		r.Observer.Say(news)
	}
	target, err = opened.Find(ctx, s.Engine, sensor)
	return opened, target, err
}

// transmission opens one from this process.
func (r *Replay) transmission(ctx context.Context, to way.Target) (sender, error) {
	FitDatagrams(&r.Config, to.Address.Addr())
	tx, err := transmit.Open(ctx, transmit.Options{Destination: to.Address, Mode: r.Tx, Kind: r.Config.Kind, PortMin: r.Config.PortMin, PortMax: r.Config.PortMax, Outer: r.Outer.Outer})
	if err != nil {
		return nil, HintPrivilege(err)
	}
	return &fromHere{to: to, tx: tx}, nil
}

// FitDatagrams bounds datagrams by what UDP carries to an address.
func FitDatagrams(c *encap.Config, to netip.Addr) {
	if most := transmit.MaxPayload(to); c.MaxDatagram == 0 || c.MaxDatagram > most {
		c.MaxDatagram = most
	}
}

// HintPrivilege says what helps where a transmission is not allowed.
func HintPrivilege(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return orchestrate.WithHint(err, "--tx udp needs no privilege; packet sockets need root or CAP_NET_RAW")
	}
	return err
}
