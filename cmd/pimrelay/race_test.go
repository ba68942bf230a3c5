//go:build race

package main

import "time"

// longestGap leaves room for the race detector, under which a process takes
// about ten times as long to start.
const longestGap = 10 * time.Second
