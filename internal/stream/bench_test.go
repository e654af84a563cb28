package stream

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"kingbus/internal/binlog"
	"kingbus/internal/binlogtest"
	"kingbus/internal/vfs"
)

// BenchmarkAppend is the durable way in, on the real disk: from a run to an
// applied entry. The small runs are pipelined, as from a busy source.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{500, 16 << 10, MaxRun - 200} {
		b.Run(fmt.Sprintf("run=%d", size), func(b *testing.B) {
			s, err := Open(Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			ctx := context.Background()
			if _, err := s.Lead(ctx); err != nil {
				b.Fatal(err)
			}
			l, err := s.StartLink(ctx, Source{UUID: testUUID.String()})
			if err != nil {
				b.Fatal(err)
			}
			if err := l.Rotate(ctx, "binlog.000001"); err != nil {
				b.Fatal(err)
			}
			w := binlogtest.Writer{UUID: testUUID, Checksum: binlog.ChecksumCRC32}
			if err := l.Append(ctx, append(make([]byte, RunHeader), w.Begin(nil)...)); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := l.Append(ctx, w.Transaction(make([]byte, RunHeader, RunHeader+size), size-200)); err != nil {
					b.Fatal(err)
				}
			}
			for at, changed := l.Applied(); at.Pos != w.Pos; at, changed = l.Applied() {
				<-changed
			}
		})
	}
}

// BenchmarkRead is the way out: from memory (the tail) and from disk.
func BenchmarkRead(b *testing.B) {
	for _, tail := range []int{1, 256 << 20} {
		b.Run(fmt.Sprintf("tail=%d", tail), func(b *testing.B) {
			s, err := Open(Config{Dir: b.TempDir(), TailBytes: tail})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			ctx := context.Background()
			if _, err := s.Lead(ctx); err != nil {
				b.Fatal(err)
			}
			l, err := s.StartLink(ctx, Source{UUID: testUUID.String()})
			if err != nil {
				b.Fatal(err)
			}
			if err := l.Rotate(ctx, "binlog.000001"); err != nil {
				b.Fatal(err)
			}
			w := binlogtest.Writer{UUID: testUUID, Checksum: binlog.ChecksumCRC32}
			run := w.Begin(make([]byte, RunHeader))
			for range 400 {
				for len(run) < MaxRun {
					run = w.Transaction(run, 500)
				}
				if err := l.Append(ctx, run); err != nil {
					b.Fatal(err)
				}
				run = make([]byte, RunHeader)
			}
			for at, changed := l.Applied(); at.Pos != w.Pos; at, changed = l.Applied() {
				<-changed
			}
			b.SetBytes(int64(w.Pos))
			b.ReportAllocs()
			for b.Loop() {
				r, err := s.SeekPosition("", 4)
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, err = r.Next()
				}
				if err != ErrEnd {
					b.Fatal(err)
				}
				_ = r.Close()
			}
		})
	}
}

// BenchmarkFanOut is a run on its way to many readers that wait at the end.
func BenchmarkFanOut(b *testing.B) {
	for _, readers := range []int{1, 100} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			s, err := Open(Config{FS: vfs.NewMem(1), Dir: "data"})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			ctx := context.Background()
			if _, err := s.Lead(ctx); err != nil {
				b.Fatal(err)
			}
			l, err := s.StartLink(ctx, Source{UUID: testUUID.String()})
			if err != nil {
				b.Fatal(err)
			}
			if err := l.Rotate(ctx, "binlog.000001"); err != nil {
				b.Fatal(err)
			}
			w := binlogtest.Writer{UUID: testUUID, Checksum: binlog.ChecksumCRC32}
			if err := l.Append(ctx, w.Begin(make([]byte, RunHeader))); err != nil {
				b.Fatal(err)
			}
			var end atomic.Uint64 // 0 while it is not known
			var wait sync.WaitGroup
			for range readers {
				r, err := s.SeekPosition("", 4)
				if err != nil {
					b.Fatal(err)
				}
				wait.Go(func() {
					defer r.Close()
					for {
						changed := s.Changed()
						_, err := r.Next()
						for err == nil {
							_, err = r.Next()
						}
						if err != ErrEnd {
							b.Error(err)
							return
						}
						if r.Start().Pos == end.Load() {
							return
						}
						<-changed
					}
				})
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := l.Append(ctx, w.Transaction(make([]byte, RunHeader, RunHeader+500), 300)); err != nil {
					b.Fatal(err)
				}
			}
			last := w.Transaction(make([]byte, RunHeader), 300)
			end.Store(w.Pos)
			if err := l.Append(ctx, last); err != nil {
				b.Fatal(err)
			}
			wait.Wait()
		})
	}
}
