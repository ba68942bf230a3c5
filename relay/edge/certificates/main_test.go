package certificates

import (
	"io"
	"log"
	"testing"

	"go.uber.org/goleak"
)

var quiet = log.New(io.Discard, "", 0)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// certmagic keeps a rate limiter for each authority as long as the
		// process lives, and notices late that a lock has been released; the
		// validation of pebble never ends.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"),
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
		goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"),
	)
}
