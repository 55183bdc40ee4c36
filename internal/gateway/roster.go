package gateway

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed data/models.csv
var modelsCSV []byte

// TierMax is the dearest cost tier. Tiers compare models, they are no prices.
const TierMax = 5

// The speed classes, the slowest first.
const (
	SpeedSlow     = "slow"
	SpeedMedium   = "medium"
	SpeedFast     = "fast"
	SpeedVeryFast = "very_fast"
)

// What a model can do, as the roster says it.
const (
	CapTools     = "tools"     // calls functions
	CapSchema    = "schema"    // keeps to a JSON Schema by itself
	CapVision    = "vision"    // reads pictures
	CapCaching   = "caching"   // its provider charges less for a prompt that begins like the one before
	CapReasoning = "reasoning" // thinks before it answers, and needs room for it
)

// known is a model of the roster.
type known struct {
	name, vendor, family string
	contextTokens        int64 // 0: not known
	outputTokens         int   // 0: not known
	tier                 int   // 1 to TierMax
	speed                string
	strengths            []string // task classes
	zone                 string   // what it is good at, in words
	aliases              []string

	tools, schema, vision, caching, reasoning bool
}

// can reports whether it can do what is needed; what nobody knows is tried.
func (k *known) can(what string) bool {
	if k == nil {
		return true
	}
	switch what {
	case CapTools:
		return k.tools
	case CapSchema:
		return k.schema
	case CapVision:
		return k.vision
	case CapCaching:
		return k.caching
	case CapReasoning:
		return k.reasoning
	}
	return false
}

func (k *known) capabilities() []string {
	list := []string{}
	for _, what := range []string{CapTools, CapSchema, CapVision, CapCaching, CapReasoning} {
		if k.can(what) {
			list = append(list, what)
		}
	}
	return list
}

// roster is which models are known by name.
type roster struct {
	models  []*known
	byName  map[string]*known // names and aliases
	vendors []string
}

func parseRoster(table []byte) (*roster, error) {
	rows, err := readTable(table, "name", "provider", "family", "tier", "speed", "strengths", "zone", "context_tokens", "output_tokens", "capabilities", "aliases")
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	r := &roster{byName: map[string]*known{}}
	for _, line := range rows {
		m, err := parseKnown(line.of)
		if err != nil {
			return nil, fmt.Errorf("read roster: line %d: %w", line.line, err)
		}
		for _, name := range append([]string{m.name}, m.aliases...) {
			if r.byName[name] != nil {
				return nil, fmt.Errorf("read roster: line %d: %s stands there twice", line.line, name)
			}
			r.byName[name] = m
		}
		r.models = append(r.models, m)
		if !slices.Contains(r.vendors, m.vendor) {
			r.vendors = append(r.vendors, m.vendor)
		}
	}
	return r, nil
}

func parseKnown(of map[string]string) (*known, error) {
	m := &known{
		name: of["name"], vendor: of["provider"], family: of["family"], speed: of["speed"], zone: of["zone"],
		strengths: strings.Fields(of["strengths"]), aliases: strings.Fields(of["aliases"]),
	}
	if m.name == "" || m.vendor == "" || m.family == "" {
		return nil, errors.New("name, provider and family must be given")
	}
	var err error
	if m.contextTokens, err = number(of["context_tokens"]); err != nil {
		return nil, fmt.Errorf("context_tokens: %w", err)
	}
	output, err := number(of["output_tokens"])
	if err != nil {
		return nil, fmt.Errorf("output_tokens: %w", err)
	}
	m.outputTokens = int(output)
	tier, err := number(of["tier"])
	if err != nil || tier < 1 || tier > TierMax {
		return nil, fmt.Errorf("tier: %q is no number from 1 to %d", of["tier"], TierMax)
	}
	m.tier = int(tier)
	if !slices.Contains([]string{SpeedSlow, SpeedMedium, SpeedFast, SpeedVeryFast}, m.speed) {
		return nil, fmt.Errorf("speed: %q is no speed class", m.speed)
	}
	for _, what := range strings.Fields(of["capabilities"]) {
		switch what {
		case CapTools:
			m.tools = true
		case CapSchema:
			m.schema = true
		case CapVision:
			m.vision = true
		case CapCaching:
			m.caching = true
		case CapReasoning:
			m.reasoning = true
		default:
			return nil, fmt.Errorf("capabilities: %q is none", what)
		}
	}
	return m, nil
}

func number(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	return strconv.ParseInt(s, 10, 32)
}

// row is one line of a table, by column.
type row struct {
	line int
	of   map[string]string
}

// readTable reads a CSV table that begins with exactly these columns; lines that begin with # are comments.
func readTable(table []byte, columns ...string) ([]row, error) {
	in := csv.NewReader(bytes.NewReader(table))
	in.Comment = '#'
	in.FieldsPerRecord = len(columns)
	header, err := in.Read()
	if err != nil {
		return nil, err
	}
	if !slices.Equal(header, columns) {
		return nil, fmt.Errorf("the columns must be %s", strings.Join(columns, ","))
	}
	var rows []row
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := in.FieldPos(0)
		r := row{line: line, of: make(map[string]string, len(columns))}
		for i, c := range columns {
			r.of[c] = strings.TrimSpace(record[i])
		}
		rows = append(rows, r)
	}
}

// dated is what providers put behind a model's name to say which of its versions is meant.
var dated = regexp.MustCompile(`(?:-latest|-preview|[-@]20\d{2}-?\d{2}-?\d{2}|-\d{2}-(?:\d{2}|20\d{2})|-\d{4})$`)

// find resolves a name: as it stands, as an alias, without the vendor before it, without dates behind it.
func (r *roster) find(name string) *known {
	name = strings.ToLower(name)
	if m := r.byName[name]; m != nil {
		return m
	}
	if vendor, rest, ok := strings.Cut(name, "/"); ok {
		m := r.find(rest)
		if m != nil && vendor != m.vendor && slices.Contains(r.vendors, vendor) {
			return nil // another vendor's model of the same name is not this one
		}
		return m
	}
	for short := dated.ReplaceAllString(name, ""); short != name; short = dated.ReplaceAllString(name, "") {
		if m := r.byName[short]; m != nil {
			return m
		}
		name = short
	}
	return nil
}

func (r *roster) names() []string {
	names := make([]string, len(r.models))
	for i, m := range r.models {
		names[i] = m.name
	}
	return names
}

// Family is the lineage of a model: claude, gpt, gemini, grok, or for others the name up to its version. Two models of
// one family share their blind spots.
func (c *catalog) Family(model string) string {
	if m := c.roster.find(c.bare(model)); m != nil {
		return m.family
	}
	return familyOf(model)
}

var reasoners = regexp.MustCompile(`^o\d`)

func familyOf(model string) string {
	name := strings.ToLower(model[strings.LastIndexByte(model, '/')+1:])
	switch {
	case strings.HasPrefix(name, "chatgpt"), reasoners.MatchString(name):
		return "gpt"
	}
	end := strings.IndexFunc(name, func(r rune) bool { return r < 'a' || r > 'z' })
	if end <= 0 {
		return name
	}
	return name[:end]
}
