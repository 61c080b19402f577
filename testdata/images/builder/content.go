package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// layout is part of every content hash: raise it when the builder makes other
// images from the same recipes.
const layout = 1

// contentHash is the hash of everything that decides what the image holds: the
// recipe, the sources, the module files, the Go version and the architecture.
func contentHash(ctx context.Context, r recipe) (string, error) {
	env, err := output(ctx, "", "go", "env", "GOVERSION", "GOARCH")
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d\n%+v\n%s\n", layout, r, env)
	files, err := sources(r)
	if err != nil {
		return "", err
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", filepath.ToSlash(name), len(data))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sources lists the files a recipe's program is built from, tests left out.
func sources(r recipe) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(r.source, "*.go"))
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	return append(files, filepath.Join(r.module, "go.mod"), filepath.Join(r.module, "go.sum")), nil
}
