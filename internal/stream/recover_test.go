package stream

import (
	"testing"

	"kingbus/internal/vfs"
)

// TestRecover: what only the log has, behind the last checkpoint, is in the plan and in the
// stream afterwards.
func TestRecover(t *testing.T) {
	r := newRig(t, vfs.NewMem(1))
	r.start()
	r.rotate()
	r.transactions(20, 100)
	r.wait()
	if err := r.s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := Config{FS: r.fs, Dir: r.cfg.Dir} // as the command gives it
	done, err := Recover(cfg, func(plan RecoverPlan) bool {
		if want := (Coordinates{r.name, uint64(len(r.want[r.name])) + 4}); plan.End != want || plan.Source != want || !plan.Executed.Equal(r.w.Executed) {
			t.Errorf("plan: %v, %v of the source, %v; want %v and %v", plan.End, plan.Source, plan.Executed, want, r.w.Executed)
		}
		return true
	})
	if !done || err != nil {
		t.Fatalf("%v, %v", done, err)
	}
	r.open()
	r.check()
}
