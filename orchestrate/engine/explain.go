package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// explainReach says why the engine does not answer and what helps.
func explainReach(address string, err error) error {
	wrapped := fmt.Errorf("reach the Docker engine at %s: %w", address, oneLine{err})
	switch {
	case errors.Is(err, errNoAnswer):
		return orchestrate.WithHint(wrapped, "something listens there that says nothing: look at the engine (sudo systemctl status docker), and start it again")
	case strings.HasPrefix(address, "ssh://"):
		return orchestrate.WithHint(wrapped, "`ssh "+strings.TrimPrefix(address, "ssh://")+" docker version` has to work without a question")
	case errors.Is(err, os.ErrPermission) || strings.Contains(err.Error(), "permission denied"):
		return orchestrate.WithHint(wrapped, "run as root, or join the group that owns the socket: sudo usermod -aG docker $USER, then log in again")
	case client.IsErrConnectionFailed(err), strings.Contains(err.Error(), "no such file"), strings.Contains(err.Error(), "connection refused"):
		return orchestrate.WithHint(wrapped, "start the engine (sudo systemctl start docker, Docker Desktop or colima start); `docker context ls` shows which one is meant")
	}
	return orchestrate.WithHint(wrapped, "`docker version` tells whether Docker's own client gets further")
}

// portTaken matches what engines of different versions say of a port that
// cannot be published; the groups are a transport (may be missing) and the
// address.
//
//	Bind for 127.0.0.1:13000 failed: port is already allocated
//	failed to bind host port for 127.0.0.1:13000:172.18.0.2:3000/tcp: address already in use
//	listen tcp4 127.0.0.1:13000: bind: address already in use
//	failed to bind host port 127.0.0.1:13000/tcp: address already in use
var portTaken = regexp.MustCompile(`(?:Bind for|listen (tcp|udp)\d?|bind host port(?: for)?) (\S+?:\d+)[:/ ].*(?:already allocated|already in use)`)

// nameTaken matches what engines say of a container's name that another one has;
// the group is the name.
//
//	Conflict. The container name "/zeekdemo-grafana-1" is already in use by container "57329a...". You have to ...
var nameTaken = regexp.MustCompile(`container name "/?([^"]+)" is already in use`)

// imageMissing matches what engines say of an image that is not to be had.
var imageMissing = regexp.MustCompile(`(?i)no such image|pull access denied|manifest unknown|manifest for .* not found|not found: manifest|repository does not exist|failed to resolve reference|no such host|i/o timeout|TLS handshake timeout|x509:|connection refused|network is unreachable|Client\.Timeout`)

// explainUp says what kept Compose from bringing the stack up and what helps.
func explainUp(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("bring the stack up: %w", context.Cause(ctx))
	}
	text := err.Error()
	wrapped := fmt.Errorf("bring the stack up: %w", err)
	switch m := portTaken.FindStringSubmatch(text); {
	case m != nil:
		return &orchestrate.PortTakenError{Address: m[2], Protocol: transport(m[1], text), Err: err}
	case strings.Contains(text, "no space left on device"):
		return orchestrate.WithHint(wrapped, "the engine's disk is full: `docker system df` shows what fills it, `docker system prune` frees what is unused")
	case halfMade(err):
		return orchestrate.WithHint(wrapped, "`docker rm -f "+nameTaken.FindStringSubmatch(text)[1]+"` removes the container that has the name")
	case errdefs.IsNotFound(err) || imageMissing.MatchString(text):
		return orchestrate.WithHint(wrapped, "the image is neither here nor to be pulled: see the network and the name, choose another with --image NAME=REF, or build the project's own with `make images` and use --pull never")
	case strings.Contains(text, "Pool overlaps with other one on this address space") || strings.Contains(text, "all predefined address pools have been fully subnetted"):
		return orchestrate.WithHint(wrapped, "`docker network ls` shows what occupies the address ranges, `docker network prune` frees unused ones")
	}
	return wrapped
}

// transport finds out which protocol the port was to be published for where
// the message does not say so beside the address.
func transport(matched, text string) string {
	if matched != "" {
		return matched
	}
	if strings.Contains(text, "/udp") || strings.Contains(text, ":4789") || strings.Contains(text, ":6081") {
		return "udp"
	}
	return "tcp"
}

// oneLine is an error whose message is trimmed of the line breaks that SSH's
// output leaves in it.
type oneLine struct{ error }

func (o oneLine) Error() string { return strings.Join(strings.Fields(o.error.Error()), " ") }

func (o oneLine) Unwrap() error { return o.error }
