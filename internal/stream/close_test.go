package stream

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"kingbus/internal/cluster"
	"kingbus/internal/vfs"
)

// TestCommandEndsWithNode: who waits for a command hears of it when the stream is
// closed, or the node fails, though its own context never ends.
func TestCommandEndsWithNode(t *testing.T) {
	for _, how := range []string{"close", "fail"} {
		t.Run(how, func(t *testing.T) {
			fs := vfs.NewMem(1)
			r := newRig(t, fs)
			if err := r.s.Close(); err != nil {
				t.Fatal(err)
			}
			full := make(chan struct{}, 1)
			r.cfg.Log = slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
				if strings.Contains(string(b), "disk is full") {
					select {
					case full <- struct{}{}:
					default:
					}
				}
				return len(b), nil
			}), nil))
			r.open()
			r.start()
			r.rotate()
			r.wait()
			broken := errors.New("broken disk")
			want := ErrClosed
			if how == "fail" {
				fs.Fail(vfs.OpSync, 1, broken)
				want = broken
			} else {
				fs.SetLimit(0) // the command stays in the queue, behind this
				if err := r.s.node.Propose(context.Background(), make([]byte, 300<<10)); err != nil {
					t.Fatal(err)
				}
				<-full
			}
			done := make(chan error, 1)
			waits := func() bool {
				r.s.mu.RLock()
				defer r.s.mu.RUnlock()
				return len(r.s.waiters) > 0
			}
			go func() { done <- r.s.Purge(context.Background(), r.name) }()
			if how == "close" {
				for !waits() {
					time.Sleep(time.Millisecond)
				}
				if err := r.s.Close(); err != nil {
					t.Error(err)
				}
			}
			select {
			case err := <-done:
				if !errors.Is(err, want) && !errors.Is(err, cluster.ErrClosed) { // it may not have been taken any more
					t.Errorf("got %v, want %v", err, want)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it waits for ever")
			}
			<-r.link.Lost()
			if err := r.link.Err(); !errors.Is(err, ErrLinkLost) {
				t.Errorf("the link: %v", err)
			}
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestReaderErrors: a purge and Close are told as such, also when they come after
// the reader has looked at the state and before it reads the disk.
func TestReaderErrors(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	if err := r.s.Close(); err != nil {
		t.Fatal(err)
	}
	r.cfg.TailBytes, r.cfg.SegmentBytes = 1, 64<<10
	r.open()
	r.start()
	for range 4 {
		r.rotate()
		r.transactions(40, 8000)
		r.append(r.w.Rotate(nil, "binlog.999999"))
	}
	r.wait()
	old, err := r.s.SeekPosition("binlog.000001", 4)
	if err != nil {
		t.Fatal(err)
	}
	current, err := r.s.SeekPosition(r.name, 4)
	if err != nil {
		t.Fatal(err)
	}
	before := r.s.Status().Node.FirstIndex
	if err := r.s.Purge(context.Background(), r.name); err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(20 * time.Second); r.s.Status().Node.FirstIndex <= before; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("no space was given back")
		}
	}
	if _, err := old.readDisk(); !errors.Is(err, ErrPurgedAway) {
		t.Errorf("after a purge: %v", err)
	}
	_ = old.Close()
	if err := r.s.Close(); err == nil {
		t.Error("a reader was left open, and nobody noticed")
	}
	if _, err := current.readDisk(); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := current.Next(); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	_ = current.Close()
	var pe *PositionError
	if _, err := r.s.SeekPosition(r.name, 3); !errors.As(err, &pe) {
		t.Errorf("position 3: %v", err)
	}
}

// TestLinksAreForgotten: the leadership does not remember links of the past.
func TestLinksAreForgotten(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	r.start()
	old := r.link
	r.start()
	<-old.Lost()
	if old.unlead() {
		t.Error("a link that was replaced still watches the leadership")
	}
	if err := r.link.Err(); err != nil {
		t.Errorf("the new link: %v", err)
	}
}
