// Package relay carries frames from one process to another that sends them: a
// replay whose packets cannot be sent from where its captures are.
//
// The stream is a run of records, each a kind (1 byte), the length of its body
// (4 bytes, little-endian) and the body:
//
//	'J'  the job: a document that both ends agree on; the first record, once
//	'F'  a frame: captured time (8), wire length, segment, loop (4 each), link
//	     type (2), then its bytes
//	'P'  nothing: the sender lives
//	'S'  stop now: what has not been taken yet is not wanted any more
//	'E'  the end: every frame has been written; pings go on, and a stop may follow
//
// The receiver reads the stream as fast as it comes, into a ring of [Window]
// bytes, though it takes the frames at their own pace. So a stop, the end of
// the connection or silence is seen at once, and not behind frames that are due
// in an hour. In return the sender keeps to a credit: it never has more than
// Window bytes of frame records on the way that the receiver has not said it
// has taken. How that is said ([Source.Taken] to [Sender.Credit]) is the
// caller's business, as is the way back altogether.
package relay

import (
	"encoding/binary"
	"errors"

	"github.com/zeekdemo/zeekdemo/forward"
)

// Window is the size of the receiver's ring, in bytes of frame records: some
// tens of milliseconds of a fast sender's, so that the way's delay does not
// slow it down.
const Window = 4 << 20

// The kinds of records.
const (
	kindJob   = 'J'
	kindFrame = 'F'
	kindPing  = 'P'
	kindStop  = 'S'
	kindEnd   = 'E'
)

// Sizes in bytes.
const (
	headLen   = 5  // kind and length
	frameLen  = 23 // what precedes a frame's bytes in its body
	maxJob    = 1 << 20
	maxFrame  = 512 << 10 // longer than any capture format lets a frame be
	bufferLen = 256 << 10 // of the buffered reader and writer
)

// ErrStopped ends a Source whose sender asked for it.
var ErrStopped = errors.New("stopped by the sender")

// ErrLost ends a Source whose sender is gone (the stream ended before every frame
// was taken, or nothing came for too long), and a Sender whose stream cannot be written
// any more.
var ErrLost = errors.New("the other end is gone")

// putFrame writes a frame record's head and body up to the frame's bytes.
func putFrame(b []byte, f *forward.Frame) {
	le := binary.LittleEndian
	b[0] = kindFrame
	le.PutUint32(b[1:], uint32(frameLen+len(f.Data)))
	le.PutUint64(b[5:], uint64(f.Time))
	le.PutUint32(b[13:], uint32(f.Length))
	le.PutUint32(b[17:], uint32(f.Segment))
	le.PutUint32(b[21:], uint32(f.Loop))
	le.PutUint16(b[25:], uint16(f.LinkType))
	b[27] = 0
	if f.Retimed {
		b[27] = 1
	}
}

// frame reads a frame record's body; the frame's data lies in b.
func frame(b []byte, f *forward.Frame) {
	le := binary.LittleEndian
	f.Time = int64(le.Uint64(b))
	f.Length = int(le.Uint32(b[8:]))
	f.Segment = int(le.Uint32(b[12:]))
	f.Loop = int(le.Uint32(b[16:]))
	f.LinkType = forward.LinkType(le.Uint16(b[20:]))
	f.Retimed = b[22] != 0
	f.Data = b[frameLen:]
}
