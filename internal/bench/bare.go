package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/mysqltest"
)

// The bare replica is a semi-sync replica that does what none can leave out that acknowledges what is on its disk: in
// one goroutine it reads an event, writes it, syncs, and acknowledges. It decodes nothing, keeps no state and has
// nobody to agree with, so no store that syncs can be much faster on the same machine and disk: it is the floor.

const (
	// bareSpace is how much of its file is written before it begins, so that its syncs are of data only. As kingbus's.
	bareSpace = 64 << 20
	// The header of semi-sync packets: magic, flags (semisync.h in MySQL's sources).
	semiSyncMagic  = 0xef
	semiSyncAsked  = 1
	semiSyncHeader = 2
)

// BareConfig says which source a bare replica has. The password is the line that it reads from Password.
type BareConfig struct {
	Source   string // host:port
	Have     string // GTID set that is not asked for
	File     string // is written
	Password io.Reader
}

// RunBare is the program of a bare replica. It ends when the source ends the connection.
func RunBare(ctx context.Context, cfg BareConfig) error {
	line, err := io.ReadAll(io.LimitReader(cfg.Password, 1024))
	if err != nil {
		return err
	}
	have, err := gtid.ParseSet(cfg.Have)
	if err != nil {
		return err
	}
	f, err := openBare(cfg.File)
	if err != nil {
		return err
	}
	defer f.Close() // each event is synced
	b := &bench{password: strings.TrimSpace(string(line))}
	r, err := b.openReader(ctx, cfg.Source)
	if err != nil {
		return err
	}
	defer r.client.Close() // the source has ended it, or it is broken
	if _, err := r.client.Exec(ctx, "SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1"); err != nil {
		return err
	}
	if err := r.follow(have); err != nil {
		return err
	}
	return r.acknowledge(f)
}

// openBare makes the file that a bare replica writes.
func openBare(name string) (f *os.File, err error) {
	if f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	_, err = f.WriteAt(make([]byte, bareSpace), 0)
	if err = errors.Join(err, f.Sync()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// acknowledge writes what comes, and syncs and acknowledges where the source asks.
func (r *reader) acknowledge(f *os.File) error {
	conn := r.client.Conn()
	conn.SplitSequence()
	var file string
	var answer []byte
	for at := int64(0); ; {
		if err := conn.NextPayload(); err != nil {
			return err
		}
		n, whole := conn.PacketRemaining()
		p, err := conn.Peek(n)
		if err != nil {
			return err
		}
		if !whole || n < 1+semiSyncHeader+binlog.HeaderSize || p[0] != 0 || p[1] != semiSyncMagic {
			return fmt.Errorf("an event was expected, with a semi-sync header: % x", p[:min(n, 32)])
		}
		event := p[1+semiSyncHeader:]
		h, err := binlog.ParseHeader(event)
		if err != nil {
			return err
		}
		if h.Type == binlog.TypeRotate { // the one with which the stream begins: u64 position, name, u32 checksum
			file = string(event[binlog.HeaderSize+8 : len(event)-4])
		}
		if _, err := f.WriteAt(event, at%bareSpace); err != nil {
			return err
		}
		at += int64(len(event))
		asked := p[2]&semiSyncAsked != 0
		if err := conn.DiscardPayload(); err != nil {
			return err
		}
		if !asked {
			continue
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		answer = binary.LittleEndian.AppendUint64(append(answer[:0], semiSyncMagic), uint64(h.LogPos))
		conn.SetWriteSequence(0)
		conn.SetReadSequence(1)
		if err := errors.Join(conn.WritePacket(append(answer, file...)), conn.Flush()); err != nil {
			return err
		}
	}
}

// bare is a bare replica as a process.
type bare struct {
	b    *bench
	inst *mysqltest.Instance
	proc *process
	file string
}

func (r *bare) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	have, err := r.inst.QueryValue(ctx, "SELECT @@global.gtid_executed")
	if err != nil {
		return err
	}
	r.file = r.b.newDir("bare")
	log, err := os.OpenFile(r.file+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, "bare-replica", r.inst.Addr(), have, r.file)
	cmd.Stdin, cmd.Stderr = strings.NewReader(r.b.password), log
	r.proc, err = startProcess(cmd)
	return err
}

// stop ends it at the source, which would notice late by itself.
func (r *bare) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	const dump = "SELECT COALESCE(MAX(processlist_id), 0) FROM performance_schema.threads WHERE processlist_command LIKE 'Binlog Dump%'"
	id, err := r.inst.QueryValue(ctx, dump)
	if err != nil {
		return err
	}
	if err := r.inst.Exec(ctx, "KILL "+id); err != nil {
		return err
	}
	if _, err := r.inst.Await(ctx, dump, func(rows [][]string) bool { return len(rows) == 1 && rows[0][0] == "0" }); err != nil {
		return err
	}
	return errors.Join(r.proc.stop(0), os.Remove(r.file))
}
