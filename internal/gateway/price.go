package gateway

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
)

//go:embed data/prices.csv
var pricesCSV []byte

// Rate is a price per token in pico-USD (1e-12 US dollars): a dollar for a million tokens is a Rate of 1,000,000.
// It holds six decimals of a dollar per million tokens exactly.
type Rate int64

// perMillion is one dollar for a million tokens.
const perMillion Rate = 1_000_000

// rateMax bounds a rate, so that no sum of a call can overflow.
const rateMax = 10_000 * perMillion

// String is the rate in dollars per million tokens: "2.5", "0.075".
func (r Rate) String() string {
	s := fmt.Sprintf("%d.%06d", r/perMillion, r%perMillion)
	return strings.TrimRight(strings.TrimRight(s, "0"), ".")
}

// MarshalText writes the rate as String does.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func parseRate(s string) (Rate, error) {
	whole, frac, _ := strings.Cut(s, ".")
	if whole == "" {
		return 0, fmt.Errorf("%q is no price; free is 0", s)
	}
	if len(frac) > 6 {
		return 0, fmt.Errorf("%q has more than six decimals", s)
	}
	n, err := strconv.ParseUint(whole+(frac + "000000")[:6], 10, 63)
	if err != nil || Rate(n) > rateMax {
		return 0, fmt.Errorf("%q is no price from 0 to %s", s, rateMax)
	}
	return Rate(n), nil
}

// Price is what a model costs from a day on.
type Price struct {
	EffectiveFrom time.Time `json:"effective_from,omitzero"` // zero: since ever
	Source        string    `json:"source"`
	Checked       string    `json:"checked"` // the day the source had verified it
	Tiers         []Tier    `json:"tiers"`   // by rising ContextOver; the first begins at 0
}

// Tier is what a request costs whose whole input exceeds ContextOver tokens: all of it, not only the part above.
type Tier struct {
	ContextOver int64 `json:"context_over"`
	Input       Rate  `json:"input"`
	CacheRead   Rate  `json:"cache_read"`
	CacheWrite  Rate  `json:"cache_write"`
	Output      Rate  `json:"output"` // of reasoning too
}

// Cost of one request: exact, rounded half up to whole nano-USD once.
func (p *Price) Cost(t usage.Tokens) usage.Money {
	input := t.Input + t.CacheRead + t.CacheWrite
	tier := p.Tiers[0]
	for _, higher := range p.Tiers[1:] {
		if input > higher.ContextOver {
			tier = higher
		}
	}
	pico := t.Input*int64(tier.Input) + t.CacheRead*int64(tier.CacheRead) + t.CacheWrite*int64(tier.CacheWrite) +
		(t.Output+t.Reasoning)*int64(tier.Output)
	return usage.Money((pico + 500) / 1000)
}

// priceList holds dated prices by model, or by provider/model where a provider's own price is known.
type priceList map[string][]Price // by falling EffectiveFrom

// at gives the price of a model at a moment, or nil: then it is unknown, which is not zero.
func (l priceList) at(name string, when time.Time) *Price {
	for i := range l[name] {
		if p := &l[name][i]; !p.EffectiveFrom.After(when) {
			return p
		}
	}
	return nil
}

// parsePrices reads and checks a price table (columns as in data/prices.csv).
func parsePrices(table []byte) (priceList, error) {
	rows, err := readTable(table, "model", "effective_from", "context_over", "input", "cache_read", "cache_write", "output", "source", "checked")
	if err != nil {
		return nil, fmt.Errorf("read price table: %w", err)
	}
	list := priceList{}
	for _, r := range rows {
		if err := list.add(r); err != nil {
			return nil, fmt.Errorf("read price table: line %d: %w", r.line, err)
		}
	}
	for model, prices := range list {
		for _, p := range prices {
			slices.SortFunc(p.Tiers, func(a, b Tier) int { return int(a.ContextOver - b.ContextOver) })
			if p.Tiers[0].ContextOver != 0 {
				return nil, fmt.Errorf("read price table: %s has no tier that begins at 0", model)
			}
		}
		slices.SortFunc(prices, func(a, b Price) int { return b.EffectiveFrom.Compare(a.EffectiveFrom) })
	}
	return list, nil
}

func (l priceList) add(r row) error {
	model := r.of["model"]
	if model == "" || r.of["source"] == "" {
		return errors.New("model and source must be given")
	}
	p := Price{Source: r.of["source"], Checked: r.of["checked"]}
	if _, err := time.Parse(time.DateOnly, p.Checked); err != nil {
		return fmt.Errorf("checked: %q is not a day", p.Checked)
	}
	if from := r.of["effective_from"]; from != "" {
		day, err := time.Parse(time.DateOnly, from)
		if err != nil {
			return fmt.Errorf("effective_from: %q is not a day", from)
		}
		p.EffectiveFrom = day
	}
	tier, err := parseTier(r)
	if err != nil {
		return err
	}
	prices := l[model]
	for i := range prices {
		if !prices[i].EffectiveFrom.Equal(p.EffectiveFrom) {
			continue
		}
		if slices.ContainsFunc(prices[i].Tiers, func(t Tier) bool { return t.ContextOver == tier.ContextOver }) {
			return fmt.Errorf("%s is priced twice", model)
		}
		prices[i].Tiers = append(prices[i].Tiers, tier)
		return nil
	}
	p.Tiers = []Tier{tier}
	l[model] = append(prices, p)
	return nil
}

func parseTier(r row) (Tier, error) {
	over, err := strconv.ParseInt(r.of["context_over"], 10, 32)
	if err != nil || over < 0 {
		return Tier{}, fmt.Errorf("context_over: %q is no number of tokens", r.of["context_over"])
	}
	t := Tier{ContextOver: over}
	for _, f := range []struct {
		name string
		to   *Rate
	}{{"input", &t.Input}, {"output", &t.Output}, {"cache_read", &t.CacheRead}, {"cache_write", &t.CacheWrite}} {
		text := r.of[f.name]
		if text == "" && strings.HasPrefix(f.name, "cache") {
			*f.to = t.Input
			continue
		}
		if *f.to, err = parseRate(text); err != nil {
			return Tier{}, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return t, nil
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
