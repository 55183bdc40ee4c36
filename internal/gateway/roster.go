package gateway

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed data/models.csv
var modelsCSV []byte

// known is a model of the roster.
type known struct {
	name, vendor, family string
	contextTokens        int64 // 0: not known
	outputTokens         int   // 0: not known
	reasoning            bool
}

// roster is which models are known by name.
type roster struct {
	models  []*known
	byName  map[string]*known // names and aliases
	vendors []string
}

func parseRoster(table []byte) (*roster, error) {
	rows, err := readTable(table, "name", "provider", "family", "context_tokens", "output_tokens", "reasoning", "aliases")
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	r := &roster{byName: map[string]*known{}}
	for _, line := range rows {
		m := &known{name: line.of["name"], vendor: line.of["provider"], family: line.of["family"], reasoning: line.of["reasoning"] == "yes"}
		if m.name == "" || m.vendor == "" || m.family == "" {
			return nil, fmt.Errorf("read roster: line %d: name, provider and family must be given", line.line)
		}
		if m.contextTokens, err = number(line.of["context_tokens"]); err != nil {
			return nil, fmt.Errorf("read roster: line %d: context_tokens: %w", line.line, err)
		}
		output, err := number(line.of["output_tokens"])
		if err != nil {
			return nil, fmt.Errorf("read roster: line %d: output_tokens: %w", line.line, err)
		}
		m.outputTokens = int(output)
		for _, name := range append([]string{m.name}, strings.Fields(line.of["aliases"])...) {
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

func number(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	return strconv.ParseInt(s, 10, 32)
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

// Family is the lineage of a model: claude, gpt, gemini, grok, or for others the name up to its version. Two models of
// one family share their blind spots.
func (g *Gateway) Family(model string) string {
	if m := g.roster.find(g.bare(model)); m != nil {
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
