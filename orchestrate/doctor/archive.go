package doctor

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/zeekdemo/zeekdemo/orchestrate"
	"github.com/zeekdemo/zeekdemo/orchestrate/internal/statefile"
)

// bundleFolder is the one folder in a bundle, so that unpacking it litters
// nothing.
const bundleFolder = "zeekdemo-bundle/"

// CanWrite refuses before anything is collected what could not be written after
// it. Nothing is overwritten: the file may be another bundle, which was
// made when the trouble was there.
func CanWrite(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return orchestrate.WithHint(fmt.Errorf("write the bundle %s: %w", path, fs.ErrExist), "remove it, or choose another name")
	}
	f, err := createBeside(path)
	if err != nil {
		return err
	}
	return statefile.Discard(f)
}

// createBeside makes a file of its owner only, mode 0600, in the folder of path.
func createBeside(path string) (*os.File, error) {
	f, err := statefile.Create(path)
	var cause *fs.PathError
	if errors.As(err, &cause) {
		err = cause.Err // its own name means nothing to anybody
	}
	if err != nil {
		return nil, fmt.Errorf("write the bundle %s: create a file in its folder: %w", path, err)
	}
	return f, nil
}

// WriteFile writes the bundle as a compressed tar archive: a file that is there as
// a whole or not at all, for its owner only. It returns its size in bytes.
func (b Bundle) WriteFile(path string, now time.Time) (size int64, err error) {
	f, err := createBeside(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, statefile.Discard(f)) }()
	if err := errors.Join(b.archive(f, now), f.Sync()); err != nil {
		return 0, fmt.Errorf("write the bundle %s: %w", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("write the bundle %s: %w", path, err)
	}
	err = os.Link(f.Name(), path) // unlike a rename, it replaces nothing
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = os.Rename(f.Name(), path) // a file system without links
	}
	if err != nil {
		return 0, fmt.Errorf("write the bundle %s: %w", path, err)
	}
	return info.Size(), nil
}

// archive writes the files as a compressed tar archive.
func (b Bundle) archive(w io.Writer, now time.Time) error {
	zipped := gzip.NewWriter(w)
	tarred := tar.NewWriter(zipped)
	for _, f := range b.Files {
		header := &tar.Header{Name: bundleFolder + f.Name, Mode: 0o600, Size: int64(len(f.Data)), ModTime: now, Typeflag: tar.TypeReg}
		if err := tarred.WriteHeader(header); err != nil {
			return err
		}
		if _, err := tarred.Write(f.Data); err != nil {
			return err
		}
	}
	return errors.Join(tarred.Close(), zipped.Close())
}
