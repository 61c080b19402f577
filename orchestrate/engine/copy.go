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
	f, err := openEntry(file, header)
	if err != nil {
		return err
	}
	defer f.Close()
	return e.copyIn(ctx, id, folder, f.entry)
}

// openedEntry is an entry whose content is a file of this machine.
type openedEntry struct {
	entry
	*os.File
}

// openEntry opens the file and sets the header's size.
func openEntry(file string, header tar.Header) (o openedEntry, err error) {
	f, err := os.Open(file)
	if err != nil {
		return o, err
	}
	info, err := f.Stat()
	if err != nil {
		return o, errors.Join(err, f.Close())
	}
	header.Size = info.Size()
	return openedEntry{entry{header, f}, f}, nil
}

// copyIn copies files into a folder of a container, as one tar archive that is
// written while it is sent: for each archive the engine mounts the container. So
// nothing of this machine is mounted, and the engine may be elsewhere.
func (e *Engine) copyIn(ctx context.Context, id, folder string, files ...entry) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeTar(w, files...)) }()
	_, err := e.client.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: folder, Content: r})
	r.CloseWithError(errors.New("the engine reads no more")) // ends the writer
	return err
}

// writeTar writes an archive of the files, of each of which no more than the
// entry's size is read.
func writeTar(w io.Writer, files ...entry) error {
	archive := tar.NewWriter(w)
	for _, f := range files {
		if err := archive.WriteHeader(&f.Header); err != nil {
			return err
		}
		if _, err := io.CopyN(archive, f.content, f.Size); err != nil {
			return err
		}
	}
	return archive.Close()
}
