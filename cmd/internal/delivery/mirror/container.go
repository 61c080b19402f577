package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// containerInterfaces finds the devices of this machine behind which a container
// is: the other ends of its veth pairs.
func containerInterfaces(ctx context.Context, e orchestrate.Engine, name string) ([]string, error) {
	if _, err := e.Info(ctx); err != nil {
		return nil, err
	}
	list, err := e.Containers(ctx, "")
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(c orchestrate.Container) bool {
		return c.Name == name || len(name) >= 12 && strings.HasPrefix(c.ID, name)
	})
	switch {
	case i < 0:
		return nil, orchestrate.WithHint(errors.New("there is no container of this name"), "`docker ps` lists containers by their names")
	case !list[i].Running():
		return nil, fmt.Errorf("it is %s", list[i].State)
	case list[i].PID <= 0 || len(list[i].Addresses) > 0 && !list[i].RunsHere():
		return nil, orchestrate.WithHint(errors.New("it does not run on this machine, but where the engine is"),
			"name an interface of this machine instead")
	}
	return hostEnds(list[i].PID)
}
