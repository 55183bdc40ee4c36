package provider

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/fermata-run/fermata/internal/agent"
)

const (
	fillDepthMax  = 12       // beyond it only what is required
	fillStopDepth = 40       // a schema that requires itself without end
	fillBytesMax  = 48 << 10 // beyond it only what is required
	fillItemsMax  = 200
	fillNodesMax  = 5_000 // schemas looked at: references may multiply
)

// schemaNode is what the simulation understands of a JSON Schema. What it does not (not, if, dependencies) it passes
// over; the contract's own check is the judge.
type schemaNode struct {
	Type                 json.RawMessage   `json:"type"`
	Properties           json.RawMessage   `json:"properties"`
	Required             []string          `json:"required"`
	Items                json.RawMessage   `json:"items"`
	PrefixItems          []json.RawMessage `json:"prefixItems"`
	Enum                 []json.RawMessage `json:"enum"`
	Const                json.RawMessage   `json:"const"`
	Minimum, Maximum     *float64
	ExclusiveMinimum     json.RawMessage `json:"exclusiveMinimum"`
	ExclusiveMaximum     json.RawMessage `json:"exclusiveMaximum"`
	MultipleOf           float64         `json:"multipleOf"`
	MinLength, MaxLength *int
	MinItems, MaxItems   *int
	UniqueItems          bool              `json:"uniqueItems"`
	Pattern              string            `json:"pattern"`
	Format               string            `json:"format"`
	AnyOf                []json.RawMessage `json:"anyOf"`
	OneOf                []json.RawMessage `json:"oneOf"`
	AllOf                []json.RawMessage `json:"allOf"`
	Ref                  string            `json:"$ref"`
}

// filler writes a value that meets a schema.
type filler struct {
	root    json.RawMessage
	w       *writer
	dice    *rand.Rand
	choices *rand.Rand // of enums and booleans: the same question gets the same choice, whichever model is asked
	written int
	nodes   int
}

func fill(schema json.RawMessage, w *writer, seed uint64) string {
	w.marked, w.next = false, 0
	w.dice = rand.New(rand.NewPCG(seed, 1))
	f := &filler{root: schema, w: w, dice: w.dice, choices: rand.New(rand.NewPCG(w.asked, 2))}
	return string(f.value(schema, "", false, 0))
}

// value writes a value for a schema. Name is the property it is for, inList whether it is an item.
func (f *filler) value(raw json.RawMessage, name string, inList bool, depth int) json.RawMessage {
	n, ok := f.node(raw, depth)
	if !ok {
		return f.text(schemaNode{}, name, inList)
	}
	var v json.RawMessage
	switch {
	case len(n.Const) > 0:
		v = n.Const
	case len(n.Enum) > 0:
		v = f.choice(n.Enum)
	default:
		v = f.typed(n, name, inList, depth)
	}
	f.written += len(v)
	return v
}

func (f *filler) typed(n schemaNode, name string, inList bool, depth int) json.RawMessage {
	switch f.typeOf(n) {
	case "object":
		return f.object(n, depth)
	case "array":
		return f.array(n, name, depth)
	case "integer":
		return f.number(n, name, true)
	case "number":
		return f.number(n, name, false)
	case "boolean":
		return json.RawMessage(strconv.FormatBool(f.yes(name)))
	case "null":
		return json.RawMessage("null")
	default:
		return f.text(n, name, inList)
	}
}

// node reads a schema: references are followed, allOf is laid together, of anyOf and oneOf the first is taken.
func (f *filler) node(raw json.RawMessage, depth int) (schemaNode, bool) {
	var n schemaNode
	if f.nodes++; f.nodes > fillNodesMax || depth > fillStopDepth || json.Unmarshal(raw, &n) != nil {
		return n, false
	}
	var more []json.RawMessage
	if n.Ref != "" {
		if target, ok := f.resolve(n.Ref); ok {
			more = append(more, target)
		}
	}
	more = append(more, n.AllOf...)
	for _, choices := range [][]json.RawMessage{n.AnyOf, n.OneOf} {
		if len(choices) > 0 {
			more = append(more, choices[f.pick(choices, depth)])
		}
	}
	for _, m := range more {
		if inner, ok := f.node(m, depth+1); ok {
			n = n.with(inner)
		}
	}
	return n, true
}

// pick avoids null where something else is offered, and what goes deeper where it is deep already.
func (f *filler) pick(choices []json.RawMessage, depth int) int {
	for i, c := range choices {
		var n schemaNode
		if json.Unmarshal(c, &n) != nil {
			continue
		}
		null := string(n.Type) == `"null"`
		if null == (depth > fillDepthMax) {
			return i
		}
	}
	return 0
}

// with lays another schema under n: what n says itself counts.
func (n schemaNode) with(m schemaNode) schemaNode {
	own, _ := agent.Members(n.Properties)   //nolint:errcheck // none
	other, _ := agent.Members(m.Properties) //nolint:errcheck // none
	for _, p := range other {
		if !slices.ContainsFunc(own, func(o agent.Member) bool { return o.Name == p.Name }) {
			own = append(own, p)
		}
	}
	if len(own) > 0 {
		n.Properties = agent.Object(own)
	}
	n.Required = append(n.Required, m.Required...)
	n.Type, n.Items = first(n.Type, m.Type), first(n.Items, m.Items)
	n.Const, n.ExclusiveMinimum, n.ExclusiveMaximum = first(n.Const, m.Const), first(n.ExclusiveMinimum, m.ExclusiveMinimum), first(n.ExclusiveMaximum, m.ExclusiveMaximum)
	if len(n.Enum) == 0 {
		n.Enum = m.Enum
	}
	if len(n.PrefixItems) == 0 {
		n.PrefixItems = m.PrefixItems
	}
	n.Minimum, n.Maximum = firstOf(n.Minimum, m.Minimum), firstOf(n.Maximum, m.Maximum)
	n.MinLength, n.MaxLength = firstOf(n.MinLength, m.MinLength), firstOf(n.MaxLength, m.MaxLength)
	n.MinItems, n.MaxItems = firstOf(n.MinItems, m.MinItems), firstOf(n.MaxItems, m.MaxItems)
	if n.MultipleOf == 0 {
		n.MultipleOf = m.MultipleOf
	}
	if n.Pattern == "" {
		n.Pattern = m.Pattern
	}
	if n.Format == "" {
		n.Format = m.Format
	}
	n.UniqueItems = n.UniqueItems || m.UniqueItems
	return n
}

func first(a, b json.RawMessage) json.RawMessage {
	if len(a) > 0 {
		return a
	}
	return b
}

func firstOf[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// resolve follows a reference into the schema itself: #, #/$defs/name, #/definitions/name.
func (f *filler) resolve(ref string) (json.RawMessage, bool) {
	path, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return nil, false
	}
	at := f.root
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if part == "" {
			continue
		}
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		var o map[string]json.RawMessage
		if json.Unmarshal(at, &o) != nil || o[part] == nil {
			return nil, false
		}
		at = o[part]
	}
	return at, true
}

func (f *filler) typeOf(n schemaNode) string {
	var one string
	var list []string
	switch {
	case json.Unmarshal(n.Type, &one) == nil && one != "":
		return one
	case json.Unmarshal(n.Type, &list) == nil && len(list) > 0:
		if i := slices.IndexFunc(list, func(t string) bool { return t != "null" }); i >= 0 {
			return list[i]
		}
		return "null"
	case len(n.Properties) > 0 || len(n.Required) > 0:
		return "object"
	case len(n.Items) > 0 || len(n.PrefixItems) > 0 || n.MinItems != nil:
		return "array"
	case n.Minimum != nil || n.Maximum != nil || n.MultipleOf > 0:
		return "number"
	}
	return "string"
}

func (f *filler) object(n schemaNode, depth int) json.RawMessage {
	properties, _ := agent.Members(n.Properties) //nolint:errcheck // none
	list := make([]agent.Member, 0, len(properties))
	for _, p := range properties {
		if f.written > 2*fillBytesMax || (depth > fillDepthMax || f.written > fillBytesMax) && !slices.Contains(n.Required, p.Name) {
			continue
		}
		list = append(list, agent.Member{Name: p.Name, Value: f.value(p.Value, p.Name, false, depth+1)})
	}
	for _, name := range n.Required { // required but not described
		if !slices.ContainsFunc(list, func(m agent.Member) bool { return m.Name == name }) {
			list = append(list, agent.Member{Name: name, Value: f.text(schemaNode{}, name, false)})
		}
	}
	return agent.Object(list)
}

func (f *filler) array(n schemaNode, name string, depth int) json.RawMessage {
	low, high := 0, fillItemsMax
	if n.MinItems != nil {
		low = min(max(*n.MinItems, 0), fillItemsMax)
	}
	if n.MaxItems != nil {
		high = min(max(*n.MaxItems, low), fillItemsMax)
	}
	count := 2 + f.dice.IntN(2)
	switch {
	case name == "unresolved":
		count = f.dice.IntN(2)
	case leftOver.MatchString(name):
		count = 0
	}
	if depth > fillDepthMax || f.written > fillBytesMax {
		count = 0
	}
	count = min(max(count, low, len(n.PrefixItems)), high)
	if string(n.Items) == "false" {
		count = min(count, len(n.PrefixItems))
	}
	out := []byte{'['}
	seen := map[string]bool{}
	for i, tries := 0, 0; i < count && tries < 20*count && f.written <= 2*fillBytesMax; tries++ { // longer than that no output may be
		items := n.Items
		if i < len(n.PrefixItems) {
			items = n.PrefixItems[i]
		}
		v := f.value(items, name, true, depth+1)
		if n.UniqueItems && seen[string(v)] {
			continue
		}
		seen[string(v)] = true
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, v...)
		i++
	}
	return append(out, ']')
}

var (
	hopeful   = regexp.MustCompile(`(?i)pass|approv|valid|correct|success|accept|complete|fulfil|satisf|ok\b|good|done|(^|_)(ready|met)$`)
	hopeless  = regexp.MustCompile(`(?i)(^|_)(in|un|not_?)(valid|complete|correct|accept|approved|done|met)|fail|reject|block|abort`)
	allIsWell = regexp.MustCompile(`(?i)^(pass|passed|accept|accepted|approve|approved|accurate|correct|valid|ok|yes|good|done|met|ready)$`)
	leftOver  = regexp.MustCompile(`(?i)^(open|remaining|blockers|failures)$`)
	scored    = regexp.MustCompile(`(?i)score|accuracy|completeness|clarity|rating|quality|grade|performance`)
	fraction  = regexp.MustCompile(`(?i)probab|ratio|share|likelihood|similarity|weight`)
)

// yes answers a question by its name: whether something is good enough, it is.
func (f *filler) yes(name string) bool {
	switch {
	case hopeless.MatchString(name):
		return false
	case hopeful.MatchString(name):
		return true
	}
	return f.choices.IntN(3) == 0
}

// choice takes the word that says that all is well, if one of them does.
func (f *filler) choice(from []json.RawMessage) json.RawMessage {
	for _, raw := range from {
		var word string
		if json.Unmarshal(raw, &word) == nil && allIsWell.MatchString(word) {
			return raw
		}
	}
	return from[f.choices.IntN(len(from))]
}

// number draws within the bounds, where the name suggests it: a score is good, but not always good enough for the
// strictest; a confidence is between 70 and 95.
func (f *filler) number(n schemaNode, name string, whole bool) json.RawMessage {
	low, high := n.bounds(whole)
	from, to := 3.0, 40.0
	bounded := !math.IsInf(low, 0) && !math.IsInf(high, 0)
	switch {
	case strings.Contains(strings.ToLower(name), "confidence"):
		from, to = 70, 95
		if high <= 1 {
			from, to = 0.7, 0.95
		}
	case bounded && scored.MatchString(name):
		from, to = low+(high-low)*0.75, low+(high-low)*0.98
	case bounded:
		from, to = low+(high-low)*0.6, low+(high-low)*0.9
	case scored.MatchString(name):
		from, to = 7, 9
	case fraction.MatchString(name) && !whole:
		from, to = 0.6, 0.9
	}
	v := from + (to-from)*f.dice.Float64()
	v = min(max(v, low), high)
	switch {
	case n.MultipleOf > 0:
		v = math.Floor(v/n.MultipleOf) * n.MultipleOf
		if v < low {
			v += n.MultipleOf
		}
		if v = math.Round(v*1e6) / 1e6; whole {
			v = math.Round(v)
		}
	case whole:
		v = min(max(math.Round(v), math.Ceil(low)), math.Floor(high))
	case to-from >= 2:
		if r := math.Round(v); r >= low && r <= high {
			v = r
		}
	default:
		if r := math.Round(v*100) / 100; r >= low && r <= high {
			v = r
		}
	}
	return json.RawMessage(strconv.FormatFloat(v, 'f', -1, 64))
}

// bounds of a number, both included. A bound that is excluded moves inward by one, or by a thousandth of the range.
func (n schemaNode) bounds(whole bool) (low, high float64) {
	low, high = math.Inf(-1), math.Inf(1)
	if n.Minimum != nil {
		low = *n.Minimum
	}
	if n.Maximum != nil {
		high = *n.Maximum
	}
	step := 1.0
	exLow, hasLow := asNumber(n.ExclusiveMinimum)
	exHigh, hasHigh := asNumber(n.ExclusiveMaximum)
	if !whole {
		step = 0.001
		if span := min(high, or(exHigh, hasHigh, high)) - max(low, or(exLow, hasLow, low)); !math.IsInf(span, 0) {
			step = span / 1000
		}
	}
	if hasLow {
		low = max(low, exLow+step)
	}
	if hasHigh {
		high = min(high, exHigh-step)
	}
	if high < low {
		high = low // nothing meets such a schema
	}
	return low, high
}

func or(v float64, ok bool, otherwise float64) float64 {
	if ok {
		return v
	}
	return otherwise
}

func asNumber(raw json.RawMessage) (float64, bool) {
	var f float64
	err := json.Unmarshal(raw, &f)
	return f, err == nil && len(raw) > 0
}
