package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	// benchSecret signs what the load generator sends.
	benchSecret = "bench-signing-secret-0123456789"
	benchPath   = "/hooks/bench"
	// benchSignature is the signature's header in its canonical form.
	benchSignature = "X-Akeneo-Signature-Primary"

	smallestBenchBody = 512
	largestBenchBody  = 1 << 20
)

const (
	idLayout    = "00000000-0000-7000-8000-000000000000"
	benchFront  = `{"specversion":"1.0","id":"` + idLayout + `","type":"com.akeneo.pim.v1.product.updated.delta","source":"pim","subject":"019256aa-7f77-7f58-bc8c-770f7e369c5b","time":"2026-01-15T09:30:00Z","datacontenttype":"application/json","data":{"product":{"uuid":"6a9f8486-2c36-4680-b87f-6f5f8f01b6cf","changes":{"values":{`
	benchValue  = `"attribute_%06d":[{"previous":"before","new":"after","type":"pim_catalog_text","locale":"en_US","scope":"ecommerce"}],`
	benchLast   = `"description":[{"previous":null,"new":"`
	benchEnding = `"}]}}},"author":{"identifier":"bench","type":"api"}}}`
)

// benchBody is a delta event of exactly size bytes, which is at least
// smallestBenchBody.
func benchBody(size int) []byte {
	body := []byte(benchFront)
	room := size - len(benchLast) - len(benchEnding)
	for i := 0; len(body)+len(benchValue)+len("000000") <= room; i++ {
		body = fmt.Appendf(body, benchValue, i)
	}
	body = append(body, benchLast...)
	body = append(body, strings.Repeat("x", size-len(body)-len(benchEnding))...)
	return append(body, benchEnding...)
}

// benchDelivery is a delivery as the platform sends it. The bytes of the request
// are made once; each next writes another id and another signature into them,
// which takes about 1 µs for 1 KiB on a CPU that has instructions for SHA-256.
type benchDelivery struct {
	request []byte
	// Parts of request.
	id, signature, body []byte

	mac    hash.Hash
	random *rand.ChaCha8
}

func newBenchDelivery(host string, size int) *benchDelivery {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: akeneo/event-platform\r\nContent-Type: application/json\r\n"+
		"X-Akeneo-Signature-Algorithm: HmacSHA256\r\n%s: %064d\r\nContent-Length: %d\r\n\r\n", benchPath, host, benchSignature, 0, size)
	request := append([]byte(head), benchBody(size)...)
	part := func(of []byte, after string, length int) []byte {
		from := bytes.Index(of, []byte(after)) + len(after)
		return of[from : from+length]
	}
	body := request[len(head):]
	d := &benchDelivery{
		request: request, body: body, mac: hmac.New(sha256.New, []byte(benchSecret)),
		id: part(body, `"id":"`, len(idLayout)), signature: part(request, benchSignature+": ", hex.EncodedLen(sha256.Size)),
	}
	var seed [32]byte
	for i := range 4 {
		binary.LittleEndian.PutUint64(seed[8*i:], rand.Uint64())
	}
	d.random = rand.NewChaCha8(seed)
	return d
}

// next makes it the delivery of another event: with a new UUID of version 7
// (RFC 9562), signed.
func (d *benchDelivery) next() {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().UnixMilli())<<16|d.random.Uint64()&0xffff)
	binary.BigEndian.PutUint64(id[8:], d.random.Uint64())
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	hex.Encode(d.id[0:8], id[0:4])
	hex.Encode(d.id[9:13], id[4:6])
	hex.Encode(d.id[14:18], id[6:8])
	hex.Encode(d.id[19:23], id[8:10])
	hex.Encode(d.id[24:36], id[10:16])

	var sum [sha256.Size]byte
	d.mac.Reset()
	d.mac.Write(d.body)
	hex.Encode(d.signature, d.mac.Sum(sum[:0]))
}

// benchConn is a connection that is kept for many requests, one at a time.
// net/http's client would take several times the CPU that this takes, on the
// cores that are being measured.
type benchConn struct {
	net.Conn
	in *bufio.Reader
	// closing is set when the server has announced the end of the
	// connection: the next request needs another one.
	closing bool
}

func dialBench(ctx context.Context, address string) (*benchConn, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &benchConn{Conn: conn, in: bufio.NewReader(conn)}, nil
}

// post sends a request and returns the status that it is answered.
func (c *benchConn) post(request []byte) (status int, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, fmt.Errorf("answered %q, which is no HTTP/1.1", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, fmt.Errorf("answered %q, which has no status", line)
	}
	return status, c.readRest()
}

// readRest passes over headers and body of an answer.
func (c *benchConn) readRest() error {
	length := 0
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		name, value, ok := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		if !ok {
			_, err := io.CopyN(io.Discard, c.in, int64(length))
			return err
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return fmt.Errorf("answered with the Content-Length %q", value)
			}
		case bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")):
			c.closing = true
		}
	}
}
