//go:build !race

package main

import "time"

// longestGap is how long nobody may accept while one process takes over from
// another.
const longestGap = time.Second
