package provider

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// Limits of what is read of an answer.
const (
	lineBytesMax   = 1 << 20
	streamBytesMax = 16 << 20
	textBytesMax   = 4 << 20

	readBytes = 1 << 10 // at once, of a stream; the HTTP client buffers below
)

var (
	errLineTooLong   = errors.New("a line of the stream is too long")
	errStreamTooLong = errors.New("the stream is too long")
)

// events reads a stream of server-sent events line by line. It does not wait for the blank line that ends an event:
// a server that reports an error and then keeps the connection open would be heard too late.
type events struct {
	in     *bufio.Reader
	read   int
	line   []byte
	skipLF bool // the line before ended in CR: a LF belongs to it
	begun  bool
}

func newEvents(r io.Reader) *events { return &events{in: bufio.NewReaderSize(r, readBytes)} }

// field is one line of a stream.
type field struct {
	name  string // data, event, id, retry; empty: a comment or the blank line that ends an event
	value []byte // valid until the next call
	line  []byte // the whole line, likewise
	blank bool
}

// next gives the next line. At the end it gives what an unfinished last line holds, then io.EOF.
func (e *events) next() (field, error) {
	line, err := e.nextLine()
	if err != nil && (len(line) == 0 || !errors.Is(err, io.EOF)) {
		return field{}, err
	}
	if !e.begun {
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		e.begun = true
	}
	if len(line) == 0 {
		return field{blank: true}, nil
	}
	name, value, _ := bytes.Cut(line, []byte{':'})
	return field{name: string(name), value: bytes.TrimPrefix(value, []byte{' '}), line: line}, nil
}

// nextLine reads up to LF, CR or CRLF. It returns at CR without looking further: the LF may be long in coming.
func (e *events) nextLine() ([]byte, error) {
	e.line = e.line[:0]
	for {
		if e.in.Buffered() == 0 {
			if _, err := e.in.Peek(1); err != nil {
				return e.line, err
			}
		}
		chunk, _ := e.in.Peek(e.in.Buffered())
		if e.skipLF {
			e.skipLF = false
			if chunk[0] == '\n' {
				_, _ = e.in.Discard(1)
				continue
			}
		}
		end := bytes.IndexAny(chunk, "\r\n")
		n := end
		if end < 0 {
			n = len(chunk)
		}
		if e.read += n + 1; e.read > streamBytesMax {
			return nil, errStreamTooLong
		}
		if len(e.line)+n > lineBytesMax {
			return nil, errLineTooLong
		}
		e.line = append(e.line, chunk[:n]...)
		if end < 0 {
			_, _ = e.in.Discard(n)
			continue
		}
		e.skipLF = chunk[end] == '\r'
		_, _ = e.in.Discard(n + 1)
		return e.line, nil
	}
}
