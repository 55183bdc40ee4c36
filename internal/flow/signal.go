package flow

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/fermata-run/fermata/internal/workflow"
)

// kept is a signal that nobody has taken.
type kept struct {
	seq int32 // of its signal_received
	Signal
}

// beginSignal takes a signal that came before, or waits for one.
func (r *Run) beginSignal(s *step) {
	for _, k := range r.signals {
		matches, err := r.matches(s, k.Signal)
		if err != nil {
			r.failExpression(s, "match", err)
			return
		}
		if matches {
			r.emit(KindStepSucceeded, s, &Succeeded{Output: orNull(k.Data), Took: k.seq})
			return
		}
	}
	r.wait(s, &Waiting{For: WaitingSignal, Signal: s.def.Wait.Signal.Name, Until: r.until(s.def.Wait.Signal.Timeout)})
}

func orNull(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return null
	}
	return raw
}

func (r *Run) matches(s *step, signal Signal) (bool, error) {
	w := s.def.Wait.Signal
	if w.Name != signal.Name || w.Match == nil {
		return w.Name == signal.Name, nil
	}
	data, err := workflow.Decode(orNull(signal.Data))
	if err != nil {
		return false, fmt.Errorf("read its data: %w", err)
	}
	scope := r.scope(s.frame)
	scope.Extra = map[string]any{"event": map[string]any{"name": signal.Name, "data": data}}
	return w.Match.Bool(scope)
}

// toldSignal takes a signal: it is given to the step that has waited for it longest, or kept. One that there is no room for
// is lost; that is recorded once, until there is room again.
func (r *Run) toldSignal(body json.RawMessage) {
	var b Signal
	if json.Unmarshal(body, &b) != nil || r.status.Ended() || !slices.Contains(r.w.Signals, b.Name) || b.ID != "" && r.heard[b.ID] {
		return
	}
	taker, wrong := r.takerOf(b)
	if b.Lost = taker == nil && len(wrong) == 0 && r.keptOf(b.Name) >= workflow.SignalsKeptMax; b.Lost {
		if b.Data = nil; r.full[b.Name] {
			return
		}
	}
	r.emit(KindSignalReceived, nil, &b)
	seq := r.seq
	for _, w := range wrong {
		if w.step.status == StepStatusWaiting { // the one before may have ended it
			r.failExpression(w.step, "match", w.err)
		}
	}
	if taker != nil && taker.status == StepStatusWaiting {
		r.emit(KindStepSucceeded, taker, &Succeeded{Output: orNull(b.Data), Took: seq})
	}
}

// mismatch is a step that cannot say whether a signal is the one it waits for.
type mismatch struct {
	step *step
	err  error
}

// takerOf is the step that takes a signal; nil: none does. Wrong are those before it that cannot say whether they do.
func (r *Run) takerOf(b Signal) (taker *step, wrong []mismatch) {
	for _, s := range r.waiting {
		if s.waits.For != WaitingSignal {
			continue
		}
		matches, err := r.matches(s, b)
		if err != nil {
			wrong = append(wrong, mismatch{s, err})
			continue
		}
		if matches {
			return s, wrong
		}
	}
	return nil, wrong
}

// keptOf counts the signals of a name that nobody has taken.
func (r *Run) keptOf(name string) int {
	n := 0
	for _, k := range r.signals {
		if k.Name == name {
			n++
		}
	}
	return n
}

func (r *Run) keepSignal(seq int32, b *Signal) {
	if b.ID != "" {
		if r.heard == nil {
			r.heard = map[string]bool{}
		}
		r.heard[b.ID] = true
	}
	if b.Lost {
		if r.full == nil {
			r.full = map[string]bool{}
		}
		r.full[b.Name] = true
		return
	}
	r.signals = append(r.signals, kept{seq: seq, Signal: *b})
}

func (r *Run) takeSignal(seq int32) {
	r.signals = slices.DeleteFunc(r.signals, func(k kept) bool {
		if k.seq == seq {
			delete(r.full, k.Name)
		}
		return k.seq == seq
	})
}

// beginEmit says that something happened. The id is the same after any crash: it is made of the step's name.
func (r *Run) beginEmit(s *step) {
	data, err := rendered(s.def.Emit.Data, r.scope(s.frame))
	if err != nil {
		r.failExpression(s, "data", err)
		return
	}
	mac := hmac.New(sha256.New, r.ID[:])
	fmt.Fprintf(mac, "emit/%s/%d", s.path(), s.gen)
	id := "evt_" + hex.EncodeToString(mac.Sum(nil)[:16])
	r.effects.Emitted = append(r.effects.Emitted, Emitted{ID: id, Name: s.def.Emit.Event, Data: orNull(data)})
	r.emit(KindStepSucceeded, s, &Succeeded{Output: json.RawMessage(`{"event_id":"` + id + `"}`)})
}
