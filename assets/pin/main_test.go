package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/zeekdemo/zeekdemo/assets"
)

func images(t *testing.T, compose string, env map[string]string) map[string]string {
	t.Helper()
	p, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{WorkingDir: t.TempDir(), Environment: env,
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: []byte(compose)}}})
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for name, s := range p.Services {
		m[name] = s.Image
	}
	return m
}

// Every image gets its digest and nothing else changes; a second time is as good, and
// a replaced image stays what it was replaced by.
func TestPin(t *testing.T) {
	const digits = "0123456789abcdef"
	var asked []string
	digest := func(ref string) (string, error) {
		asked = append(asked, ref)
		return "sha256:" + strings.Repeat(digits[len(asked):len(asked)+1], 64), nil
	}
	plain := string(assets.Compose())
	pinned, err := pin(plain, digest)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Sort(asked); len(asked) != 7 || len(slices.Compact(asked)) != 7 {
		t.Errorf("asked for %q", asked)
	}
	tags := images(t, plain, nil)
	for name, image := range images(t, pinned, nil) {
		if ref, digest, _ := strings.Cut(image, "@"); ref != tags[name] || !digestForm.MatchString(digest) {
			t.Errorf("%s: image %s, want %s and a digest", name, image, tags[name])
		}
	}
	if got := images(t, pinned, map[string]string{"ZEEKDEMO_IMAGE_ZEEK": "example.org/zeek:1"})["zeek"]; got != "example.org/zeek:1" {
		t.Errorf("the replaced image is %s", got)
	}
	other := "sha256:" + strings.Repeat("f", 64)
	again, err := pin(pinned, func(string) (string, error) { return other, nil })
	if err != nil || strings.ReplaceAll(again, "@"+other, "") != plain {
		t.Errorf("pinned again, with %v, more than the digests changed", err)
	}
}

// Without every digest there is no release.
func TestPinIsRefused(t *testing.T) {
	away := errors.New("no such host")
	for name, tt := range map[string]struct {
		compose, digest string
		err             error
		want            string
	}{
		"registry away": {"image: ${ZEEKDEMO_IMAGE_A:-a:1}", "", away, "look up the digest of a:1: no such host"},
		"no digest":     {"image: ${ZEEKDEMO_IMAGE_A:-a:1}", "latest", nil, `the answer "latest" is none`},
		"no image":      {"services: {}", "", nil, "it has none"},
	} {
		_, err := pin(tt.compose, func(string) (string, error) { return tt.digest, tt.err })
		if err == nil || !strings.Contains(err.Error(), tt.want) || tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
