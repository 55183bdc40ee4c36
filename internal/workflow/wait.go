package workflow

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	waitKeys   = keySet{known: []string{"for", "at", "signal"}}
	signalKeys = keySet{known: []string{"name", "match", "timeout"}}
	signalForm = regexp.MustCompile(`^[a-z0-9_.-]{1,128}$`)
)

// waitStep reads what is waited for.
func (c *compiler) waitStep(d *draftStep) {
	w := &WaitStep{}
	d.step.Wait = w
	n := d.node.get("wait")
	if !c.p.object(n, "a wait", waitKeys) {
		return
	}
	var given []string
	for _, key := range waitKeys.known {
		if n.get(key) != nil {
			given = append(given, key)
		}
	}
	if len(given) != 1 {
		c.p.add(n.spot(), codeConflict, "a wait has exactly one of %s; this one has %d", strings.Join(waitKeys.known, ", "), len(given))
		return
	}
	if v := d.node.get("timeout"); v != nil {
		c.p.add(v.spot(), codeConflict, `a wait has no timeout; that of a signal stands under "signal"`)
	}
	switch given[0] {
	case "for":
		w.For = c.waitTime(n.get("for"), d)
	case "at":
		w.At = c.waitAt(n.get("at"), d)
	case "signal":
		w.Signal = c.signal(n.get("signal"), d)
	}
}

func (c *compiler) waitAt(n *node, d *draftStep) *Expr {
	if n.kind == nodeText {
		if _, err := time.Parse(time.RFC3339, n.text); err == nil {
			c.p.suggest(n.spot(), "'"+n.text+"'", codeExprSyntax, "an expression stands here; a time in it is text, in quotes of its own")
			return nil
		}
	}
	return c.bare(n, d.owner(), wantTime)
}

func (c *compiler) waitTime(n *node, d *draftStep) *Template {
	if n.kind == nodeNumber {
		c.p.duration(n, TimeoutMax, 0) // which says what is wrong with it
		return nil
	}
	if !c.p.kind(n, nodeText) {
		return nil
	}
	t := c.template(n, d.owner())
	if t.constant != nil {
		c.p.duration(n, TimeoutMax, 0)
	}
	return t
}

func (c *compiler) signal(n *node, d *draftStep) *SignalWait {
	s := &SignalWait{}
	if !c.p.object(n, "a signal", signalKeys) {
		return s
	}
	s.Name = c.signalName(c.p.need(n, "name", "a signal"))
	if match := n.get("match"); match != nil {
		o := d.owner()
		o.further = furtherEvent
		s.Match = c.condition(match, o)
	}
	s.Timeout = c.p.duration(n.get("timeout"), TimeoutMax, 0)
	if s.Name != "" && !slices.Contains(c.w.Signals, s.Name) {
		c.w.Signals = append(c.w.Signals, s.Name)
		slices.Sort(c.w.Signals)
	}
	return s
}

// signalName reads the name of a signal: runs find each other by it, so it is known before they run.
func (c *compiler) signalName(n *node) string {
	name := c.p.word(n)
	if name != "" && !signalForm.MatchString(name) {
		c.p.add(n.spot(), codeName, "%q is not a name for a signal: 1 to 128 small letters, digits and . _ -", clip(name))
		return ""
	}
	return name
}
