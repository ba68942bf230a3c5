package journal

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDeadLetterFilters(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, j *Journal) {
		shop, file := mustCursor(t, j, "shop", Start{}), mustCursor(t, j, "file", Start{})
		appendNow(t, j, 1, 4, 10)
		start := time.Now()
		for _, c := range []*Cursor{shop, file} {
			for _, e := range next(t, c, time.Now(), 4) {
				reason := "answered 400"
				if e.Seq%2 == 0 {
					reason = "no such TOPIC"
				}
				pass(time.Minute)
				c.Dead(DeadLetter{Source: "catalog", Seq: e.Seq, ID: e.Event.ID, Type: e.Event.Type, Reason: reason, First: time.Now(), Last: time.Now()})
				pass(time.Second * 2) // numbers in this order
			}
		}
		if err := j.AppendUnreadable(t.Context(), "other", []byte("?"), "no JSON", time.Now()); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name   string
			filter DeadLetterFilter
			want   []int64
		}{
			{"all", DeadLetterFilter{}, []int64{9, 8, 7, 6, 5, 4, 3, 2, 1}},
			{"forwarder", DeadLetterFilter{Forwarder: "file"}, []int64{8, 7, 6, 5}},
			{"source", DeadLetterFilter{Source: "other"}, []int64{9}},
			{"unreadable", DeadLetterFilter{Unreadable: true}, []int64{9}},
			{"type", DeadLetterFilter{Type: event(1).Type, Limit: 3}, []int64{8, 7, 6}},
			{"reason", DeadLetterFilter{Reason: "topic"}, []int64{8, 6, 4, 2}},
			{"page", DeadLetterFilter{After: 3}, []int64{2, 1}},
			{"numbers", DeadLetterFilter{Numbers: []int64{2, 9, 77}}, []int64{9, 2}},
			{"time", DeadLetterFilter{Since: start.Add(2 * time.Minute), Until: start.Add(4 * time.Minute)}, []int64{3, 2}},
		} {
			var got []int64
			for _, d := range letters(t, j, tt.filter) {
				got = append(got, d.Number)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, diff)
			}
		}
		d, e, err := j.DeadLetter(t.Context(), 2)
		if err != nil || d.Seq != 2 || e.ID != event(2).ID {
			t.Errorf("dead letter 2: %+v, %+v, %v", d, e, err)
		}
		if d, e, err := j.DeadLetter(t.Context(), 9); err != nil || e != nil || string(d.Body) != "?" {
			t.Errorf("dead letter 9: %+v, %+v, %v", d, e, err)
		}
		if n, err := j.DiscardDeadLetters(t.Context(), DeadLetterFilter{Reason: "topic", Forwarder: "shop"}); n != 2 || err != nil {
			t.Errorf("discard: %d, %v", n, err)
		}
		if _, _, err := j.DeadLetter(t.Context(), 2); !errors.Is(err, ErrNoDeadLetter) {
			t.Errorf("a dead letter that was discarded: %v", err)
		}
		if n, err := j.RetryDeadLetters(t.Context(), DeadLetterFilter{}); n != 6 || err != nil {
			t.Errorf("retry: %d, %v", n, err)
		}
		if diff := cmp.Diff([]int64{1, 3}, seqs(next(t, shop, time.Now(), 10))); diff != "" {
			t.Errorf("due again (-want +got):\n%s", diff)
		}
	})
}

func TestReplayFilters(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, j *Journal) {
		c := mustCursor(t, j, "shop", Start{})
		start := time.Now()
		for n := 1; n <= 6; n++ {
			pass(time.Minute)
			e := event(n)
			e.Received, e.Entity, e.Type = time.Now(), "product:"+string(rune('a'+n%2)), "t."+string(rune('a'+n%3))
			mustAppend(t, j, e)
		}
		c.Delivered(seqs(next(t, c, time.Now(), 6))...)
		for _, tt := range []struct {
			name   string
			filter Filter
			want   []int64
		}{
			{"time", Filter{From: start.Add(2 * time.Minute), To: start.Add(4 * time.Minute)}, []int64{2, 3}},
			{"types", Filter{Types: []string{"t.a", "t.b"}}, []int64{1, 3, 4, 6}},
			{"entity", Filter{Entity: "product:a"}, []int64{2, 4, 6}},
			{"ids", Filter{IDs: []string{event(5).ID, "unknown"}}, []int64{5}},
			{"all", Filter{}, []int64{1, 2, 3, 4, 5, 6}},
		} {
			n, err := j.Replay(t.Context(), "shop", tt.filter)
			entries := next(t, c, time.Now(), 20)
			if diff := cmp.Diff(tt.want, seqs(entries)); diff != "" || n != len(tt.want) || err != nil {
				t.Errorf("%s: %d, %v (-want +got):\n%s", tt.name, n, err, diff)
			}
			for _, e := range entries {
				if !e.Replayed || !e.Event.Replayed {
					t.Errorf("%s: event %d is not marked as replayed", tt.name, e.Seq)
				}
			}
			c.Delivered(seqs(entries)...)
		}
		if _, err := j.Replay(t.Context(), "nobody", Filter{}); err == nil {
			t.Error("a replay to a forwarder that does not exist")
		}
	})
}
