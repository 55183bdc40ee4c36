package tool

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

func call(ctx context.Context, ref, args string, attempt int) (string, string) {
	out, err := (&Tools{}).Call(ctx, Request{Ref: ref, Args: json.RawMessage(args), Attempt: attempt})
	var e *Error
	if errors.As(err, &e) {
		return "", e.Class + ": " + e.Message
	}
	return string(out), ""
}

func TestBuiltins(t *testing.T) {
	for _, c := range []struct {
		ref, args string
		attempt   int
		out, err  string // err: the beginning of it
	}{
		{RefNoop, ``, 1, `{}`, ""},
		{RefNoop, `{"a": 1.0}`, 1, `{"a": 1.0}`, ""},
		{RefNoop, `{"bytes": 3}`, 1, `{"bytes": 3,"padding":"xxx"}`, ""},
		{RefNoop, `{"bytes":0,"a":"}"} `, 1, `{"bytes":0,"a":"}","padding":""}`, ""},
		{RefNoop, `{"a":"bytes","b":{"bytes":2}}`, 1, `{"a":"bytes","b":{"bytes":2}}`, ""},
		{RefNoop, `{"bytes":"many"}`, 1, `{"bytes":"many"}`, ""},
		{RefNoop, `{"bytes": -1}`, 1, "", "invalid_request: noop: bytes must be"},
		{RefNoop, `{"bytes": 1000000}`, 1, "", "invalid_request: noop: bytes must be"},
		{RefNoop, `{"bytes": 1.5}`, 1, "", "invalid_request: noop: bytes must be"},

		{RefSleep, `{"seconds": 0}`, 1, `{"seconds": 0}`, ""},
		{RefSleep, `{"duration":"1ms"}`, 1, `{"duration":"1ms"}`, ""},
		{RefSleep, `{}`, 1, "", "invalid_request: sleep: give either"},
		{RefSleep, `{"seconds":1,"duration":"1s"}`, 1, "", "invalid_request: sleep: give either"},
		{RefSleep, `{"secs":1}`, 1, "", `invalid_request: sleep: unknown field "secs"`},
		{RefSleep, `{"seconds":-1}`, 1, "", "invalid_request: sleep: seconds must be"},
		{RefSleep, `{"seconds":1e300}`, 1, "", "invalid_request: sleep: seconds must be"},
		{RefSleep, `{"seconds":"1"}`, 1, "", "invalid_request: sleep: seconds cannot be string"},
		{RefSleep, `{"duration":"soon"}`, 1, "", "invalid_request: sleep: duration must be"},
		{RefSleep, `{"duration":"-1s"}`, 1, "", "invalid_request: sleep: duration must be"},

		{RefFail, `{}`, 1, "", "tool_error: failed as told"},
		{RefFail, ``, 9, "", "tool_error: failed as told"},
		{RefFail, `{"class":"rate_limited","message":"slow down"}`, 1, "", "rate_limited: slow down"},
		{RefFail, `{"times":2}`, 2, "", "tool_error: failed as told"},
		{RefFail, `{"times":2}`, 3, `{"attempt":3}`, ""},
		{RefFail, `{"class":"cancelled"}`, 1, "", `invalid_request: fail: class "cancelled" is none of`},
		{RefFail, `{"class":"outcome_unknown"}`, 1, "", `invalid_request: fail: class "outcome_unknown" is none of`},
		{RefFail, `{"class":"oops"}`, 1, "", `invalid_request: fail: class "oops" is none of`},
		{RefFail, `[]`, 1, "", "invalid_request: fail: the args must be an object, not array"},

		{"builtin:rm", `{}`, 1, "", `not_found: there is no tool "builtin:rm"`},
	} {
		out, err := call(t.Context(), c.ref, c.args, c.attempt)
		if out != c.out || !strings.HasPrefix(err, c.err) || (c.err == "") != (err == "") {
			t.Errorf("%s %s in attempt %d: got %s, %q; want %s, %q", c.ref, c.args, c.attempt, out, err, c.out, c.err)
		}
		if strings.Contains(err, "Go ") || strings.Contains(err, "struct") {
			t.Errorf("the error speaks of the implementation: %s", err)
		}
	}
}

func TestNoopPadsUpToTheLimit(t *testing.T) {
	out, err := call(t.Context(), RefNoop, `{"bytes": 64512}`, 1)
	if err != "" || len(out) > workflow.OutputBytesMax || !json.Valid([]byte(out)) {
		t.Errorf("%d bytes, %s", len(out), err)
	}
}

func TestSleepEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if _, err := call(t.Context(), RefSleep, `{"seconds":90.5}`, 1); err != "" || time.Since(began) != 90500*time.Millisecond {
			t.Errorf("%s after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := call(ctx, RefSleep, `{"duration":"1h"}`, 1); err != "cancelled: cut after 1s" {
			t.Error(err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := call(ctx, RefSleep, `{"duration":"1h"}`, 1); err != "timeout: not done after 2s" {
			t.Error(err)
		}
	})
}
