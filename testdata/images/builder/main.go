// Command builder makes the stack's images from source, for machines that
// reach no image registry. Each image is built once: it carries a label with
// the hash of everything it was made from, and one whose label still fits is
// left as it is. So is an image that has no such label, because somebody
// pulled it: the real one is better than ours.
//
//	builder [NAME...]	zeek grafana exporter gateway prometheus collector loki; all of them by default
//
// It runs in testdata/images and needs Go and a docker command.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// run brings every named image up to date and says so in one line each. A
// failed image does not keep the others from being built.
func run(ctx context.Context, names []string, stdout io.Writer) error {
	chosen, err := choose(recipes(), names)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range chosen {
		start := time.Now()
		outcome, err := bring(ctx, r)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.name, err))
			outcome = "failed"
		}
		fmt.Fprintf(stdout, "%-11s %-46s %s (%.1f s)\n", r.name, r.tag, outcome, time.Since(start).Seconds())
	}
	return errors.Join(errs...)
}

// choose picks the recipes by name, in the recipes' order.
func choose(all []recipe, names []string) ([]recipe, error) {
	if len(names) == 0 {
		return all, nil
	}
	var chosen []recipe
	for _, r := range all {
		if slices.Contains(names, r.name) {
			chosen = append(chosen, r)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(r recipe) bool { return r.name == name }) {
			return nil, fmt.Errorf("no image %q; there are %s", name, strings.Join(recipeNames(all), " "))
		}
	}
	return chosen, nil
}

func recipeNames(all []recipe) []string {
	var names []string
	for _, r := range all {
		names = append(names, r.name)
	}
	return names
}

// bring makes the recipe's image unless it is there, and says what it did.
func bring(ctx context.Context, r recipe) (string, error) {
	want, err := contentHash(ctx, r)
	if err != nil {
		return "", err
	}
	found, err := inspect(ctx, r.tag)
	if err != nil {
		return "", err
	}
	switch {
	case found.exists && found.content == want:
		return "cached", nil
	case found.exists && found.content == "":
		return "left alone, it was not built here", nil
	}
	if err := build(ctx, r, want); err != nil {
		return "", err
	}
	if r.standIn {
		return "built, a stand-in", nil
	}
	return "built", nil
}
