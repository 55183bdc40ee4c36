package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// paddingMax bounds what noop pads with: the rest of an output is for the args.
const paddingMax = workflow.OutputBytesMax - 1<<10

var padding = strings.Repeat("x", paddingMax)

var emptyObject = json.RawMessage("{}")

// noop returns its args. {"bytes": n} adds "padding", n bytes long: outputs of a known size, for measuring.
func noop(args json.RawMessage) (json.RawMessage, error) {
	if len(args) == 0 {
		return emptyObject, nil
	}
	if !bytes.Contains(args, []byte(`"bytes"`)) {
		return args, nil
	}
	var a struct {
		Bytes *json.Number `json:"bytes"`
	}
	if json.Unmarshal(args, &a) != nil || a.Bytes == nil {
		return args, nil // bytes of somebody's own
	}
	n, err := a.Bytes.Int64()
	if err != nil || n < 0 || n > paddingMax {
		return nil, failf(ClassInvalidRequest, "noop: bytes must be a whole number from 0 to %d", paddingMax)
	}
	end := bytes.LastIndexByte(args, '}')
	out := make(json.RawMessage, 0, len(args)+int(n)+16)
	out = append(out, args[:end]...)
	out = append(out, `,"padding":"`...)
	out = append(out, padding[:n]...)
	return append(out, `"}`...), nil
}

// sleepMax bounds one wait; the step's timeout comes besides.
const sleepMax = workflow.TimeoutMax

// sleep waits {"seconds": n} or {"duration": "1m30s"} and returns its args.
func sleep(ctx context.Context, args json.RawMessage) (json.RawMessage, error) {
	var a struct {
		Seconds  *float64 `json:"seconds"`
		Duration *string  `json:"duration"`
	}
	if err := read(args, &a); err != nil {
		return nil, failf(ClassInvalidRequest, "sleep: %v", err)
	}
	var d time.Duration
	switch {
	case (a.Seconds == nil) == (a.Duration == nil):
		return nil, failf(ClassInvalidRequest, "sleep: give either seconds or duration")
	case a.Seconds != nil:
		if *a.Seconds < 0 || *a.Seconds > sleepMax.Seconds() {
			return nil, failf(ClassInvalidRequest, "sleep: seconds must be from 0 to %.0f", sleepMax.Seconds())
		}
		d = time.Duration(*a.Seconds * float64(time.Second))
	default:
		var err error
		if d, err = time.ParseDuration(*a.Duration); err != nil || d < 0 || d > sleepMax {
			return nil, failf(ClassInvalidRequest, "sleep: duration must be like 250ms, 30s or 1h30m, at most %s", sleepMax)
		}
	}
	began := time.Now()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return args, nil
	case <-ctx.Done():
		return nil, cut(ctx, began)
	}
}

// classes that fail may end in: all that an attempt can end in, except the two that are not its to claim (cancelled
// belongs to whoever cancels, outcome_unknown to tools whose effect is in doubt).
var classes = []string{
	"invalid_request", "capability_mismatch", "auth", "not_found", "quota_exhausted", "rate_limited", "overloaded", "server",
	"network", "timeout", "stream_interrupted", "context_length", "content_policy", "output_truncated", "invalid_output",
	"unknown", "tool_error", "expression", "internal",
}

// fail fails with {"class": "tool_error", "message": …}; with "times": n only in the first n attempts, after which it
// returns {"attempt": n+1}.
func fail(args json.RawMessage, attempt int) (json.RawMessage, error) {
	a := struct {
		Class   string `json:"class"`
		Message string `json:"message"`
		Times   *int   `json:"times"`
	}{Class: ClassToolError, Message: "failed as told"}
	if err := read(args, &a); err != nil {
		return nil, failf(ClassInvalidRequest, "fail: %v", err)
	}
	if !slices.Contains(classes, a.Class) {
		return nil, failf(ClassInvalidRequest, "fail: class %q is none of %s", a.Class, strings.Join(classes, ", "))
	}
	if a.Times != nil && attempt > *a.Times {
		return json.Marshal(map[string]int{"attempt": attempt})
	}
	return nil, &Error{Class: a.Class, Message: a.Message}
}

// read takes args strictly: an unknown name is a mistake that should not go unnoticed.
func read(args json.RawMessage, into any) error {
	if len(args) == 0 {
		args = emptyObject
	}
	d := json.NewDecoder(bytes.NewReader(args))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errText(err)
	}
	return nil
}

// errText says what is wrong with args in the words of JSON, not of Go.
func errText(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field == "":
		return fmt.Errorf("the args must be an object, not %s", wrong.Value)
	case errors.As(err, &wrong):
		return fmt.Errorf("%s cannot be %s", wrong.Field, wrong.Value)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}
