package rehearsal

import (
	"context"
	"fmt"
	"runtime/debug"
	"testing"
	"testing/synctest"
)

// inBubble runs f where time is not the machine's: it stands still while anything is at work, and jumps to the next timer
// once everything waits. The worker, the gateway and the tools are those of the service and know nothing of it; the
// standard library's synctest, which is made for tests, is the one way to let all they wait for pass at once. It asks for a
// testing.T, of which it needs nothing: an empty one will do.
//
// A context or channel from outside must not be waited for inside. The error is a panic of f, or that everything waits and
// no time will wake it.
func inBubble(f func(ctx context.Context)) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the rehearsal broke down: %v", p)
		}
	}()
	synctest.Test(new(testing.T), func(t *testing.T) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("the rehearsal broke down: %v\n%s", p, debug.Stack())
			}
		}()
		f(t.Context())
	})
	return err
}

// settle waits until everything else in the bubble waits.
func settle() { synctest.Wait() }
