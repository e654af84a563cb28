// Package vfs is the seam between the store and the filesystem.
//
// Everything that kingbus keeps on disk goes through [FS] and [File], so that the tests can run the same code on [Mem],
// where power fails, writes tear, syncs fail and disks are full whenever a test wants it. [OS] is the real one.
//
// The contract is what POSIX promises and not what one filesystem happens to do:
//   - Written bytes survive power loss only after Sync or SyncData of that file returned nil. Until then any part of them, in any
//     order, may be on disk; a byte that no write touched keeps its value.
//   - A name that was created, renamed or removed is only certain to stay so after SyncDir of its folder; syncing the file is not enough.
//   - After a failed sync the written bytes may be lost although reading still shows them, and the next sync may report success.
//     Only DropCache followed by reading tells what is really there.
package vfs

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
)

// ErrLocked is returned by [FS.Lock] when another process (or, for Mem, another owner) holds the lock.
var ErrLocked = errors.New("locked by another process")

// FS is a filesystem. Its methods may be called concurrently. Names are paths as the operating system takes them.
// Errors match io/fs.ErrNotExist, io/fs.ErrExist and syscall.ENOSPC with errors.Is where these apply.
type FS interface {
	// Create makes a new empty file, open for reading and writing. It never opens an existing one.
	Create(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// OpenWrite opens an existing file for reading and writing, and leaves its content alone.
	OpenWrite(name string) (File, error)
	// Remove removes a file. Files that are open stay readable.
	Remove(name string) error
	// Rename moves a file atomically, and replaces what had the new name.
	Rename(from, to string) error
	// ReadDir returns the names in a folder, sorted.
	ReadDir(dir string) ([]string, error)
	// MkdirAll makes a folder and its parents, durably. An existing folder is no error.
	MkdirAll(dir string) error
	// SyncDir makes creations, renames and removals in a folder durable.
	SyncDir(dir string) error
	// Lock takes the exclusive lock that the (possibly new) file name stands for, or fails with ErrLocked.
	// Closing the result, or the end of the process, gives it back.
	Lock(name string) (io.Closer, error)
	// Space tells how much room the filesystem of dir has.
	Space(dir string) (Space, error)
}

// Space is the room of a filesystem in bytes; Free is what this process may still use.
type Space struct{ Free, Total uint64 }

// File is an open file. Reading may go on concurrently with everything but Close; the rest is for one goroutine at a time.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WritevAt writes bufs one behind the other at off, with as few system calls as possible.
	// It returns the bytes written, which are fewer than given only with an error.
	WritevAt(bufs [][]byte, off int64) (int, error)
	// SyncData makes the written bytes durable, and what it takes to read them back (fdatasync).
	SyncData() error
	// Sync also makes all other metadata durable (fsync). It is the one to call after Truncate.
	Sync() error
	// Truncate cuts the file off, or extends it by zero bytes.
	Truncate(size int64) error
	// Size returns the length of the file in bytes.
	Size() (int64, error)
	// DropCache forgets cached pages that are not dirty, so that the next reads show what is on the medium. It is a hint.
	DropCache() error
	// Close closes the file, and syncs nothing.
	Close() error
}

// WriteFile replaces the file name by data so that a crash leaves either the old or the new content, durably, never a mixture:
// it writes and syncs name+".tmp", renames it, and syncs the folder.
func WriteFile(fs FS, name string, data []byte) error {
	tmp := name + ".tmp"
	f, err := fs.Create(tmp)
	if err != nil { // left over by a crash
		if rerr := fs.Remove(tmp); rerr != nil {
			return err
		}
		if f, err = fs.Create(tmp); err != nil {
			return err
		}
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = fs.Remove(tmp) // best effort: a leftover is replaced the next time
		return err
	}
	if err := fs.Rename(tmp, name); err != nil {
		return err
	}
	return fs.SyncDir(filepath.Dir(name))
}

// ReadFile returns the content of a file of at most limit bytes; a longer one is an error.
func ReadFile(fs FS, name string, limit int64) (data []byte, err error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("read %s: %d bytes are more than the %d that such a file may have", name, size, limit)
	}
	data = make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if err == io.EOF {
		err = nil
	}
	return data[:n], err
}
