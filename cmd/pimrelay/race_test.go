//go:build race

package main

import "time"

// longestGap leaves room for the race detector, under which a process takes
// about ten times as long to start.
const longestGap = 10 * time.Second

// raceDetector says whether this is built with the race detector, under which a
// process takes about a second to start.
const raceDetector = true
