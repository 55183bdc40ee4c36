package provider

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
)

// outgoing is the body of a request. The HTTP client holds on to a request until its answer has ended, which may take
// minutes; the body is let go of when the answer begins.
type outgoing struct {
	mu   sync.Mutex
	body []byte
	left int // not read yet, of the reader that is furthest
}

var errReleased = errors.New("the body of the request is gone")

// attach makes b the body of a request. A client that finds its connection closed reads it again from the start.
func (b *outgoing) attach(r *http.Request) {
	r.ContentLength = int64(len(b.body))
	r.GetBody = func() (io.ReadCloser, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.body == nil {
			return nil, errReleased
		}
		b.left = len(b.body)
		return &outgoingReader{of: b, in: bytes.NewReader(b.body)}, nil
	}
	r.Body, _ = r.GetBody() //nolint:errcheck // nothing is released yet
}

// release lets go of a body that has been sent. One that has not is kept: some servers answer before they have read.
func (b *outgoing) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 {
		b.body = nil
	}
}

type outgoingReader struct {
	of *outgoing
	in *bytes.Reader
}

func (r *outgoingReader) Read(p []byte) (int, error) {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	if r.in == nil {
		return 0, io.EOF
	}
	n, err := r.in.Read(p)
	if r.of.left = r.in.Len(); r.of.left == 0 {
		r.in = nil // it holds the body, too
	}
	return n, err
}

func (r *outgoingReader) Close() error { return nil }
