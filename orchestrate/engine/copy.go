package engine

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"

	"github.com/moby/moby/client"
)

// copyFile copies a file of this machine into a folder of a container, as a tar
// archive of the one entry that is written while it is sent. The entry's size is
// set here.
func (e *Engine) copyFile(ctx context.Context, id, file, folder string, entry tar.Header) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	entry.Size = info.Size()
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeTar(w, f, &entry)) }()
	_, err = e.client.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: folder, Content: r})
	r.CloseWithError(errors.New("the engine reads no more")) // ends the writer
	return err
}

// writeTar writes an archive of one file, of which no more than the entry's size
// is read.
func writeTar(w io.Writer, f io.Reader, entry *tar.Header) error {
	archive := tar.NewWriter(w)
	if err := archive.WriteHeader(entry); err != nil {
		return err
	}
	if _, err := io.CopyN(archive, f, entry.Size); err != nil {
		return err
	}
	return archive.Close()
}
