package engine

import (
	"context"
	"fmt"

	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

var _ orchestrate.Sized = (*Engine)(nil)

// Capacity asks the engine how large its machine is.
func (e *Engine) Capacity(ctx context.Context) (orchestrate.Capacity, error) {
	about, err := e.client.Info(ctx, client.InfoOptions{})
	if err != nil {
		return orchestrate.Capacity{}, fmt.Errorf("ask the engine for its machine's size: %w", err)
	}
	return orchestrate.Capacity{CPUs: about.Info.NCPU, Memory: about.Info.MemTotal}, nil
}
