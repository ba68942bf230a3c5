module github.com/pimrelay/pimrelay

go 1.26.0
