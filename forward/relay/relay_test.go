package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/zeekdemo/zeekdemo/forward"
)

// frames is a source of made-up frames.
type frames struct {
	list []forward.Frame
	err  error // after the last; io.EOF if nil
}

func (s *frames) Next(f *forward.Frame) error {
	if len(s.list) == 0 {
		if s.err != nil {
			return s.err
		}
		return io.EOF
	}
	*f, s.list = s.list[0], s.list[1:]
	return nil
}

func (s *frames) Close() error { return nil }

// made returns n frames of up to most bytes.
func made(n, most int) []forward.Frame {
	random := rand.New(rand.NewPCG(1, 2))
	list := make([]forward.Frame, n)
	for i := range list {
		data := make([]byte, random.IntN(most+1))
		for j := range data {
			data[j] = byte(random.Uint32())
		}
		list[i] = forward.Frame{Data: data, Length: len(data) + i%3, Time: int64(i) * 1e6, LinkType: forward.LinkType(i % 300), Segment: i / 100, Loop: i / 1000, Retimed: i%7 == 0}
	}
	return list
}

// clone keeps a lent frame.
func clone(f forward.Frame) forward.Frame {
	f.Data = bytes.Clone(f.Data)
	return f
}

type job struct{ Name string }

// start connects a sender to a source.
func start(t *testing.T, silence time.Duration) (*Sender, *Source, *io.PipeWriter) {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { r.Close() })
	made := make(chan *Sender, 1)
	go func() {
		s, err := NewSender(w, job{"one"})
		if err != nil {
			t.Error(err)
		}
		made <- s
	}()
	var got job
	src, err := Receive(r, &got, silence)
	if err != nil || got.Name != "one" {
		t.Fatalf("the job arrives as %+v, %v", got, err)
	}
	return <-made, src, w
}

// credit tells the sender what was taken until the test ends.
func credit(t *testing.T, sender *Sender, src *Source) {
	_, changed := src.Taken()
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case <-done:
				return
			case <-changed:
				taken, _ := src.Taken()
				sender.Credit(taken)
			}
		}
	}()
}

func TestFramesArriveAsTheyWere(t *testing.T) {
	for name, want := range map[string][]forward.Frame{
		"none":              nil,
		"small":             made(3000, 200),
		"beyond the window": made(1500, 60_000),
		"the longest":       {{Data: make([]byte, maxFrame), Length: maxFrame, Time: -1}},
	} {
		t.Run(name, func(t *testing.T) {
			sender, src, _ := start(t, 0)
			credit(t, sender, src)
			fed := make(chan error, 1)
			go func() { fed <- sender.Feed(t.Context(), &frames{list: want}) }()
			var f forward.Frame
			for i := range want {
				if err := src.Next(&f); err != nil {
					t.Fatalf("frame %d: %v", i, err)
				}
				if got := clone(f); !reflect.DeepEqual(got, want[i]) {
					t.Fatalf("frame %d: got %d bytes, %+v", i, len(got.Data), got.Time)
				}
			}
			if err := src.Next(&f); err != io.EOF {
				t.Errorf("after the last frame: %v", err)
			}
			if err := <-fed; err != nil {
				t.Error(err)
			}
		})
	}
}

// A receiver that takes nothing stops the sender at the window; a stop is seen
// though frames lie before it.
func TestStopOvertakesFrames(t *testing.T) {
	sender, src, _ := start(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	fed := make(chan error, 1)
	go func() { fed <- sender.Feed(ctx, &frames{list: made(500, 60_000)}) }()
	var f forward.Frame
	if err := src.Next(&f); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-fed:
		t.Fatalf("the sender went beyond its credit: %v", err)
	default:
	}
	if err := sender.Stop(); err != nil {
		t.Fatal(err)
	}
	<-src.Ended()
	if err := src.Next(&f); !errors.Is(err, ErrStopped) {
		t.Errorf("after a stop: %v", err)
	}
	if !src.Ready() {
		t.Error("a source that has ended is not ready to say so")
	}
	cancel()
	if err := <-fed; !errors.Is(err, context.Canceled) && !errors.Is(err, ErrStopped) {
		t.Errorf("the interrupted sender returns %v", err)
	}
}

// A wait for a silent sender can be ended, before and while it lasts; what has come
// before is taken.
func TestAWaitForASilentSenderEnds(t *testing.T) {
	sender, src, _ := start(t, 0)
	credit(t, sender, src)
	var f forward.Frame
	sent := made(3, 100)
	for i := range sent {
		if err := sender.frame(t.Context(), &sent[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := sender.flush(); err != nil {
		t.Fatal(err)
	}
	if err := src.Next(&f); err != nil {
		t.Fatal(err)
	}
	go src.Stop()
	came := 1
	var err error
	for err = src.Next(&f); err == nil; err = src.Next(&f) {
		came++
	}
	if !errors.Is(err, context.Canceled) || came > 3 || src.Err() != nil {
		t.Errorf("%v after %d frames; the stream: %v", err, came, src.Err())
	}
	if err := src.Next(&f); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait after that: %v", err)
	}
}

// All frames may have come long before they are due: a stop, and the loss of the
// sender, are seen then as well.
func TestTheEndOfTheFramesIsNotThatOfTheStream(t *testing.T) {
	for name, c := range map[string]struct {
		then func(*Sender, *io.PipeWriter) error
		want error
	}{
		"stop": {func(s *Sender, _ *io.PipeWriter) error { return s.Stop() }, ErrStopped},
		"lost": {func(_ *Sender, w *io.PipeWriter) error { return w.Close() }, ErrLost},
	} {
		t.Run(name, func(t *testing.T) {
			sender, src, w := start(t, 0)
			if err := sender.Feed(t.Context(), &frames{list: made(3, 100)}); err != nil {
				t.Fatal(err)
			}
			var f forward.Frame
			if err := src.Next(&f); err != nil {
				t.Fatal(err)
			}
			if err := sender.Ping(); err != nil {
				t.Fatal(err)
			}
			if err := c.then(sender, w); err != nil {
				t.Fatal(err)
			}
			<-src.Ended()
			if err := src.Next(&f); !errors.Is(err, c.want) {
				t.Errorf("then: %v", err)
			}
		})
	}
}

func TestALostSenderIsNoticed(t *testing.T) {
	t.Run("the stream ends", func(t *testing.T) {
		_, src, w := start(t, 0)
		w.Close()
		<-src.Ended()
		if err := src.Next(new(forward.Frame)); !errors.Is(err, ErrLost) || errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("silence", func(t *testing.T) {
		_, src, _ := start(t, 10*time.Millisecond)
		<-src.Ended()
		if err := src.Err(); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "10ms") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("pings", func(t *testing.T) {
		sender, src, _ := start(t, 2*time.Second)
		for range 100 {
			if err := sender.Ping(); err != nil {
				t.Fatal(err)
			}
		}
		if src.Err() != nil || src.Ready() {
			t.Errorf("after pings alone: %v", src.Err())
		}
	})
}

func TestADamagedCaptureIsPlayedUpToTheDamage(t *testing.T) {
	sender, src, _ := start(t, 0)
	damage := errors.New("packet 6 is cut")
	fed := make(chan error, 1)
	go func() { fed <- sender.Feed(t.Context(), &frames{list: made(5, 100), err: damage}) }()
	n := 0
	for f := (forward.Frame{}); src.Next(&f) == nil; n++ {
	}
	if err := <-fed; n != 5 || !errors.Is(err, damage) || src.Err() != nil {
		t.Errorf("%d frames, the sender says %v, the source %v", n, err, src.Err())
	}
}

func TestAnEndedStreamEndsTheSender(t *testing.T) {
	r, w := io.Pipe()
	go io.CopyN(io.Discard, r, 1000)
	sender, err := NewSender(w, job{})
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("torn")
	r.CloseWithError(cause)
	if err := sender.Feed(t.Context(), &frames{list: made(100, 60_000)}); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

// Whatever comes, the receiver neither fails otherwise than by an error nor
// keeps more than its window.
func FuzzReceive(f *testing.F) {
	var stream bytes.Buffer
	sender, err := NewSender(&stream, job{"x"})
	if err != nil {
		f.Fatal(err)
	}
	if err := sender.Feed(context.Background(), &frames{list: made(20, 300)}); err != nil {
		f.Fatal(err)
	}
	f.Add(stream.Bytes())
	f.Add([]byte("S\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var j job
		src, err := Receive(bytes.NewReader(data), &j, 0)
		if err != nil {
			return
		}
		var fr forward.Frame
		for err == nil {
			err = src.Next(&fr)
		}
		if err != io.EOF && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}

func ExampleSender() {
	r, w := io.Pipe()
	go func() {
		sender, _ := NewSender(w, "a job")
		_ = sender.Feed(context.Background(), &frames{list: made(3, 10)})
	}()
	var job string
	src, _ := Receive(r, &job, time.Minute)
	n := 0
	for f := (forward.Frame{}); src.Next(&f) == nil; n++ {
	}
	fmt.Println(job, n)
	// Output: a job 3
}

func BenchmarkRelay(b *testing.B) {
	r, w := io.Pipe()
	list := made(1, 700)
	many := make([]forward.Frame, 0, b.N)
	for range b.N {
		many = append(many, list[0])
	}
	ready := make(chan *Sender, 1)
	go func() {
		s, _ := NewSender(w, "")
		ready <- s
		_ = s.Feed(context.Background(), &frames{list: many})
	}()
	var j string
	src, err := Receive(r, &j, 0)
	if err != nil {
		b.Fatal(err)
	}
	sender := <-ready
	b.SetBytes(int64(len(list[0].Data)))
	go func() {
		_, changed := src.Taken()
		for range changed {
			taken, _ := src.Taken()
			sender.Credit(taken)
		}
	}()
	for f := (forward.Frame{}); src.Next(&f) == nil; {
	}
}
