package vfs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// OS is the real filesystem.
type OS struct{}

var _ FS = OS{}

// Create makes a new file; see [FS].
func (OS) Create(name string) (File, error) { return open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL) }

// Open opens a file for reading; see [FS].
func (OS) Open(name string) (File, error) { return open(name, os.O_RDONLY) }

// OpenWrite opens a file for reading and writing; see [FS].
func (OS) OpenWrite(name string) (File, error) { return open(name, os.O_RDWR) }

// Remove removes a file; see [FS].
func (OS) Remove(name string) error { return os.Remove(name) }

// Rename moves a file; see [FS].
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// ReadDir lists a folder; see [FS].
func (OS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// MkdirAll makes a folder, readable by its owner and group only, and syncs the parent of every folder that it made.
func (o OS) MkdirAll(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if info.IsDir() {
			return nil
		}
		return fmt.Errorf("%s is a file, not a folder", dir)
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := o.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !os.IsExist(err) {
		return err
	}
	return o.SyncDir(parent)
}

// SyncDir syncs a folder; see [FS].
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// Lock takes an advisory lock (flock) on a file; see [FS].
func (OS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil
}

// Space asks the filesystem; see [FS].
func (OS) Space(dir string) (Space, error) { return space(dir) }

// osFile adds what os.File lacks. Calls by descriptor are safe because the owner of a File does not close it during a call.
type osFile struct {
	*os.File
	fd int
}

func open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f, fd: int(f.Fd())}, nil
}

func (f *osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *osFile) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: f.Name(), Err: err}
}
