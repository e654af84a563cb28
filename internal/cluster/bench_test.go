package cluster

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"kingbus/internal/vfs"
)

// BenchmarkGroup commits through three nodes on this machine's disk, each with a
// folder and syncs of its own.
func BenchmarkGroup(b *testing.B) {
	for _, size := range []int{400, 64 << 10, 512 << 10} {
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			g := newGroup(b, "n1", "n2", "n3")
			for _, m := range g.nodes {
				dir := b.TempDir()
				m.change = func(c *Config) {
					c.FS, c.Dir, c.Machine = vfs.OS{}, dir, &sink{}
					c.SegmentBytes, c.InFlight, c.Heartbeat, c.Election = 0, 0, 0, 0
				}
			}
			g.start()
			leader := g.leader()
			payload := make([]byte, size)
			b.SetBytes(int64(size))
			b.ResetTimer()
			for range b.N {
				if err := leader.node.Propose(context.Background(), append([]byte(nil), payload...)); err != nil {
					b.Fatal(err)
				}
			}
			last := leader.node.segments.LastIndex()
			for _, m := range g.nodes {
				g.await("all is applied", func() bool { return m.node.Status().Applied >= last })
			}
			b.StopTimer()
			var mem runtime.MemStats
			runtime.ReadMemStats(&mem)
			b.ReportMetric(float64(mem.HeapSys)/(1<<20), "MiB-heap")
		})
	}
}

// sink is a state machine that keeps nothing.
type sink struct{}

func (*sink) Restore(uint64, []byte, []uint64) error    { return nil }
func (*sink) Apply([]Entry) error                       { return nil }
func (*sink) Checkpoint(uint64, uint64) ([]byte, error) { return nil, nil }
func (*sink) Snapshot() ([]byte, error)                 { return nil, nil }
func (*sink) Needs([]byte) (uint64, error)              { return 0, nil }
func (*sink) Replace([]byte) error                      { return nil }
func (*sink) Review([]Entry) error                      { return nil }
func (*sink) Adopt(uint64, []byte) error                { return nil }
