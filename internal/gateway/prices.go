package gateway

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/usage"
)

//go:embed data/prices.csv
var pricesCSV []byte

// What is no token and has a price.
const (
	UnitCall   = "call"
	UnitQuery  = "query"
	UnitImage  = "image"
	UnitMinute = "minute"
)

// Where a price row comes from. The API's rows go before those of the configuration, and these before the built-in ones.
const (
	OriginAPI     = "api"
	OriginConfig  = "config"
	OriginBuiltIn = "built_in"
)

// Limits of price rows.
const (
	// PriceRowsMax bounds the rows of one origin.
	PriceRowsMax = 10_000

	priceTextMax   = 500
	contextOverMax = 1_000_000_000
	unitPriceMax   = 1_000_000 * usage.USD
)

// PriceRow is one line of a price list as a person writes it. Rates are decimal US dollars for a million tokens ("2.50",
// at most six decimals, at most 10,000); prices of units are dollars each. Empty is not the same as "0", which is free:
// an empty cache_read or cache_write costs what input costs, cache_write_1h what cache_write costs, reasoning and
// audio_output what output costs, audio_input and image_input what input costs.
//
// Rows of one provider, model and effective_from are one price: the row with the highest context_over that the request's
// whole input exceeds prices all of the request.
type PriceRow struct {
	Model string `json:"model" yaml:"model"` // a name, an alias, or a pattern that ends in *
	// Provider has its own price for the model; empty: whoever serves it.
	Provider      string `json:"provider,omitempty" yaml:"provider"`
	EffectiveFrom string `json:"effective_from,omitempty" yaml:"effective_from"` // a day (UTC) or RFC 3339; empty: since ever
	ContextOver   int64  `json:"context_over,omitempty" yaml:"context_over"`

	Input        string `json:"input,omitempty" yaml:"input"`
	CacheRead    string `json:"cache_read,omitempty" yaml:"cache_read"`
	CacheWrite   string `json:"cache_write,omitempty" yaml:"cache_write"`
	CacheWrite1h string `json:"cache_write_1h,omitempty" yaml:"cache_write_1h"`
	Output       string `json:"output,omitempty" yaml:"output"`
	Reasoning    string `json:"reasoning,omitempty" yaml:"reasoning"`
	AudioInput   string `json:"audio_input,omitempty" yaml:"audio_input"`
	AudioOutput  string `json:"audio_output,omitempty" yaml:"audio_output"`
	ImageInput   string `json:"image_input,omitempty" yaml:"image_input"`
	// Batch is the share of these prices that the provider's batch interface takes: "0.5". It is told, not applied.
	Batch string `json:"batch,omitempty" yaml:"batch"`

	PerQuery  string `json:"per_query,omitempty" yaml:"per_query"`
	PerImage  string `json:"per_image,omitempty" yaml:"per_image"`
	PerMinute string `json:"per_minute,omitempty" yaml:"per_minute"`
	PerCall   string `json:"per_call,omitempty" yaml:"per_call"` // of each answered request, besides its tokens

	Source  string `json:"source,omitempty" yaml:"source"`   // where it was read; the row's origin if empty
	Checked string `json:"checked,omitempty" yaml:"checked"` // the day on which that source had verified it
	Note    string `json:"note,omitempty" yaml:"note"`

	Origin string `json:"origin,omitempty" yaml:"-"` // api, config or built_in; not read
}

// decimals are the fields that hold amounts, in their order.
func (r *PriceRow) decimals() []struct{ name, text string } {
	return []struct{ name, text string }{
		{"input", r.Input},
		{"cache_read", r.CacheRead},
		{"cache_write", r.CacheWrite},
		{"cache_write_1h", r.CacheWrite1h},
		{"output", r.Output},
		{"reasoning", r.Reasoning},
		{"audio_input", r.AudioInput},
		{"audio_output", r.AudioOutput},
		{"image_input", r.ImageInput},
	}
}

func (r *PriceRow) units() map[string]string {
	return map[string]string{UnitQuery: r.PerQuery, UnitImage: r.PerImage, UnitMinute: r.PerMinute, UnitCall: r.PerCall}
}

func (r *PriceRow) hasTokens() bool {
	return slices.ContainsFunc(r.decimals(), func(d struct{ name, text string }) bool { return d.text != "" })
}

// Validate says what is wrong with the row, with pointers into it. Nil: nothing.
func (r *PriceRow) Validate() []fault.Issue {
	var issues []fault.Issue
	wrong := func(field, code, format string, args ...any) {
		issues = append(issues, fault.Issue{Pointer: "/" + field, Code: code, Detail: fmt.Sprintf(format, args...)})
	}
	r.validateNames(wrong)
	for _, d := range r.decimals() {
		if d.text == "" {
			continue
		}
		if _, err := parseRate(d.text); err != nil {
			wrong(d.name, "invalid", "%s: dollars for a million tokens, such as \"2.50\"", err)
		}
	}
	sold := false
	for _, unit := range slices.Sorted(maps.Keys(r.units())) {
		text := r.units()[unit]
		if text == "" {
			continue
		}
		sold = true
		if _, err := parseDecimal(text, 9, int64(unitPriceMax)); err != nil {
			wrong("per_"+unit, "invalid", "%s: dollars each, such as \"0.01\"", err)
		}
	}
	if r.Batch != "" {
		if _, err := parseDecimal(r.Batch, 6, 1_000_000); err != nil {
			wrong("batch", "invalid", "%s: a share from 0 to 1, such as \"0.5\"", err)
		}
	}
	switch tokens := r.hasTokens(); {
	case tokens && r.Input == "":
		wrong("input", "required", "input must be given; free is \"0\"")
	case tokens && r.Output == "":
		wrong("output", "required", "output must be given; free is \"0\"")
	case !tokens && !sold:
		wrong("input", "required", "a row without any price: give input and output, or the price of a unit")
	}
	return issues
}

func (r *PriceRow) validateNames(wrong func(field, code, format string, args ...any)) {
	if r.Model == "" || strings.ContainsAny(r.Model, " \t\n") || len(r.Model) > priceTextMax {
		wrong("model", "invalid", "a name without spaces of 1 to %d bytes must be given", priceTextMax)
	}
	if star := strings.IndexByte(r.Model, '*'); star >= 0 && star != len(r.Model)-1 || r.Model == "*" {
		wrong("model", "invalid", "a pattern is the beginning of a name and then one *, such as \"ft:gpt-4o*\"")
	}
	if strings.ContainsAny(r.Provider, "/ \t\n*") || len(r.Provider) > priceTextMax {
		wrong("provider", "invalid", "the name of a provider has neither spaces nor slashes nor *")
	}
	if r.ContextOver < 0 || r.ContextOver > contextOverMax {
		wrong("context_over", "invalid", "%d is no number of tokens from 0 to %d", r.ContextOver, contextOverMax)
	}
	if _, err := parseMoment(r.EffectiveFrom); err != nil {
		wrong("effective_from", "invalid", "%q is neither a day (2026-03-13) nor an RFC 3339 time", r.EffectiveFrom)
	}
	if _, err := time.Parse(time.DateOnly, r.Checked); r.Checked != "" && err != nil {
		wrong("checked", "invalid", "%q is not a day (2026-03-13)", r.Checked)
	}
	for _, text := range []struct{ name, value string }{{"source", r.Source}, {"note", r.Note}} {
		if len(text.value) > priceTextMax {
			wrong(text.name, "too_long", "longer than %d bytes", priceTextMax)
		}
	}
}

func parseMoment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	return time.Parse(time.RFC3339, s)
}

// ValidatePrices says what is wrong with rows that stand together. Pointers begin with the place of the row: "/3/input".
func ValidatePrices(rows []PriceRow) []fault.Issue {
	_, issues := makeList(rows, "")
	return issues
}

// priceList holds dated prices by model, or by provider/model; each by falling EffectiveFrom.
type priceList struct {
	rows     []PriceRow
	exact    map[string][]*Price
	patterns []string // without their *, the longest first
}

// makeList checks rows and puts them together to prices. The list is only good without issues.
func makeList(rows []PriceRow, origin string) (*priceList, []fault.Issue) {
	l := &priceList{exact: map[string][]*Price{}}
	if len(rows) > PriceRowsMax {
		return l, []fault.Issue{{Code: "limit", Detail: fmt.Sprintf("%d rows are more than %d", len(rows), PriceRowsMax)}}
	}
	var issues []fault.Issue
	first := map[*Price]int{}
	for i, r := range rows {
		r.Origin = origin
		if r.Source == "" {
			r.Source = origin
		}
		l.rows = append(l.rows, r)
		wrong := r.Validate()
		if len(wrong) == 0 {
			p, issue := l.add(&r)
			if _, seen := first[p]; p != nil && !seen {
				first[p] = i
			}
			wrong = append(wrong, issue...)
		}
		for _, w := range wrong {
			w.Pointer = "/" + strconv.Itoa(i) + w.Pointer
			issues = append(issues, w)
		}
	}
	for name, prices := range l.exact {
		for _, p := range prices {
			slices.SortFunc(p.Tiers, func(a, b Tier) int { return int(a.ContextOver - b.ContextOver) })
			if len(p.Tiers) > 0 && p.Tiers[0].ContextOver != 0 {
				issues = append(issues, fault.Issue{
					Pointer: fmt.Sprintf("/%d/context_over", first[p]), Code: "required",
					Detail: fmt.Sprintf("%s has no row that begins at context_over 0", name),
				})
			}
		}
		slices.SortFunc(prices, func(a, b *Price) int { return b.EffectiveFrom.Compare(a.EffectiveFrom) })
		if pattern, ok := strings.CutSuffix(name, "*"); ok {
			l.patterns = append(l.patterns, pattern)
		}
	}
	slices.SortFunc(l.patterns, func(a, b string) int {
		if d := len(b) - len(a); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	slices.SortStableFunc(issues, func(a, b fault.Issue) int { return strings.Compare(a.Pointer, b.Pointer) })
	return l, issues[:min(len(issues), fault.IssuesMax)]
}

// add puts a valid row into the price it is a part of.
func (l *priceList) add(r *PriceRow) (*Price, []fault.Issue) {
	name := r.Model
	if r.Provider != "" {
		name = r.Provider + "/" + name
	}
	from, _ := parseMoment(r.EffectiveFrom)
	var p *Price
	for _, have := range l.exact[name] {
		if have.EffectiveFrom.Equal(from) {
			p = have
		}
	}
	if p == nil {
		p = &Price{Model: r.Model, Provider: r.Provider, EffectiveFrom: from, Source: r.Source, Checked: r.Checked, Note: r.Note, Units: map[string]usage.Money{}}
		l.exact[name] = append(l.exact[name], p)
	} else if !r.hasTokens() || slices.ContainsFunc(p.Tiers, func(t Tier) bool { return t.ContextOver == r.ContextOver }) {
		return p, []fault.Issue{{Pointer: "/model", Code: "conflict", Detail: name + " is priced twice for the same time and context_over"}}
	}
	for unit, text := range r.units() {
		if text != "" {
			n, _ := parseDecimal(text, 9, int64(unitPriceMax))
			p.Units[unit] = usage.Money(n)
		}
	}
	if r.hasTokens() {
		p.Tiers = append(p.Tiers, r.tier())
	}
	return p, nil
}

// tier reads the rates of a valid row; what is not given follows from what is.
func (r *PriceRow) tier() Tier {
	rate := func(text string, otherwise Rate) Rate {
		if text == "" {
			return otherwise
		}
		parsed, _ := parseRate(text)
		return parsed
	}
	t := Tier{ContextOver: r.ContextOver, Input: rate(r.Input, 0), Output: rate(r.Output, 0)}
	t.CacheRead = rate(r.CacheRead, t.Input)
	t.CacheWrite = rate(r.CacheWrite, t.Input)
	t.CacheWrite1h = rate(r.CacheWrite1h, t.CacheWrite)
	t.Reasoning = rate(r.Reasoning, t.Output)
	t.AudioInput = rate(r.AudioInput, t.Input)
	t.AudioOutput = rate(r.AudioOutput, t.Output)
	t.ImageInput = rate(r.ImageInput, t.Input)
	return t
}

// at gives the price of exactly this name at a moment, or nil.
func (l *priceList) at(name string, when time.Time) *Price {
	for _, p := range l.exact[name] {
		if !p.EffectiveFrom.After(when) {
			return p
		}
	}
	return nil
}

// find resolves names at a moment: the first that is priced exactly, else the longest pattern that is the beginning of
// one.
func (l *priceList) find(names []string, when time.Time) *Price {
	for _, name := range names {
		if p := l.at(name, when); p != nil {
			return p
		}
	}
	for _, pattern := range l.patterns {
		for _, name := range names {
			if strings.HasPrefix(name, pattern) {
				if p := l.at(pattern+"*", when); p != nil {
					return p
				}
			}
		}
	}
	return nil
}

// priceBook is all price lists, the one that goes before the others first.
type priceBook struct{ api, config, builtIn *priceList }

func (b *priceBook) lists() [3]*priceList { return [3]*priceList{b.api, b.config, b.builtIn} }

// openBook reads the built-in table and lays the configuration's rows over it.
func openBook(config []PriceRow) (*priceBook, error) {
	table, err := readPriceTable(pricesCSV)
	if err != nil {
		return nil, fmt.Errorf("read price table: %w", err)
	}
	b := &priceBook{api: &priceList{}}
	var issues []fault.Issue
	if b.builtIn, issues = makeList(table, OriginBuiltIn); len(issues) > 0 {
		return nil, fmt.Errorf("read price table: %w", pricesInvalid(issues))
	}
	if b.config, issues = makeList(config, OriginConfig); len(issues) > 0 {
		return nil, fmt.Errorf("own prices: %w", pricesInvalid(issues))
	}
	return b, nil
}

func pricesInvalid(issues []fault.Issue) error {
	e := fault.New(fault.KindInvalid, "prices_invalid", "%d problems with the prices", len(issues))
	e.Issues = issues
	return e
}

// unverified begins the note of a built-in row whose source names no day.
const unverified = "verify before use"

// priceColumns are those of data/prices.csv.
var priceColumns = []string{
	"model", "provider", "effective_from", "context_over", "input", "cache_read", "cache_write", "cache_write_1h", "output", "reasoning",
	"audio_input", "audio_output", "image_input", "batch", "per_query", "per_image", "per_minute", "per_call", "source", "checked", "note",
}

func readPriceTable(table []byte) ([]PriceRow, error) {
	lines, err := readTable(table, priceColumns...)
	if err != nil {
		return nil, err
	}
	rows := make([]PriceRow, len(lines))
	for i, line := range lines {
		of := line.of
		over, err := number(of["context_over"])
		if err != nil {
			return nil, fmt.Errorf("line %d: context_over: %w", line.line, err)
		}
		if of["source"] == "" || of["checked"] == "" && !strings.HasPrefix(of["note"], unverified) {
			return nil, fmt.Errorf("line %d: source and checked must be given; a row that nobody checked says %q in its note", line.line, unverified)
		}
		rows[i] = PriceRow{
			Model: of["model"], Provider: of["provider"], EffectiveFrom: of["effective_from"], ContextOver: over,
			Input: of["input"], CacheRead: of["cache_read"], CacheWrite: of["cache_write"], CacheWrite1h: of["cache_write_1h"],
			Output: of["output"], Reasoning: of["reasoning"], AudioInput: of["audio_input"], AudioOutput: of["audio_output"],
			ImageInput: of["image_input"], Batch: of["batch"], PerQuery: of["per_query"], PerImage: of["per_image"],
			PerMinute: of["per_minute"], PerCall: of["per_call"], Source: of["source"], Checked: of["checked"], Note: of["note"],
		}
	}
	return rows, nil
}

// Prices are all price rows, those that go before others first.
func (c *catalog) Prices() []PriceRow {
	var rows []PriceRow
	for _, l := range c.prices.Load().lists() {
		rows = append(rows, l.rows...)
	}
	return rows
}

// SetPrices replaces the rows that came through the API. Its error is a *fault.Error with an issue for each thing that
// is wrong; then nothing has changed. Calls under way keep the price they began with.
func (c *catalog) SetPrices(rows []PriceRow) error {
	l, issues := makeList(rows, OriginAPI)
	if len(issues) > 0 {
		return pricesInvalid(issues)
	}
	for {
		old := c.prices.Load()
		if c.prices.CompareAndSwap(old, &priceBook{api: l, config: old.config, builtIn: old.builtIn}) {
			return nil
		}
	}
}

// price finds what a routed model costs at a moment: in the list that goes first, by this provider's own name for it,
// else by the name alone, else by the name of the model it stands for, else by pattern. Nil: unknown, which is not zero.
func (c *catalog) price(r route, when time.Time) *Price {
	names := make([]string, 0, 4)
	if r.to != nil {
		names = append(names, r.to.Name()+"/"+r.model)
		if r.known != nil && r.known.name != r.model {
			names = append(names, r.to.Name()+"/"+r.known.name)
		}
	}
	names = append(names, r.model)
	if r.known != nil {
		names = append(names, r.known.name)
	}
	for _, l := range c.prices.Load().lists() {
		if p := l.find(names, when); p != nil {
			if len(p.Tiers) == 0 { // only its units are for sale: what its tokens cost is not known
				continue
			}
			return p
		}
	}
	return nil
}

// UnitPrice is what one unit (query, image, minute, call) of a model or tool costs at a moment; false: not known.
func (c *catalog) UnitPrice(name, unit string, when time.Time) (usage.Money, bool) {
	for _, l := range c.prices.Load().lists() {
		if p := l.find([]string{name}, when); p != nil {
			if each, ok := p.Units[unit]; ok {
				return each, true
			}
		}
	}
	return 0, false
}
