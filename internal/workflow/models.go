package workflow

import "slices"

// baseline gathers the models that steps may call, and gives every agent what its savings are counted against.
func (c *compiler) baseline() {
	m := &models{names: map[string]bool{}, seen: map[*Agent]bool{}}
	for _, s := range c.w.Steps {
		m.step(s)
	}
	for _, r := range c.w.Degrade {
		for _, set := range r.Set {
			m.agent(set.Agent)
			m.chain(set.Chain)
		}
	}
	c.w.Models = slices.Sorted(slices.Values(keysOf(m.names)))
	against := c.w.Models
	if c.w.BaselineModel != "" {
		against = []string{c.w.BaselineModel}
	}
	for a := range m.seen {
		a.Baseline = against
	}
	for _, a := range c.w.Agents {
		a.Baseline = against
	}
}

// models are those that may be called.
type models struct {
	names map[string]bool
	seen  map[*Agent]bool
}

func (m *models) step(s *Step) {
	if a := s.Agent; a != nil {
		m.agent(&a.Agent)
		for _, choice := range a.Choices {
			m.agent(choice)
		}
	}
	if s.Merge != nil && s.Merge.Agent != nil {
		m.agent(&s.Merge.Agent.Agent)
	}
	if s.Plan != nil {
		m.agent(&s.Plan.Planner)
	}
	m.gate(s.Gate)
	for _, e := range s.OnError {
		m.agent(e.Agent)
		m.agent(e.To)
		m.chain(e.Chain)
	}
}

func (m *models) agent(a *Agent) {
	if a == nil || m.seen[a] {
		return
	}
	m.seen[a] = true
	m.chain(&a.Chain)
	if a.Summary != nil && a.Summary.Model != "" {
		m.names[a.Summary.Model] = true
	}
	m.gate(a.Gate)
	for _, d := range a.Delegates {
		m.agent(d)
	}
}

func (m *models) gate(g *Gate) {
	if g == nil {
		return
	}
	for _, k := range g.Checks {
		m.agent(k.Judge)
	}
}

func (m *models) chain(k *Chain) {
	if k == nil {
		return
	}
	for _, e := range k.Entries {
		m.names[e.Model] = true
	}
}
