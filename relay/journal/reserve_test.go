package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
)

// When the disk is full events are refused, and what has been settled is
// written all the same: the reserve makes room for it.
func TestFullDisk(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, j *Journal) {
		limit := func(pages int) {
			if err := j.apply(t.Context(), func(s *store) error { return s.exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)) }); err != nil {
				t.Fatal(err)
			}
		}
		c := mustCursor(t, j, "shop", Start{})
		appendNow(t, j, 1, 3, 10)
		pass(2 * time.Second)
		if info, err := os.Stat(j.reservePath()); err != nil || info.Size() != reserveBytes {
			t.Fatalf("the reserve: %v, %v", info, err)
		}
		live, free, err := j.bytes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		limit(int((live+free)/pageBytes) + 10)
		before := j.store
		n := 4
		for ; err == nil; n++ {
			e := event(n)
			e.Body = make([]byte, 10<<10)
			_, err = j.Append(context.Background(), e)
		}
		if !errors.Is(err, ErrFull) || n < 5 {
			t.Fatalf("append %d: %v, want ErrFull", n, err)
		}
		if _, err := os.Stat(j.reservePath()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the reserve is still there: %v", err)
		}
		c.Delivered(seqs(next(t, c, time.Now(), 2))...)
		if err := j.settle(); err != nil {
			t.Errorf("settlements on a full disk: %v", err)
		}
		if _, err := j.Append(t.Context(), event(1000)); !errors.Is(err, ErrFull) {
			t.Errorf("append without a reserve: %v, want ErrFull", err)
		}
		limit(1 << 20)
		pass(2 * time.Second)
		mustAppend(t, j, event(1001))
		if j.store != before {
			t.Error("the database was reopened for want of room")
		}
	})
}
