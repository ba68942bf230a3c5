//go:build !unix

package main

import "os"

// takeoverSignals are none: a successor cannot inherit the socket here.
var takeoverSignals []os.Signal
