package drops

import (
	"strings"
	"testing"
)

func ptr(n uint64) *uint64 { return &n }

// What other sockets of the sensor's system took is not counted as the run's, and
// hides no loss of it: what cannot be told is said.
func TestOthersPacketsAreNotTheRuns(t *testing.T) {
	tests := []struct {
		name                       string
		run                        Run
		taken, others, doubt, lost uint64
		verdict                    string
	}{
		{"nobody else", Run{Sent: 432, Taken: 432}, 432, 0, 0, 0, "all 432 packets were taken by the sensor"},
		{"as many answers as questions", Run{Sent: 432, Taken: 438, Others: 6}, 432, 6, 0, 0,
			"all 432 packets were taken by the sensor; its system took 6 more that were others', such as answers to questions of its own"},
		{"a question without an answer, or a loss", Run{Sent: 432, Taken: 437, Others: 6}, 432, 5, 1, 0,
			"at least 431 of 432 packets were taken by the sensor; up to 6 of what its system took were others', such as answers to questions of its own"},
		{"the sensor says that there was no loss", Run{Sent: 432, Taken: 437, Others: 6, Witness: ptr(432)}, 432, 5, 0, 0,
			"all 432 packets were taken by the sensor; its system took 5 more that were others', such as answers to questions of its own"},
		{"answers that would hide a loss", Run{Sent: 432, Taken: 432, Others: 6, Witness: ptr(426)}, 426, 6, 0, 6,
			"6 of 432 packets lost: no counter tells where"},
		{"a loss that answers make smaller", Run{Sent: 432, Taken: 430, Others: 6}, 430, 0, 6, 2, "at least 2 of 432 packets lost: no counter tells where"},
		{"a witness that cannot be right: too few", Run{Sent: 432, Taken: 437, Others: 6, Witness: ptr(0)}, 432, 5, 1, 0, "at least 431 of 432"},
		{"a witness that cannot be right: too many", Run{Sent: 432, Taken: 437, Others: 6, Witness: ptr(438)}, 432, 5, 1, 0, "at least 431 of 432"},
		{"somebody else sends to the sensor", Run{Sent: 100, Taken: 104, Others: 1}, 100, 4, 100, 0,
			"the sensor's system took 104 packets, 100 were sent: others' are among them, so how many of this run's were taken cannot be told"},
		{"and the sensor says so too", Run{Sent: 100, Taken: 104, Witness: ptr(104)}, 100, 4, 100, 0, "others' are among them"},
		{"somebody else may send", Run{Sent: 100, Taken: 100, Unbounded: true}, 100, 0, 100, 0, "100 were sent: others' may be among them"},
		{"but the sensor took as many as were sent", Run{Sent: 100, Taken: 140, Unbounded: true, Witness: ptr(100)}, 100, 40, 0, 0, "all 100 packets were taken"},
		{"some wait", Run{Sent: 100, Taken: 90, Others: 2, QueuedBytes: 4096}, 90, 0, 2, 0,
			"at least 88 of 100 packets were taken by the sensor; the others still wait in its queue"},
	}
	for _, tt := range tests {
		l := Settle(nil, nil, tt.run)
		if l.Taken != tt.taken || l.Others != tt.others || l.Doubt != tt.doubt || l.Lost != tt.lost || !strings.Contains(l.Verdict, tt.verdict) {
			t.Errorf("%s: %+v", tt.name, l)
		}
		if l.Taken > l.Sent || l.Taken+l.Others != tt.run.Taken {
			t.Errorf("%s: of %d taken %d are the run's, %d others'", tt.name, tt.run.Taken, l.Taken, l.Others)
		}
	}
}

// What was in the queue of a socket that went is lost, and is said to be there as
// far as that is known.
func TestSocketsThatWent(t *testing.T) {
	socket := Snapshot{{"sensor", OfSocket, "socket 0.0.0.0:4789 #7", 3}}
	for _, tt := range []struct {
		run     Run
		after   Snapshot
		verdict string
	}{
		{Run{Sent: 100, Taken: 88, Gone: []string{"0.0.0.0:4789 #7 of the sensor"}, InGone: 12}, nil,
			"12 of 100 packets lost: 12 may have been in the queue of 0.0.0.0:4789 #7 of the sensor, which has gone"},
		{Run{Sent: 100, Taken: 85, Gone: []string{"0.0.0.0:4789 #7 of the sensor"}, InGone: 12}, socket,
			"15 of 100 packets lost: dropped at socket 0.0.0.0:4789 #7 of the sensor (3); 12 may have been in the queue of 0.0.0.0:4789 #7 of the sensor, which has gone"},
		{Run{Sent: 100, Taken: 88, Gone: []string{"a", "b"}}, nil, "12 of 100 packets lost: some may have been in the queue of a, b, which has gone"},
		{Run{Sent: 100, Taken: 100, Gone: []string{"a"}}, nil, "all 100 packets were taken by the sensor"},
		{Run{Sent: 100, Taken: 100, Gone: []string{"a of the sensor"}, Died: []string{"a"}}, nil,
			"all 100 packets were taken by the sensor; a ended meanwhile: what it had taken and not logged is lost, and how much that was is not known"},
	} {
		if l := Settle(nil, tt.after, tt.run); l.Verdict != tt.verdict {
			t.Errorf("got  %s\nwant %s", l.Verdict, tt.verdict)
		}
	}
}
