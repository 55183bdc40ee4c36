package fault_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/fault"
)

func TestKindIsFoundThroughWrapping(t *testing.T) {
	cause := errors.New("connection refused")
	e := fault.New(fault.KindUnavailable, "database_unavailable", "no %s", "lease")
	e.Err = cause
	wrapped := fmt.Errorf("submit: %w", e)
	if !fault.Is(wrapped, fault.KindUnavailable) || fault.Is(wrapped, fault.KindInvalid) || fault.Of(wrapped) != e {
		t.Errorf("%v is not found", wrapped)
	}
	if !errors.Is(wrapped, cause) {
		t.Error("the cause is lost")
	}
	if fault.Of(cause) != nil || fault.Is(nil, fault.KindInternal) {
		t.Error("what is no fault passes for one")
	}
}

func TestErrorSaysEverythingToTheLog(t *testing.T) {
	e := fault.New(fault.KindInvalid, "workflow_invalid", "2 problems")
	e.Issues = []fault.Issue{{Pointer: "/steps/0", Detail: "unknown agent"}, {Parameter: "limit", Detail: "too large"}}
	e.Err = errors.New("cause")
	for _, part := range []string{"workflow_invalid", "2 problems", "/steps/0 unknown agent", "limit too large", "cause"} {
		if !strings.Contains(e.Error(), part) {
			t.Errorf("%q lacks %q", e, part)
		}
	}
}
