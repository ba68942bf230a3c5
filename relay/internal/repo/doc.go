// Package repo holds tests about the repository as a whole: which package may
// import which, that every package says what it is for, and that the
// configuration files shown to users are complete and load.
package repo
