// Package sdktest is the conformance suite for forwarders: the cases that a
// relay brings about sooner or later, from a misspelt key in the configuration
// to a destination that takes an event and never says so.
//
// A forwarder's author runs it in a test:
//
//	func TestConformance(t *testing.T) {
//		destination, err := sdktest.ListenHTTP()
//		if err != nil {
//			t.Fatal(err)
//		}
//		defer destination.Close()
//		subject := sdktest.Subject{Config: json.RawMessage(`{"url": "` + destination.URL() + `"}`), Destination: destination}
//		for name, newForwarder := range map[string]sdktest.Maker{"in process": sdktest.InProcess(New), "over gRPC": sdktest.OverGRPC(New)} {
//			subject.New = newForwarder
//			t.Run(name, func(t *testing.T) { sdktest.Run(t, subject) })
//		}
//	}
//
// and `pimrelay plugin verify` runs the same cases against any executable. A
// case passes, fails, or is left out because the forwarder does not promise
// what it is about or because the suite lacks what it needs, and says so.
//
// A call that panics or never returns fails its case, and the suite goes on.
// What a destination does with events beyond taking them, and whether a
// forwarder writes what its destination expects, is left to the forwarder's own
// tests.
package sdktest
