package provider

import (
	"errors"
	"io"
	"net/http"
	"testing"
)

// A body can be sent again until its answer has begun, and is kept as long as it is not sent.
func TestOutgoing(t *testing.T) {
	b := &outgoing{body: []byte("a prompt")}
	r := &http.Request{}
	b.attach(r)
	if _, err := io.ReadFull(r.Body, make([]byte, 3)); err != nil || r.ContentLength != 8 {
		t.Fatalf("%v, %d bytes", err, r.ContentLength)
	}
	b.release() // an answer that is early
	again, err := r.GetBody()
	if err != nil {
		t.Fatal(err)
	}
	if whole, err := io.ReadAll(again); err != nil || string(whole) != "a prompt" {
		t.Errorf("%q, %v", whole, err)
	}
	b.release()
	if b.body != nil {
		t.Error("a body that has been sent is kept")
	}
	if _, err := r.GetBody(); !errors.Is(err, errReleased) {
		t.Errorf("got %v", err)
	}
}
