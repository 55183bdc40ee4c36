package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// complaint says why a reply is not the answer that was asked for.
type complaint struct {
	text  string
	final bool // asking again would not help
}

// read finds the answer in a reply: as it stands, else mended.
func (t Talk) read(reply string) (Done, *complaint) {
	if len(reply) > ReplyBytesMax {
		return Done{}, &complaint{fmt.Sprintf("the answer has %d bytes; at most %d are read", len(reply), ReplyBytesMax), true}
	}
	text := cleanText(reply)
	mended := text != reply
	if !t.contract.JSON {
		return readText(text, mended)
	}
	if value := strings.TrimSpace(text); json.Valid([]byte(value)) {
		return t.accept([]byte(value), mended)
	}
	return t.readMended(text)
}

// readText takes free text as it is.
func readText(text string, mended bool) (Done, *complaint) {
	if strings.TrimSpace(text) == "" {
		return Done{}, &complaint{text: "Your answer is empty."}
	}
	out := appendQuoted(make([]byte, 0, len(text)+2), text)
	if c := tooLarge(out); c != nil {
		return Done{}, c
	}
	return Done{Output: out, Repaired: mended}, nil
}

// readMended looks for the one JSON value in a reply that is not JSON as a whole. Where several meet the contract it
// does not guess.
func (t Talk) readMended(text string) (Done, *complaint) {
	found, broken := candidates(text)
	if broken != "" {
		return Done{}, &complaint{text: "It is not JSON: " + syntaxError(broken)}
	}
	if len(found) == 0 {
		if t.declares.onlyString && strings.TrimSpace(text) != "" {
			return t.accept(appendQuoted(nil, strings.TrimSpace(text)), true)
		}
		return Done{}, &complaint{text: "It is not JSON: " + syntaxError(text)}
	}
	var met []Done
	var first *complaint
	for _, value := range found {
		done, c := t.accept(value, true)
		if c == nil {
			met = append(met, done)
		} else if first == nil {
			first = c
		}
	}
	switch {
	case len(met) == 1:
		return met[0], nil
	case len(met) > 1:
		return Done{}, &complaint{text: "It holds " + strconv.Itoa(len(met)) + " JSON values; one is wanted."}
	case len(found) == 1:
		return Done{}, first
	}
	return Done{}, &complaint{text: "It holds " + strconv.Itoa(len(found)) + " JSON values and none meets the contract; of the first: " + first.text}
}

func syntaxError(text string) string {
	if strings.TrimSpace(text) == "" {
		return "the answer is empty"
	}
	var v any
	err := json.Unmarshal([]byte(text), &v)
	if err == nil {
		return "no JSON value found"
	}
	return clip(err.Error(), 200)
}

// accept checks a JSON value against the contract after lifting what is not part of it.
func (t Talk) accept(value []byte, mended bool) (Done, *complaint) {
	done := Done{Repaired: mended}
	lifted, c := t.lift(value, &done)
	if c != nil {
		return Done{}, c
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, lifted); err != nil {
		return Done{}, &complaint{text: "It is not JSON: " + clip(err.Error(), 200)}
	}
	done.Output = compact.Bytes()
	if c := tooLarge(done.Output); c != nil {
		return Done{}, c
	}
	if deep := workflow.TooDeep(done.Output); deep != "" {
		return Done{}, &complaint{text: "- the value: " + deep}
	}
	if t.contract.Schema != nil {
		if issues := t.contract.Schema.Check(done.Output); len(issues) > 0 {
			return Done{}, &complaint{text: told(issues)}
		}
	}
	if t.check != nil {
		if wrong := t.check(done.Output); wrong != "" {
			return Done{}, &complaint{text: clip(cleanText(wrong), complaintBytesMax)}
		}
	}
	return done, nil
}

// told lists what is wrong with a value.
func told(issues []fault.Issue) string {
	var s strings.Builder
	for i, issue := range issues {
		if i == complaintsMax {
			fmt.Fprintf(&s, "\n- and %d more", len(issues)-i)
			break
		}
		at := issue.Pointer
		if at == "" {
			at = "the value"
		}
		fmt.Fprintf(&s, "\n- %s: %s", at, issue.Detail)
	}
	return clip(strings.TrimPrefix(cleanText(s.String()), "\n"), complaintBytesMax)
}

func tooLarge(output []byte) *complaint {
	if len(output) <= workflow.OutputBytesMax {
		return nil
	}
	return &complaint{fmt.Sprintf("the answer has %d bytes; the limit of an output is %d", len(output), workflow.OutputBytesMax), true}
}

// lift takes confidence and unresolved out of an object, unless the contract declares them: then they are read and stay.
func (t Talk) lift(value []byte, done *Done) (json.RawMessage, *complaint) {
	if t.declares.notObject || value[0] != '{' {
		return value, nil
	}
	list, err := Members(value)
	if err != nil {
		return value, nil //nolint:nilerr // not an object after all: the contract will say so
	}
	kept := list[:0]
	taken := false
	for _, m := range list {
		switch m.Name {
		case "confidence":
			confidence, ok := readConfidence(m.Value, t.declares.share)
			if !ok && !t.foreign(m.Value) {
				return nil, &complaint{text: "- /confidence: it must be a number from 0 to 100, not " + clip(string(m.Value), 100)}
			}
			done.Confidence = confidence
			if t.declares.confidence {
				break
			}
			taken = true
			continue
		case "unresolved":
			done.Unresolved = readUnresolved(m.Value)
			if t.declares.unresolved {
				break
			}
			taken = true
			continue
		}
		kept = append(kept, m)
	}
	if !taken {
		return value, nil
	}
	return Object(kept), nil
}

// foreign: a contract may declare a confidence of its own kind, like "high"; then it is not ours to judge. A number is.
func (t Talk) foreign(value json.RawMessage) bool {
	_, err := strconv.ParseFloat(strings.Trim(string(value), `" %`), 64)
	return t.declares.confidence && errors.Is(err, strconv.ErrSyntax)
}

// readConfidence takes 85, "85", "85%" and null; with share, 0.85 too. It answers false for what is no confidence.
func readConfidence(value json.RawMessage, share bool) (*float64, bool) {
	text := string(value)
	if text == "null" {
		return nil, true
	}
	if text[0] == '"' {
		if json.Unmarshal(value, &text) != nil {
			return nil, false
		}
		trimmed := strings.TrimSpace(text)
		text = strings.TrimSpace(strings.TrimSuffix(trimmed, "%"))
		share = share && text == trimmed
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.Trim(text, "+-.0123456789Ee") != "" { // NaN, infinities, 0x1p4
		return nil, false
	}
	if share {
		f *= 100
	}
	if f < 0 || f > 100 {
		return nil, false
	}
	f += 0 // no negative zero
	return &f, true
}

// readUnresolved takes a list of strings, and makes one of whatever else stands there.
func readUnresolved(value json.RawMessage) []string {
	var items []json.RawMessage
	if json.Unmarshal(value, &items) != nil {
		items = []json.RawMessage{value}
	}
	var list []string
	for _, item := range items {
		var s string
		if json.Unmarshal(item, &s) != nil {
			s = string(item)
		}
		if s = strings.TrimSpace(s); s == "" || s == "null" {
			continue
		}
		if list = append(list, clip(cleanText(s), unresolvedBytesMax)); len(list) == unresolvedMax {
			break
		}
	}
	return list
}
