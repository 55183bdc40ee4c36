package rehearsal

import "slices"

// Comparison lays two runs side by side.
type Comparison struct {
	A      string          `json:"a"` // what each is called
	B      string          `json:"b"`
	Of     [2]*Account     `json:"of"`
	Steps  []ComparedSteps `json:"steps"`            // in the order of a, then those that only b has
	Output []Difference    `json:"output,omitempty"` // of the runs
}

// ComparedSteps is one step in both runs. A nil side does not have it.
type ComparedSteps struct {
	Path   string       `json:"path"`
	A      *StepAccount `json:"a,omitempty"`
	B      *StepAccount `json:"b,omitempty"`
	Output []Difference `json:"output,omitempty"`
}

// Compare lays two accounts side by side.
func Compare(nameA string, a *Account, nameB string, b *Account) *Comparison {
	c := &Comparison{A: nameA, B: nameB, Of: [2]*Account{a, b}, Output: Diff(a.Output, b.Output)}
	for i := range a.Steps {
		c.Steps = append(c.Steps, ComparedSteps{Path: a.Steps[i].Path, A: &a.Steps[i]})
	}
	for i := range b.Steps {
		s := &b.Steps[i]
		at := slices.IndexFunc(c.Steps, func(both ComparedSteps) bool { return both.Path == s.Path })
		if at < 0 {
			c.Steps = append(c.Steps, ComparedSteps{Path: s.Path})
			at = len(c.Steps) - 1
		}
		c.Steps[at].B = s
	}
	for i := range c.Steps {
		if both := &c.Steps[i]; both.A != nil && both.B != nil {
			both.Output = Diff(both.A.Output, both.B.Output)
		}
	}
	return c
}
