package engine

import (
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// What a sidecar may use. The window of frames on their way and Go's runtime
// need a tenth of the memory.
const (
	sidecarMemory  = 256 << 20
	sidecarPIDs    = 128 // threads
	sidecarUser    = "65534:65534"
	sidecarGoLimit = "GOMEMLIMIT=160MiB"
)

// sidecarOptions describes a container with nothing it could do but send: no
// capability, no new privileges, nobody's user, a read-only root. The image is
// the sensor's, by its ID: the name may mean another one by now.
func sidecarOptions(s orchestrate.SidecarSpec, image string) client.ContainerCreateOptions {
	o := companionOptions(s, s.Program, sidecarMemory, sidecarPIDs)
	o.Config.Image, o.Config.User, o.Config.Env = image, sidecarUser, []string{sidecarGoLimit}
	o.Config.Entrypoint, o.Config.Cmd = []string{orchestrate.SidecarProgram}, s.Args
	o.HostConfig.NetworkMode = container.NetworkMode("container:" + s.Sensor)
	return o
}
