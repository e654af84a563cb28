package bench

import (
	"context"
	"errors"
	"fmt"
	"os"

	mathrand "math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// sequential is a way to write to a disk: some files at once, so many bytes into each, fdatasync after each piece.
type sequential struct {
	files int
	bytes int64 // of one file
	piece int64
}

// diskRate returns at how many MB/s each of the files grows: what nobody can exceed who writes as many copies to this
// disk and syncs them.
func (b *bench) diskRate(ctx context.Context, w sequential) (rate float64, err error) {
	// A disk below may compress, or not store zeros at all.
	piece := make([]byte, w.piece)
	_, _ = mathrand.NewChaCha8([32]byte{1}).Read(piece) // it never fails
	dir := b.newDir("disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir), b.folder.settle()) }()
	if err := b.folder.settle(); err != nil {
		return 0, err
	}
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for range w.files {
		g.Go(func() error { return writeSynced(ctx, dir, w.bytes, piece) })
	}
	if err := g.Wait(); err != nil {
		return 0, fmt.Errorf("measure the disk: %w", err)
	}
	return float64(w.bytes) / 1e6 / time.Since(began).Seconds(), nil
}

// writeSynced writes a new file in dir.
func writeSynced(ctx context.Context, dir string, size int64, piece []byte) (err error) {
	f, err := os.CreateTemp(dir, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for left := size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.Write(piece[:min(left, int64(len(piece)))])
		if err != nil {
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}
