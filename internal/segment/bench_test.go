package segment

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"kingbus/internal/vfs"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func BenchmarkAppendSync(b *testing.B) {
	for _, size := range []int{300, 4 << 10, 64 << 10, 256 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l, _, err := Open(vfs.OS{}, b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			batch := []Entry{{Term: 1, Data: make([]byte, 24), Payload: randomBytes(size)}}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				batch[0].Index++
				if _, err := l.Append(batch); err != nil {
					b.Fatal(err)
				}
				if err := l.Sync(); err != nil {
					b.Fatal(err)
				}
				if batch[0].Index%64 == 0 {
					if err := l.DropBefore(batch[0].Index); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{300, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l, _, err := Open(vfs.OS{}, b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			payload := randomBytes(size)
			for i := uint64(1); i <= uint64(128<<20/size); i++ {
				if _, err := l.Append([]Entry{{Index: i, Term: 1, Data: make([]byte, 24), Payload: payload}}); err != nil {
					b.Fatal(err)
				}
			}
			r, err := l.NewReader(Location{Segment: 1, Offset: headerSize})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { r.Close() }()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, _, err := r.Next()
				if err == io.EOF {
					r.Close()
					if r, err = l.NewReader(Location{Segment: 1, Offset: headerSize}); err == nil {
						_, _, err = r.Next()
					}
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
