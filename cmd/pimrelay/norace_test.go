//go:build !race

package main

import "time"

// longestGap is how long nobody may accept while one process takes over from
// another.
const longestGap = time.Second

// raceDetector says whether this is built with the race detector, under which a
// process takes about a second to start.
const raceDetector = false
