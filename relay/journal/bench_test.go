package journal

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkAppend measures durable appends: each iteration is one event on
// disk.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 64} {
		for _, size := range []int{300, 1 << 10, 20 << 10} {
			b.Run(fmt.Sprintf("writers=%d/bytes=%d", writers, size), func(b *testing.B) {
				j := open(b, b.TempDir())
				padding := strings.Repeat("x", size)
				var n atomic.Int64
				b.SetParallelism(max(writers/runtime.GOMAXPROCS(0), 1))
				b.SetBytes(int64(size))
				one := func() {
					e := event(int(n.Add(1)))
					e.Body = []byte(padding)
					if _, err := j.Append(context.Background(), e); err != nil {
						b.Error(err)
					}
				}
				b.ResetTimer()
				if writers == 1 {
					for b.Loop() {
						one()
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							one()
						}
					})
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			})
		}
	}
}

// BenchmarkCatchUp measures a lane that reads a backlog from disk and settles
// it.
func BenchmarkCatchUp(b *testing.B) {
	dir := b.TempDir()
	j := open(b, dir)
	mustCursor(b, j, "shop", Start{})
	const total = 50_000
	appendMany(b, j, total)
	j.tail.reset(j.Head())
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		c := mustCursor(b, j, fmt.Sprint("lane", i), Start{Beginning: true})
		for done := 0; done < total; {
			for _, e := range next(b, c, time.Time{}, 500) {
				c.Delivered(e.Seq)
				done++
			}
		}
	}
	b.ReportMetric(float64(b.N)*total/b.Elapsed().Seconds(), "events/s")
}
