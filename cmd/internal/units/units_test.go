package units

import (
	"testing"
	"time"
)

func TestNumbersForPeople(t *testing.T) {
	for got, want := range map[string]string{
		Count(0):                        "0",
		Count(999):                      "999",
		Count(60604):                    "60 604",
		Count(-1234567):                 "-1 234 567",
		Bytes(512):                      "512 B",
		Bytes(21_493_321):               "21.5 MB",
		Bytes(999_999):                  "1.00 MB",
		BitRate(941e6):                  "941 Mbit/s",
		PacketRate(168_321):             "168 kpps",
		PacketRate(0.5):                 "0.50 pps",
		Duration(1240 * 1000 * 1000):    "1.24s",
		Duration(35 * time.Microsecond): "35µs",
		Duration(2*time.Hour + 5*time.Minute + time.Second): "2h5m",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
