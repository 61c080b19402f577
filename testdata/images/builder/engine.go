package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// The labels of an image that was built here.
const (
	labelContent = "zeekdemo.content"
	labelStandIn = "zeekdemo.standin"
)

// image is what the engine has under a name.
type image struct {
	exists  bool
	content string // labelContent; "" where it was not built here
}

// inspect looks the tag up in the engine.
func inspect(ctx context.Context, tag string) (image, error) {
	out, err := output(ctx, "", "docker", "image", "ls", "--quiet", "--no-trunc", tag)
	if err != nil || out == "" {
		return image{}, err
	}
	out, err = output(ctx, "", "docker", "image", "inspect", "--format", "{{json .Config.Labels}}", tag)
	if err != nil {
		return image{}, err
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(out), &labels); err != nil {
		return image{}, fmt.Errorf("read the labels of %s: %w", tag, err)
	}
	return image{exists: true, content: labels[labelContent]}, nil
}

// importImage turns the root file system that write produces into an image.
// Unlike a build it lets us choose each file's owner, and every engine has it.
func importImage(ctx context.Context, tag string, changes []string, write func(io.Writer) error) error {
	args := []string{"import"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	cmd := exec.CommandContext(ctx, "docker", append(args, "-", tag)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	writeErr := write(in)
	closeErr := in.Close()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("docker import: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return errors.Join(writeErr, closeErr)
}

// output runs a command in dir and returns its standard output, trimmed.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}
