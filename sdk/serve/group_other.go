//go:build !unix

package serve

func endGroup() {}
