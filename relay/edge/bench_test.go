package edge

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkHandler is the door's own cost, without net/http's.
func BenchmarkHandler(b *testing.B) {
	d := newDoor(b, nil)
	for _, size := range []int{1 << 10, 12 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			body := bytes.Repeat([]byte("x"), size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodPost, "/hooks/catalog/products", bytes.NewReader(body))
				r.Header.Set(signatureHeader, "00")
				w := httptest.NewRecorder()
				d.serve(w, r)
				if w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
			}
		})
	}
}

// BenchmarkDoor is one delivery of 1 KiB over plain HTTP/1.1 on a connection
// that is kept.
func BenchmarkDoor(b *testing.B) {
	d := startDoor(b, nil)
	body := bytes.Repeat([]byte("x"), 1<<10)
	request := fmt.Appendf(nil, "POST /hooks/catalog/products HTTP/1.1\r\nHost: x\r\n%s: 00\r\nContent-Length: %d\r\n\r\n%s", signatureHeader, len(body), body)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("tcp", d.addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for pb.Next() {
			if _, err := c.Write(request); err != nil {
				b.Error(err)
				return
			}
			resp, err := http.ReadResponse(in, nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				b.Error(resp, err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
		}
	})
}
