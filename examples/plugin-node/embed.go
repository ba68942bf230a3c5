// Package pluginnode holds the files that every forwarder plugin in Node.js has
// in common, so that `pimrelay plugin new --lang node` writes the very files that
// this example runs with. The forwarder itself, forwarder.js, is not among them.
package pluginnode

import "embed"

// Files are the contract, the program, the packages that they need, and what
// fetch's answers need.
//
//go:embed answer.js config.js forwarder.proto main.js package.json package-lock.json pimrelay.js
var Files embed.FS
