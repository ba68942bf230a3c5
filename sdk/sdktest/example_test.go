package sdktest_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/pimrelay/pimrelay/sdk/sdktest"
)

// In a test, sdktest.Run makes subtests of the cases. They need none: this runs
// them one by one, with a forwarder behind a gRPC connection.
func Example() {
	destination, err := sdktest.ListenHTTP()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer destination.Close()
	subject := sdktest.Subject{
		New:         sdktest.OverGRPC(newPoster),
		Config:      json.RawMessage(`{"url": "` + destination.URL() + `", "token": "hunter2"}`),
		Destination: destination,
	}
	for _, c := range sdktest.Cases() {
		if r := c.Run(context.Background(), subject); r.Status != sdktest.Passed {
			fmt.Printf("%s: %s: %s\n", r.Case, r.Status, r.Detail)
		}
	}
	// Output:
	// faulty-configurations: left out: its author has given none
}
