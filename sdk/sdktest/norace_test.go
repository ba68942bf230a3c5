//go:build !race

package sdktest_test

// everyCaseRuns says whether a defective forwarder runs the cases, too, that must
// not find its defect.
const everyCaseRuns = true
