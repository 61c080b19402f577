package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"sync"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/compose/v5/pkg/api"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// load turns a project into Compose's model. Interpolation sees the project's
// own environment only.
func load(ctx context.Context, p orchestrate.Project) (*types.Project, error) {
	details := types.ConfigDetails{
		WorkingDir:  "/", // nothing in the file is relative to it
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: p.Compose}},
		Environment: types.Mapping(p.Env),
	}
	project, err := loader.LoadWithContext(ctx, details, func(o *loader.Options) {
		o.SetProjectName(p.Name, true)
	})
	if err != nil {
		return nil, fmt.Errorf("load the stack: %w", err)
	}
	for name, s := range project.Services {
		s.CustomLabels = labels(project, name)
		s.PullPolicy = string(p.Pull)
		if len(s.Configs) > 0 {
			s.Labels = s.Labels.Add(configurationLabel, configuration(project, s))
		}
		project.Services[name] = s
	}
	return project, nil
}

// configurationLabel names what a container's inline configurations hold. Compose
// makes a container anew where its service changed, and a service only names its
// configurations: without this another content of one would change nothing.
const configurationLabel = "org.zeekdemo.configuration"

// configuration is the hash of what a service's configurations hold.
func configuration(project *types.Project, s types.ServiceConfig) string {
	h := sha256.New()
	for _, c := range s.Configs {
		content := project.Configs[c.Source].Content
		fmt.Fprintf(h, "%s %d\n%s", c.Target, len(content), content)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// labels are those by which Compose finds a project's containers again. Its own
// loader sets them after loading; a project loaded past it lacks them, and
// `down` would find nothing.
func labels(project *types.Project, service string) types.Labels {
	return types.Labels{
		api.ProjectLabel:     project.Name,
		api.ServiceLabel:     service,
		api.VersionLabel:     api.ComposeVersion,
		api.WorkingDirLabel:  project.WorkingDir,
		api.ConfigFilesLabel: "embedded",
		api.OneoffLabel:      "False",
	}
}

// loaded keeps the model of the last project: all containers of a run are made of
// one, and to load it takes as long as to make a container. The model is shared, so
// nobody changes it.
type loaded struct {
	mu      sync.Mutex
	of      orchestrate.Project
	project *types.Project // nil before the first
}

// load is [load] where the project is another one than before.
func (l *loaded) load(ctx context.Context, p orchestrate.Project) (*types.Project, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.project != nil && reflect.DeepEqual(l.of, p) {
		return l.project, nil
	}
	of := p
	p.Env = maps.Clone(p.Env) // loading writes the project's name into it
	project, err := load(ctx, p)
	if err != nil {
		return nil, err
	}
	l.of, l.project = of, project
	return project, nil
}
