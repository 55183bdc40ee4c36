package rehearsal

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"

	"github.com/fermata-run/fermata/internal/workflow"
)

// Difference is one place where two JSON values differ. A nil side is not there.
type Difference struct {
	Pointer string          `json:"pointer"`
	A       json.RawMessage `json:"a,omitempty"`
	B       json.RawMessage `json:"b,omitempty"`
}

// differencesMax bounds what is listed of two values.
const differencesMax = 100

// Diff lists where two JSON values differ, by name and by place in a list. Numbers are compared by their value.
func Diff(a, b json.RawMessage) []Difference {
	var list []Difference
	differ(&list, "", present(a), present(b))
	return list
}

// absent stands for a value that is not there.
type absent struct{}

func present(raw json.RawMessage) any {
	if len(raw) == 0 {
		return absent{}
	}
	v, err := workflow.Decode(raw)
	if err != nil {
		return string(raw)
	}
	return v
}

func differ(list *[]Difference, at string, a, b any) {
	if len(*list) >= differencesMax || equal(a, b) {
		return
	}
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			names := map[string]bool{}
			for name := range x {
				names[name] = true
			}
			for name := range y {
				names[name] = true
			}
			for _, name := range slices.Sorted(maps.Keys(names)) {
				differ(list, at+"/"+escaped(name), member(x, name), member(y, name))
			}
			return
		}
	case []any:
		if y, ok := b.([]any); ok {
			for i := range max(len(x), len(y)) {
				differ(list, fmt.Sprintf("%s/%d", at, i), item(x, i), item(y, i))
			}
			return
		}
	}
	*list = append(*list, Difference{at, rawOf(a), rawOf(b)})
}

func member(m map[string]any, name string) any {
	if v, ok := m[name]; ok {
		return v
	}
	return absent{}
}

func item(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return absent{}
}

func rawOf(v any) json.RawMessage {
	if v == (absent{}) {
		return nil
	}
	raw, err := json.Marshal(v)
	if err != nil { // it was read from JSON
		panic(fmt.Sprintf("rehearsal: write a value: %v", err))
	}
	return raw
}

// equal compares plain values; 1 and 1.0 are one number.
func equal(a, b any) bool {
	x, isX := number(a)
	y, isY := number(b)
	if isX && isY {
		return x == y
	}
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, equal)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	}
	return reflect.DeepEqual(a, b)
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return math.NaN(), false
}
