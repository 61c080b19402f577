package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"
)

// recent is how old the first frame of a capture may be for it to count as one
// that a live stand-in has just had. Flows then end by the same silences as
// there, so that both divide connections alike, as Zeek does live and offline.
const recent = time.Hour

// readCapture feeds the frames of a pcap or pcapng file, plain or gzip, to
// the sensor with their recorded times. A file that ends in the middle of a
// frame is read up to there, as Zeek does.
func readCapture(ctx context.Context, path string, s *sensor) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	next, err := openCapture(file)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for first := true; ctx.Err() == nil; first = false {
		frame, info, link, err := next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if first && time.Since(info.Timestamp) < recent {
			s.limits = liveLimits(0)
		}
		s.frame(info.Timestamp.UnixNano(), noTunnel(), link, frame, info.Length)
	}
	return nil
}

// nextFrame returns one frame, its record and its link type.
type nextFrame func() ([]byte, gopacket.CaptureInfo, int, error)

// openCapture tells the formats apart by their first bytes.
func openCapture(r io.Reader) (nextFrame, error) {
	in := bufio.NewReaderSize(r, 1<<20)
	magic, err := in.Peek(4)
	if err != nil {
		return nil, err
	}
	if magic[0] == 0x1f && magic[1] == 0x8b {
		plain, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		return openCapture(plain)
	}
	if bytes.Equal(magic, []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		return openNg(in)
	}
	pr, err := pcapgo.NewReader(in)
	if err != nil {
		return nil, err
	}
	link := int(pr.LinkType())
	return func() ([]byte, gopacket.CaptureInfo, int, error) {
		b, info, err := pr.ReadPacketData()
		return b, info, link, err
	}, nil
}

func openNg(r io.Reader) (nextFrame, error) {
	ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	if err != nil {
		return nil, err
	}
	return func() ([]byte, gopacket.CaptureInfo, int, error) {
		b, info, err := ng.ReadPacketData()
		link := int(ng.LinkType())
		if iface, ierr := ng.Interface(info.InterfaceIndex); err == nil && ierr == nil {
			link = int(iface.LinkType)
		}
		return b, info, link, err
	}, nil
}
