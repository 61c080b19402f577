// Command pin gives the images of the stack's Compose file their digests: a release
// runs exactly what it was made and tried with, whatever becomes of a tag.
//
//	go run ./assets/pin	in the project's folder; it writes assets/stack/compose.yaml
//
// A release does this before it builds (.goreleaser.yaml); the file in the repository
// names tags alone, which a machine without a registry can build (make images). It
// needs docker with buildx, and asks the registry: a digest is that of the list of
// all platforms' images, so it is good for each of them. An image that a variable
// replaces is what the variable says.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
)

const composeFile = "assets/stack/compose.yaml"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "pin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	text, err := os.ReadFile(composeFile)
	if err != nil {
		return err
	}
	pinned, err := pin(string(text), func(ref string) (string, error) { return askRegistry(ctx, ref) })
	if err != nil {
		return err
	}
	return os.WriteFile(composeFile, []byte(pinned), 0o644) //nolint:gosec // G306: a source file, for everybody to read
}

var (
	// defaultImage is the image that a service has unless its variable is set.
	defaultImage = regexp.MustCompile(`(image: \$\{ZEEKDEMO_IMAGE_\w+:-)([^}@\s]+)(@[^}\s]*)?\}`)
	digestForm   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// pin adds to every default image its digest, in place of an older one.
func pin(compose string, digest func(ref string) (string, error)) (string, error) {
	known := map[string]string{}
	for _, m := range defaultImage.FindAllStringSubmatch(compose, -1) {
		ref := m[2]
		if known[ref] != "" {
			continue
		}
		d, err := digest(ref)
		if err != nil {
			return "", fmt.Errorf("look up the digest of %s: %w", ref, err)
		}
		if !digestForm.MatchString(d) {
			return "", fmt.Errorf("look up the digest of %s: the answer %q is none", ref, d)
		}
		known[ref] = d
	}
	if len(known) == 0 {
		return "", fmt.Errorf("pin the images of %s: it has none", composeFile)
	}
	return defaultImage.ReplaceAllStringFunc(compose, func(found string) string {
		m := defaultImage.FindStringSubmatch(found)
		return m[1] + m[2] + "@" + known[m[2]] + "}"
	}), nil
}

// askRegistry returns the digest that a tag has now.
func askRegistry(ctx context.Context, ref string) (string, error) {
	out, err := exec.CommandContext(ctx, "docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", ref).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}
