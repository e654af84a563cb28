package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// joinLog gives leader a log of the size that is wanted, from a set that is fed again and again, and makes the set of
// the source that the leader can follow from there on: the newest file alone, with the source's uuid. Such a server
// takes what came before for purged.
func (b *bench) joinLog(ctx context.Context, leader *kingbus, sp spec) (*dataset, error) {
	var next *dataset
	err := b.withSource(ctx, sp, func(ctx context.Context, src *origin) error {
		if _, err := b.ingestInto(ctx, leader, src, "prepare"); err != nil {
			return err
		}
		if err := leader.stop(true); err != nil {
			return err
		}
		grown, err := b.grow(ctx, leader.dir, src, b.cfg.JoinGB)
		if err != nil {
			return err
		}
		next, err = b.exported(ctx, leader, src.dataset, grown.End.File)
		return err
	})
	return next, err
}

// exported makes a set of one file that a kingbus which does not run has.
func (b *bench) exported(ctx context.Context, k *kingbus, of *dataset, file string) (*dataset, error) {
	dir := b.newDir("newest")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, k.b.cfg.Kingbus, "export", "--data-dir", k.dir, "--file", file, "--out", filepath.Join(dir, file))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("export %s: %w: %s", file, err, out)
	}
	uuid, err := os.ReadFile(filepath.Join(of.dir, "auto.cnf"))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "auto.cnf"), uuid, 0o640),
		os.WriteFile(filepath.Join(dir, "binlog.index"), []byte("./"+file+"\n"), 0o640),
	); err != nil {
		return nil, err
	}
	return openSet(of.spec, dir)
}
