//go:build linux

// Command flood puts the frames of a capture on a network device, again and again,
// from a packet socket past the queueing discipline, at a given rate or as fast as
// it goes. It prints one line: frames, seconds, and the rate in thousands a second.
//
// Usage: flood DEVICE CAPTURE COUNT PPS (0: as fast as it goes)
package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/forward/pcapfile"
)

// batch is how many frames one call of sendmmsg takes.
const batch = 32

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: flood DEVICE CAPTURE COUNT PPS")
		os.Exit(2)
	}
	count, err1 := strconv.Atoi(os.Args[3])
	pps, err2 := strconv.ParseFloat(os.Args[4], 64)
	err := errors.Join(err1, err2)
	if err == nil {
		err = run(os.Args[1], os.Args[2], count, pps)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

func run(device, capture string, count int, pps float64) error {
	frames, err := load(capture)
	if err != nil {
		return err
	}
	fd, err := open(device)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	start := time.Now()
	if err := send(fd, frames, count, pps, start); err != nil {
		return err
	}
	took := time.Since(start).Seconds()
	fmt.Printf("%d %.6f %.1f\n", count, took, float64(count)/took/1e3)
	return nil
}

// load reads the frames that fit on an Ethernet.
func load(name string) (frames [][]byte, err error) {
	files, err := pcapfile.OpenAll([]string{name}, pcapfile.Options{})
	if err != nil {
		return nil, err
	}
	defer files.Close()
	var f forward.Frame
	for files.Next(&f) == nil {
		if len(f.Data) >= 14 && len(f.Data) <= 1514 {
			frames = append(frames, bytes.Clone(f.Data))
		}
	}
	if len(frames) < batch {
		return nil, fmt.Errorf("%s has %d frames of an Ethernet", name, len(frames))
	}
	return frames, nil
}

func open(device string) (int, error) {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return 0, fmt.Errorf("open packet socket: %w", err)
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 32<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index}))
	return fd, err
}

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// send sends count frames; the nth no earlier than n/pps after start.
func send(fd int, frames [][]byte, count int, pps float64, start time.Time) error {
	messages, vectors := make([]message, batch), make([]unix.Iovec, batch)
	for i := range messages {
		messages[i].header.Iov = &vectors[i]
		messages[i].header.SetIovlen(1)
	}
	for sent := 0; sent < count; {
		n := min(batch, count-sent)
		for i := range n {
			f := frames[(sent+i)%len(frames)]
			vectors[i].Base = &f[0]
			vectors[i].SetLen(len(f))
		}
		for pps > 0 && time.Since(start).Seconds()*pps < float64(sent) {
			continue // waits actively: a sleep is too coarse
		}
		taken, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(n), 0, 0, 0)
		switch {
		case errno == 0:
			sent += int(taken)
		case errno != unix.EAGAIN && errno != unix.ENOBUFS:
			return fmt.Errorf("send: %w", errno)
		}
	}
	runtime.KeepAlive(frames)
	return nil
}
