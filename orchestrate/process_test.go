package orchestrate

import "testing"

func TestProcessFrom(t *testing.T) {
	const after = " 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1000 10"
	for stat, want := range map[string]seen{
		"7 (zeekdemo) S" + after: {true, 4242}, "7 (a) Z (b)) R" + after: {true, 4242},
		"7 (zeekdemo) Z" + after: {false, 4242}, "7 (zeekdemo) S 1": {exists: true}, "": {exists: true},
	} {
		if got := processFrom(stat); got != want {
			t.Errorf("%q: %+v, want %+v", stat, got, want)
		}
	}
}
