package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progress shows how far something is: one live line on a terminal, a plain
// line a second otherwise.
type progress struct {
	out  io.Writer
	live bool
	last time.Time
}

func newProgress(out io.Writer) *progress {
	file, ok := out.(*os.File)
	return &progress{out: out, live: ok && term.IsTerminal(int(file.Fd()))}
}

// while asks done until it is so, ctx ends, or it returns an error, and shows
// line meanwhile.
func (p *progress) while(ctx context.Context, done func() (bool, error), line func() string) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	p.last = time.Now()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		p.show(line())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *progress) show(line string) {
	switch {
	case p.live:
		fmt.Fprintf(p.out, "\r\x1b[K%s", line)
	case time.Since(p.last) >= time.Second:
		p.last = time.Now()
		fmt.Fprintln(p.out, line)
	}
}

// done shows a line that stays.
func (p *progress) done(line string) {
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	fmt.Fprintln(p.out, line)
}

// end leaves the cursor at the beginning of a line.
func (p *progress) end() {
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
