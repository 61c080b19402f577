package pcapfile

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// growing is a capture that is being written, and who follows it.
type growing struct {
	*testing.T
	name   string
	file   *os.File
	follow *Follower
	frames chan forward.Frame
	ended  chan error
}

// follow begins to follow a file with that in it.
func follow(t *testing.T, content []byte) *growing {
	g := &growing{T: t, name: writeFile(t, "grows.pcap", content), frames: make(chan forward.Frame), ended: make(chan error, 1)}
	g.reopen(os.O_APPEND)
	var err error
	if g.follow, err = Follow(g.name, Options{}); err != nil {
		t.Fatal(err)
	}
	g.follow.poll = time.Millisecond
	go g.read()
	t.Cleanup(func() {
		g.follow.Stop()
		if err := <-g.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("after the stop: %v", err)
		}
		g.follow.Close()
		g.file.Close()
	})
	return g
}

// read passes frames on until the end.
func (g *growing) read() {
	for {
		var f forward.Frame
		if err := g.follow.Next(&f); err != nil {
			g.ended <- err
			return
		}
		f.Data = append([]byte(nil), f.Data...)
		g.frames <- f
	}
}

func (g *growing) reopen(how int) {
	g.Helper()
	var err error
	if g.file, err = os.OpenFile(g.name, os.O_WRONLY|os.O_CREATE|how, 0o600); err != nil {
		g.Fatal(err)
	}
}

// write writes in pieces that are no records.
func (g *growing) write(content []byte) {
	g.Helper()
	for len(content) > 0 {
		n := min(7, len(content))
		if _, err := g.file.Write(content[:n]); err != nil {
			g.Fatal(err)
		}
		content = content[n:]
	}
}

// wants waits for the frame of that number.
func (g *growing) wants(seed byte, segment int) {
	g.Helper()
	select {
	case f := <-g.frames:
		if f.Data[0] != seed || f.Segment != segment {
			g.Fatalf("got %x of segment %d, want %d of %d", f.Data[:1], f.Segment, seed, segment)
		}
	case <-time.After(bound):
		g.Fatalf("frame %d does not come", seed)
	}
}

// TestAGrowingFileIsFollowed, packet by packet.
func TestAGrowingFileIsFollowed(t *testing.T) {
	spec := newPcapSpec()
	g := follow(t, spec.header()[:10])
	g.write(spec.header()[10:])
	for i := range 20 {
		g.write(spec.record(start+int64(i), packet(60, byte(i))))
		g.wants(byte(i), 0)
	}
	if done, total := g.follow.Progress(); done == 0 || total != 0 {
		t.Errorf("progress %d of %d", done, total)
	}
}

// TestAFileThatIsReplacedIsFollowed: what was written to the old one still comes, then
// the new one is read, whatever its format.
func TestAFileThatIsReplacedIsFollowed(t *testing.T) {
	spec, n := newPcapSpec(), ng{newPcapSpec().order}
	g := follow(t, spec.file(packet(60, 1)))
	g.wants(1, 0)
	if err := os.Rename(g.name, g.name+".1"); err != nil {
		t.Fatal(err)
	}
	g.write(spec.record(start, packet(60, 2)))
	g.wants(2, 0)
	g.file.Close()
	g.reopen(os.O_EXCL)
	g.write(n.section())
	g.write(n.iface(101, 0))
	g.write(n.enhanced(0, 7, packet(60, 3), 60))
	g.wants(3, 1)
	if len(g.follow.Damages()) != 0 {
		t.Errorf("damages %v", g.follow.Damages())
	}
}

// TestAFileThatIsTruncatedIsFollowed from its beginning; what it was cut in is damage.
func TestAFileThatIsTruncatedIsFollowed(t *testing.T) {
	spec := newPcapSpec()
	record := spec.record(start, packet(60, 9))
	g := follow(t, append(spec.file(packet(60, 1)), record[:30]...))
	g.wants(1, 0)
	if err := g.file.Truncate(0); err != nil {
		t.Fatal(err)
	}
	g.write(spec.header())
	g.write(spec.record(start, packet(20, 2)))
	g.wants(2, 1)
}

// TestACorruptFileEndsTheFollowing: it is not read again and again.
func TestACorruptFileEndsTheFollowing(t *testing.T) {
	w, err := Follow(writeFile(t, "bad.pcap", append(newPcapSpec().file(packet(60, 1)), bytes.Repeat([]byte{0xff}, 64)...)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	got, err := readAll(w)
	var damage *DamageError
	if len(got) != 1 || !errors.As(err, &damage) || damage.Packet != 2 {
		t.Errorf("%d frames: %v", len(got), err)
	}
}

// TestWhatCannotBeFollowed is refused at once.
func TestWhatCannotBeFollowed(t *testing.T) {
	if _, err := Follow("missing.pcap", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := Follow(os.DevNull, Options{}); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("got %v", err)
	}
	if _, err := Follow("-", Options{}); err == nil {
		t.Error("standard input was followed")
	}
	stop := make(chan struct{})
	close(stop)
	w, err := Follow(writeFile(t, "empty.pcap", nil), Options{Stop: stop})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var f forward.Frame
	if err := w.Next(&f); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
