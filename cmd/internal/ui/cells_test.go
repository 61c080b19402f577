package ui

import (
	"slices"
	"testing"
)

func TestCutKeepsWithinTheCells(t *testing.T) {
	for _, tt := range []struct {
		text  string
		width int
		want  string
	}{
		{"eth0: 1 packet", 14, "eth0: 1 packet"},
		{"eth0: 1 packet", 13, "eth0: 1 pack…"},
		{"größer", 4, "grö…"},
		{"抓包文件.pcap", 8, "抓包文…"},                                // two cells each
		{"抓包文件.pcap", 7, "抓包文…"},                                // and none is cut in half
		{"\x1b[31mLOST HERE\x1b[0m", 5, "\x1b[31mLOST…\x1b[0m"}, // an escape sequence takes none, and stays
		{"e\u0301e\u0301e\u0301", 2, "e\u0301…"},                // nor does an accent
		{"x", 0, ""}, {"x", -3, ""}, {"", -1, ""},
	} {
		got := Cut(tt.text, tt.width)
		if got != tt.want || Width(got) > max(tt.width, 0) {
			t.Errorf("%q to %d: %q of %d cells, want %q", tt.text, tt.width, got, Width(got), tt.want)
		}
	}
}

func TestPadFillsTheCells(t *testing.T) {
	for text, want := range map[string]string{"a": "a    ", "抓包": "抓包 ", "too long": "too long"} {
		if got := Pad(text, 5); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestWrapBreaksBetweenWords(t *testing.T) {
	for _, tt := range []struct {
		text  string
		width int
		want  []string
	}{
		{"cure: zeekdemo replay --direct", 22, []string{"cure: zeekdemo replay", "--direct"}}, // not after a hyphen
		{"抓包 抓包 抓包", 9, []string{"抓包 抓包", "抓包"}},
		{"incomprehensible words", 8, []string{"incompr…", "words"}},
		{"", 8, []string{""}},
	} {
		if got := Wrap(tt.text, tt.width); !slices.Equal(got, tt.want) {
			t.Errorf("%q to %d: %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}
