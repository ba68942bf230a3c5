package relay_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	signaturePrimary   = "X-Akeneo-Signature-Primary"
	signatureSecondary = "X-Akeneo-Signature-Secondary"
	signatureAlgorithm = "X-Akeneo-Signature-Algorithm"
)

// wellSigned is how many events of the siege are rightly signed, besides those of
// the platform: of signatures the replayed one and three odd ones, of
// pathsAndMethods the one that is sent to ugly paths, of malformed the one with a
// folded header, and of http2 one.
const wellSigned = 7

// signatures are replayed, forged and malformed.
func (s *siege) signatures() {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	send := func(attack string, body []byte, change func(http.Header), want int) {
		s.t.Helper()
		req, err := http.NewRequest(http.MethodPost, "https://"+s.address()+"/hooks/catalog", bytes.NewReader(body))
		if err != nil {
			s.t.Error(err)
			return
		}
		req.Header = signed(body)
		change(req.Header)
		resp, err := client.Do(req)
		if err != nil {
			s.t.Errorf("%s: %v", attack, err)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		s.got(attack, resp.StatusCode, []int{want})
	}
	replayed := cloudEvent("replayed")
	for range 50 {
		send("replayed", replayed, func(http.Header) {}, 200)
	}
	set := func(name, value string) func(http.Header) { return func(h http.Header) { h.Set(name, value) } }
	for n, tt := range []struct {
		attack string
		change func(http.Header)
		want   int
	}{
		{"upper case", func(h http.Header) { h.Set(signaturePrimary, strings.ToUpper(h.Get(signaturePrimary))) }, 200},
		{"the two swapped", func(h http.Header) {
			h.Set(signatureSecondary, h.Get(signaturePrimary))
			h.Set(signaturePrimary, strings.Repeat("0", 64))
		}, 200},
		{"no algorithm", func(h http.Header) { h.Del(signatureAlgorithm) }, 200},
		{"wrong algorithm", set(signatureAlgorithm, "HmacMD5"), 429},
		{"algorithm none", set(signatureAlgorithm, "none"), 429},
		{"forged", set(signaturePrimary, strings.Repeat("a", 64)), 429},
		{"empty", set(signaturePrimary, ""), 429},
		{"short", func(h http.Header) { h.Set(signaturePrimary, h.Get(signaturePrimary)[:62]) }, 429},
		{"no hexadecimal", set(signaturePrimary, strings.Repeat("g", 64)), 429},
		{"of another body", set(signaturePrimary, signed([]byte("another")).Get(signaturePrimary)), 429},
		{"two headers", func(h http.Header) { h.Add(signaturePrimary, strings.Repeat("0", 64)) }, 429},
		{"algorithm alone", func(h http.Header) { h.Del(signaturePrimary) }, 429},
		{"none", func(h http.Header) { h.Del(signaturePrimary); h.Del(signatureAlgorithm) }, 401},
		{"large", set(signaturePrimary, strings.Repeat("0", 8<<10)), 429},
	} {
		body := cloudEvent(fmt.Sprint("signature-", n))
		send("signature "+tt.attack, body, tt.change, tt.want)
		if tt.want != 200 {
			send("signature "+tt.attack, body, tt.change, tt.want)
		}
	}
	body := cloudEvent("empty-secret")
	send("signature with an empty secret", body, func(h http.Header) {
		h.Set(signaturePrimary, signedWith("", body).Get(signaturePrimary))
	}, 429)
}

// stranger speaks HTTP/2 frame by frame.
type stranger struct {
	*http2.Framer
	conn    *tls.Conn
	headers bytes.Buffer
	encoder *hpack.Encoder
	done    chan struct{} // closed when the door has hung up
	answers map[uint32]string
}

func (s *siege) speakHTTP2() *stranger {
	c := s.dial("h2")
	if c == nil {
		return nil
	}
	f := &stranger{Framer: http2.NewFramer(c, c), conn: c, done: make(chan struct{}), answers: make(map[uint32]string)}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.encoder = hpack.NewEncoder(&f.headers)
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = f.WriteSettings()
	go func() {
		defer close(f.done)
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := frame.(*http2.MetaHeadersFrame); ok {
				f.answers[h.StreamID] = h.PseudoValue("status")
			}
		}
	}()
	return f
}

// open begins a signed delivery on a stream.
func (f *stranger) open(stream uint32, body []byte, more ...hpack.HeaderField) {
	f.headers.Reset()
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: "/hooks/catalog"},
		{Name: strings.ToLower(signaturePrimary), Value: signed(body).Get(signaturePrimary)},
	}
	for _, field := range append(fields, more...) {
		_ = f.encoder.WriteField(field)
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.headers.Bytes(), EndHeaders: true})
}

// end waits for the door to hang up, for as long as it may take to answer.
func (s *siege) end(f *stranger, attack string) {
	if err := f.conn.SetReadDeadline(time.Now().Add(6 * time.Second)); err != nil {
		s.t.Error(err)
	}
	<-f.done
	f.conn.Close()
	for _, status := range f.answers {
		var code int
		if _, err := fmt.Sscan(status, &code); err != nil {
			s.t.Errorf("%s: status %q", attack, status)
		}
		s.got(attack, code, doorSays, []int{400, 431})
	}
}

// http2 resets streams, floods with frames, and leaves bodies unfinished.
func (s *siege) http2() {
	body := cloudEvent("over-http2")
	var clients sync.WaitGroup
	defer clients.Wait()
	for name, attack := range map[string]func(*stranger){
		"rapid resets": func(f *stranger) {
			for i := range uint32(100) {
				f.open(2*i+1, body)
				_ = f.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
			}
		},
		"unfinished bodies": func(f *stranger) {
			for i := range uint32(50) {
				f.open(2*i+1, body)
				_ = f.WriteData(2*i+1, false, body[:10])
			}
		},
		"more streams than allowed": func(f *stranger) {
			for i := range uint32(400) {
				f.open(2*i+1, body)
			}
		},
		"a flood of settings": func(f *stranger) {
			for range 500 {
				_ = f.WriteSettings()
			}
		},
		"a flood of pings": func(f *stranger) {
			for range 500 {
				_ = f.WritePing(false, [8]byte{})
			}
		},
		"endless headers": func(f *stranger) {
			f.headers.Reset()
			_ = f.encoder.WriteField(hpack.HeaderField{Name: ":method", Value: "POST"})
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.headers.Bytes()})
			for range 200 {
				_ = f.WriteContinuation(1, false, bytes.Repeat([]byte{0}, 1000))
			}
		},
		"large headers": func(f *stranger) {
			f.open(1, body, hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 12<<10)})
			_ = f.WriteData(1, true, body)
		},
		"data on no stream": func(f *stranger) { _ = f.WriteData(99, true, body) },
		"wrong order":       func(f *stranger) { f.open(5, body); f.open(3, body) },
		"a frame too large": func(f *stranger) { _ = f.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<20)) },
		"a window of nothing": func(f *stranger) {
			f.open(1, body)
			_ = f.WriteWindowUpdate(1, 1<<31-1)
			_ = f.WriteWindowUpdate(1, 1<<31-1)
		},
		"a good delivery": func(f *stranger) {
			f.open(1, body)
			_ = f.WriteData(1, true, body)
		},
	} {
		for range 2 {
			clients.Go(func() {
				if f := s.speakHTTP2(); f != nil {
					attack(f)
					s.end(f, "http2, "+name)
				}
			})
		}
	}
}
