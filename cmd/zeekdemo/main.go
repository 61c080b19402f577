// Command zeekdemo shows people their own packets through Zeek.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/zeekdemo/zeekdemo/cmd/internal/cli"
)

// version is the release; the linker sets it from the tag.
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := cli.Main(ctx, os.Args[1:], cli.System(version))
	stop()
	os.Exit(code)
}
