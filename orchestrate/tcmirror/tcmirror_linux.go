package tcmirror

import (
	"context"
	"errors"
	"net/netip"
)

func supports(Spec) error { return errors.ErrUnsupported }

func start(context.Context, Spec) (Mirror, error) { return Mirror{}, errors.ErrUnsupported }

func list() ([]Mirror, error) { return nil, nil }

func stop(Mirror) error { return nil }

func follow(Mirror, netip.AddrPort, []netip.AddrPort) error { return nil }
