package edge

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type acceptAll struct{}

func (acceptAll) Accept(context.Context, *Delivery) Answer { return Accepted }

// A connection that sends nothing does not hold up the end: whoever comes after
// waits for it.
func TestSilentConnectionDoesNotHoldUpTheEnd(t *testing.T) {
	t.Parallel()
	s, err := New(Options{
		Acceptor: acceptAll{}, Signed: func(http.Header) bool { return true }, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		LameDuck: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), listener) }()
	silent, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	// An answer on another connection shows that the silent one, which came
	// first, has been accepted.
	resp, err := http.Get("http://" + listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	began := time.Now()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 3*time.Second { // net/http alone would wait 5 s
		t.Errorf("the end took %s", took)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
