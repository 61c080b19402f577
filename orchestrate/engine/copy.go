package engine

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"

	"github.com/moby/moby/client"
)

// entry is a file for a container. Its header has the size.
type entry struct {
	tar.Header
	content io.Reader
}

// copyFile copies a file of this machine into a folder of a container. The
// header's size is set here.
func (e *Engine) copyFile(ctx context.Context, id, file, folder string, header tar.Header) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	return e.copyIn(ctx, id, folder, entry{header, f})
}

// copyIn copies a file into a folder of a container, as a tar archive of the one
// entry that is written while it is sent. So nothing of this machine is mounted,
// and the engine may be elsewhere.
func (e *Engine) copyIn(ctx context.Context, id, folder string, file entry) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(file.writeTar(w)) }()
	_, err := e.client.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: folder, Content: r})
	r.CloseWithError(errors.New("the engine reads no more")) // ends the writer
	return err
}

// writeTar writes an archive of one file, of which no more than the entry's size
// is read.
func (f entry) writeTar(w io.Writer) error {
	archive := tar.NewWriter(w)
	if err := archive.WriteHeader(&f.Header); err != nil {
		return err
	}
	if _, err := io.CopyN(archive, f.content, f.Size); err != nil {
		return err
	}
	return archive.Close()
}
