package workflow

import "strconv"

var mapKeys = keySet{known: []string{
	"items", "as", "steps", "output", "max_items", "concurrency", "on_item_error", "min_success",
}}

// ConcurrencyDefault is how many items of a map are at work at once unless it says otherwise.
const ConcurrencyDefault = 10

func (c *compiler) mapStep(d *draftStep, a around) {
	m := &MapStep{}
	d.step.Map = m
	n := d.node.get("map")
	a, ok := c.bodyOf(d, a)
	if !ok || !c.p.object(n, "a map", mapKeys) {
		return
	}
	m.Body = a.body.body
	m.Items = c.mapItems(d, c.p.need(n, "items", "a map"))
	m.As = c.itemName(n.get("as"), d.body)
	a.body.as = m.As
	c.mapLimits(m, n)
	c.bodySteps(n, "a map", a)
	m.Output = c.bodyOutput(n, a)
}

// mapItems reads what a map has items of: a list that may hold templates, or an expression.
func (c *compiler) mapItems(d *draftStep, n *node) *Template {
	o := d.owner()
	o.volatile = true
	switch {
	case n == nil || n.kind == nodeBad:
		return nil
	case n.kind == nodeText:
		e := c.bare(n, o, wantList)
		return &Template{Source: n.canonical(), root: exprPart{e}, size: len(n.text)}
	case n.kind != nodeList:
		c.p.add(n.spot(), codeType, "must be a list or an expression, not %s", n.kind)
		return nil
	case len(n.items) == 0:
		c.p.add(n.spot(), codeRequired, "there must be at least one item")
	}
	return c.template(n, o)
}

// mapLimits reads what bounds a map, and what becomes of a failed item.
func (c *compiler) mapLimits(m *MapStep, n *node) {
	items, listed := n.get("items"), 0
	if items != nil && items.kind == nodeList {
		listed = len(items.items)
	}
	m.MaxItems = c.mostTimes(n, "max_items", "a map", MapItemsMax, max(listed, 100))
	if limit := n.get("max_items"); limit != nil && m.MaxItems > 0 && listed > m.MaxItems {
		c.p.suggest(limit.spot(), strconv.Itoa(listed), codeValue, "there are %s listed, more than max_items (%d)", count(listed, "item"), m.MaxItems)
	}
	m.Concurrency = c.p.integer(n.get("concurrency"), 1, ConcurrencyMax, ConcurrencyDefault)
	if v := n.get("on_item_error"); v != nil {
		m.KeepErrors = c.p.oneOf(v, "fail", "keep") == "keep"
	}
	least := n.get("min_success")
	switch {
	case m.KeepErrors:
		m.MinSuccess = c.p.integer(least, 1, MapItemsMax, 1)
		if m.MaxItems > 0 && m.MinSuccess > m.MaxItems {
			c.p.suggest(least.spot(), strconv.Itoa(m.MaxItems), codeValue, "min_success (%d) is more than max_items (%d)", m.MinSuccess, m.MaxItems)
		}
	case least != nil:
		c.p.suggest(least.spot(), `"on_item_error": "keep"`, codeConflict, "min_success has a meaning only with on_item_error: keep; otherwise every item must succeed")
	}
}

// mostTimes reads how often a body may run at most, which must be said.
func (c *compiler) mostTimes(n *node, key, what string, high, proposed int) int {
	v := n.get(key)
	if v == nil {
		c.p.suggest(n.spot(), strconv.Quote(key)+": "+strconv.Itoa(proposed), codeRequired,
			"%s needs %q, a whole number up to %d: without it nobody could say what it may cost", what, key, high)
		return 0
	}
	return c.p.integer(v, 1, high, 0)
}
