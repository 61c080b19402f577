package transmit

import (
	"context"
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// tc runs iproute2's tc with the words of line.
func tc(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command(testenv.NeedTool(t, "tc"), strings.Fields(line)...).CombinedOutput(); err != nil {
		t.Fatalf("tc %s: %v: %s", line, err, out)
	}
}

// TestOwnQueueDrops sends more than this machine's own queue takes. What is offered
// again until it is taken is no loss; of a super-packet, which counts as taken with its
// first segment, the rest is lost, and that is said.
func TestOwnQueueDrops(t *testing.T) {
	for _, noGSO := range []bool{false, true} {
		t.Run(fmt.Sprintf("without super-packets %v", noGSO), func(t *testing.T) {
			net := newRouted(t)
			tc(t, "-n "+net.tx+" qdisc add dev eth0 root tbf rate 5mbit burst 3000 latency 2ms")
			fd := listen(t, net.way, near4)
			const each, times = 250, 4
			with(t, net.tx, Options{Destination: near4, Mode: UDP, NoGSO: noGSO, Sockets: 1}, func(tr Transmitter) error {
				b := makeBatch(1, slices.Repeat([]int{500}, each)...)
				for i := range b.Datagrams {
					b.Datagrams[i].Port = DefaultPortMin
				}
				for range times {
					if err := sendBatch(tr, b); err != nil {
						return err
					}
				}
				s := tr.Settle(context.Background())
				missing := each*times - len(receive(t, fd))
				checkQueueTrouble(t, s, missing)
				if noGSO != (missing == 0) {
					t.Errorf("%d of %d are missing", missing, each*times)
				}
				if again := tr.Settle(context.Background()); len(again.Lost()) != len(s.Lost()) {
					t.Errorf("again: %+v", again.Troubles)
				}
				return nil
			})
		})
	}
}

// checkQueueTrouble wants what is missing to be said, and no more than that.
func checkQueueTrouble(t *testing.T, s Stats, missing int) {
	t.Helper()
	var said uint64
	for _, lost := range s.Lost() {
		if lost.Kind != OwnQueue || lost.Device != "eth0" || !strings.Contains(lost.String(), "the queue of eth0 dropped at least") {
			t.Errorf("%+v: %s", lost, lost)
		}
		said += lost.Count
	}
	if said > uint64(missing) || (said == 0) != (missing == 0) {
		t.Errorf("%d are missing, %d said to be: %+v", missing, said, s.Troubles)
	}
}

// Lost is what can neither have passed nor wait. What others may have lost is noted,
// what was given again is not.
func TestJudgeQueue(t *testing.T) {
	const wrap = math.MaxUint32
	for name, tt := range map[string]struct {
		before, after    queueCounts
		given, again     uint64
		perPacket, count uint64
		kind             TroubleKind
	}{
		"all passed":                    {after: queueCounts{passed: 100}, given: 100},
		"nothing was dropped":           {after: queueCounts{passed: 90}, given: 100},
		"most were dropped":             {after: queueCounts{passed: 135, dropped: 4865}, given: 5000, kind: OwnQueue, count: 4865},
		"others lost more":              {after: queueCounts{passed: 90, dropped: 500}, given: 100, kind: OwnQueue, count: 10},
		"others passed, too":            {after: queueCounts{passed: 100, dropped: 10}, given: 100, kind: SharedQueue, count: 10},
		"some wait":                     {after: queueCounts{passed: 80, dropped: 15, waiting: 10}, given: 100, kind: OwnQueue, count: 10},
		"super-packets wait":            {after: queueCounts{passed: 80, dropped: 15, waiting: 1}, given: 100, perPacket: 64, kind: SharedQueue, count: 15},
		"all were given again":          {after: queueCounts{passed: 100, dropped: 10}, given: 100, again: 10},
		"some were given again":         {after: queueCounts{passed: 100, dropped: 10}, given: 100, again: 7, kind: SharedQueue, count: 3},
		"given again, and dropped then": {after: queueCounts{passed: 95, dropped: 10}, given: 100, again: 10, kind: OwnQueue, count: 5},
		"before does not count":         {before: queueCounts{passed: 50, dropped: 9}, after: queueCounts{passed: 150, dropped: 9}, given: 100},
		"the count of packets wraps":    {before: queueCounts{passed: wrap}, after: queueCounts{passed: 89, dropped: 10}, given: 100, kind: OwnQueue, count: 10},
		"counted anew":                  {before: queueCounts{passed: 50, dropped: 9}, after: queueCounts{passed: 5, dropped: 1}, given: 100},
	} {
		t.Run(name, func(t *testing.T) {
			got := judgeQueue(tt.before, tt.after, tt.given, tt.again, max(1, tt.perPacket))
			if got == nil {
				got = &Trouble{}
			}
			if got.Kind != tt.kind || got.Count != tt.count {
				t.Errorf("%+v", *got)
			}
		})
	}
}
