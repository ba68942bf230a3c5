package journal

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
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

// BenchmarkAppendWithIDs measures durable appends beside a million remembered
// ids.
func BenchmarkAppendWithIDs(b *testing.B) {
	dir := b.TempDir()
	j := open(b, dir)
	const ids = 1_000_000
	if err := j.apply(context.Background(), func(s *store) error {
		for n := range ids {
			if _, err := s.insertID.Exec(n+1, idHash("catalog", event(n).ID), time.Now().UnixMicro()); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	closeJournal(b, j)
	j = open(b, dir)
	var n atomic.Int64
	n.Store(ids)
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			e := event(int(n.Add(1)))
			e.Body = []byte(strings.Repeat("x", 1<<10))
			if _, err := j.Append(context.Background(), e); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkCommitAt1000 paces appends at 1,000 a second and reports how long
// they take, checkpoints included.
func BenchmarkCommitAt1000(b *testing.B) {
	j := open(b, b.TempDir())
	c := mustCursor(b, j, "shop", Start{})
	var took []time.Duration
	var mu sync.Mutex
	var wg sync.WaitGroup
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for i := 0; b.Loop(); i++ {
		<-ticker.C
		wg.Go(func() {
			e := event(i)
			e.Body = []byte(strings.Repeat("x", 1<<10))
			began := time.Now()
			if _, err := j.Append(context.Background(), e); err != nil {
				b.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(began))
		})
		if i%100 == 0 {
			c.Delivered(seqs(next(b, c, time.Now(), 200))...)
		}
	}
	wg.Wait()
	slices.Sort(took)
	for name, share := range map[string]float64{"p50-ms": 0.5, "p99-ms": 0.99, "p99.9-ms": 0.999, "max-ms": 1} {
		b.ReportMetric(float64(took[int(share*float64(len(took)-1))].Microseconds())/1000, name)
	}
}
