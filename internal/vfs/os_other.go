//go:build !linux

package vfs

import (
	"errors"
	"os"
)

// kingbus runs on Linux; elsewhere this much is there for building and for reading with the tools.

func (f *osFile) WritevAt(bufs [][]byte, off int64) (total int, err error) {
	for _, b := range bufs {
		n, err := f.WriteAt(b, off+int64(total))
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (f *osFile) SyncData() error { return f.wrap("sync", f.Sync()) }

func (f *osFile) DropCache() error { return nil }

func flock(*os.File) error { return nil }

func space(string) (Space, error) { return Space{}, errors.ErrUnsupported }
