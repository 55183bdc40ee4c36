package workflow

import (
	"slices"
	"time"
)

var (
	chainKeys      = keySet{known: []string{"entries", "hedge", "accept_best", "on_policy", "on_truncated"}}
	chainEntryKeys = keySet{known: []string{"model", "timeout", "ttft", "idle", "retries", "retry_timeouts", "accept"}}
)

// EntryRetriesMax bounds the retries of one entry of a chain.
const EntryRetriesMax = 10

// chains compiles the chains of the definition. The built-in ones come with the first who names them.
func (c *compiler) chains() {
	n := c.root.get("chains")
	if n == nil || !c.p.kind(n, nodeObject) {
		return
	}
	for _, m := range n.members {
		c.p.name(m.spot(), "a chain", m.name)
		c.w.Chains[m.name] = c.chainOf(m.value, m.name)
	}
}

// chainValue reads the key chain: a name, or a chain written out.
func (c *compiler) chainValue(n *node) *Chain {
	switch {
	case n == nil || n.kind == nodeBad:
		return nil
	case n.kind == nodeList || n.kind == nodeObject:
		return c.chainOf(n, "")
	case n.kind != nodeText:
		c.p.add(n.spot(), codeType, "must be the name of a chain, a list of entries or an object, not %s", n.kind)
		return nil
	}
	name := c.p.word(n)
	if chain, ok := c.w.Chains[name]; ok {
		return chain
	}
	if chain := c.builtin(name, n); chain != nil {
		return chain
	}
	if name != "" {
		tail, edit := didYouMean(name, slices.Concat(keysOf(c.w.Chains), builtinNames))
		c.p.suggest(n.spot(), edit, codeUnknownChain, "there is no chain %q%s", clip(name), tail)
	}
	return &Chain{Name: name}
}

// chainOf compiles a chain: a list of entries, or an object that says more of how they are asked.
func (c *compiler) chainOf(n *node, name string) *Chain {
	k := &Chain{Name: name}
	if n.kind != nodeObject {
		k.Entries = c.entries(n)
		return k
	}
	c.p.object(n, "a chain", chainKeys)
	if entries := c.p.need(n, "entries", "a chain"); entries != nil {
		k.Entries = c.entries(entries)
	}
	k.Hedge, k.HedgeAfter = c.hedge(n.get("hedge"))
	k.AcceptBest = c.p.boolean(n.get("accept_best"))
	if v := n.get("on_policy"); v != nil {
		k.OnPolicy = c.p.oneOf(v, "next", "stop") == "next"
	}
	if v := n.get("on_truncated"); v != nil {
		k.LongerOnce = c.p.oneOf(v, "longer", "stop") == "longer"
	}
	return k
}

// hedge reads whether a slow entry is not waited for, and how long it is.
func (c *compiler) hedge(n *node) (bool, time.Duration) {
	switch {
	case n == nil || n.kind == nodeBad:
		return false, 0
	case n.kind == nodeBool:
		return n.text == "true", 0
	case n.kind == nodeText:
		after := c.p.duration(n, TimeoutMax, 0)
		return after > 0, after
	}
	c.p.add(n.spot(), codeType, "must be true, false or a duration, not %s", n.kind)
	return false, 0
}

func (c *compiler) entries(n *node) []ChainEntry {
	if !c.p.kind(n, nodeList) {
		return nil
	}
	if len(n.items) == 0 || len(n.items) > ChainEntriesMax {
		c.p.add(n.spot(), codeLimit, "a chain has 1 to %d entries, not %d", ChainEntriesMax, len(n.items))
	}
	var entries []ChainEntry
	for _, item := range n.items {
		if !c.p.object(item, "a chain entry", chainEntryKeys) {
			continue
		}
		e := c.entry(item)
		if e.Model != "" && slices.ContainsFunc(entries, func(before ChainEntry) bool { return before.Model == e.Model }) {
			c.p.add(item.get("model").spot(), codeConflict, "%q stands twice in the chain; give the first more retries", clip(e.Model))
		}
		entries = append(entries, e)
	}
	return entries
}

func (c *compiler) entry(n *node) ChainEntry {
	e := ChainEntry{
		Model:         c.p.word(c.p.need(n, "model", "a chain entry")),
		Timeout:       c.p.duration(n.get("timeout"), TimeoutMax, 0),
		FirstToken:    c.p.duration(n.get("ttft"), TimeoutMax, 0),
		Idle:          c.p.duration(n.get("idle"), TimeoutMax, 0),
		Retries:       c.p.integer(n.get("retries"), 0, EntryRetriesMax, 0),
		RetryTimeouts: c.p.boolean(n.get("retry_timeouts")),
	}
	if accept := n.get("accept"); accept != nil {
		e.Accept = c.condition(accept, owner{place: placeAccept})
	}
	return e
}
