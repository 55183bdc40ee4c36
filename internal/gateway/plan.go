package gateway

import (
	"context"
	"fmt"
	"slices"

	"github.com/fermata-run/fermata/internal/gateway/provider"
)

// plan works out who serves the entries, and passes over those who cannot do what is asked.
func (c *completion) plan(ctx context.Context) error {
	if len(c.req.Chain.Entries) == 0 && c.req.Route != "" {
		chain, rule, err := c.chosen(ctx)
		if err != nil {
			return &FailedError{Class: string(provider.ClassNotFound), Message: err.Error(), Calls: c.calls}
		}
		c.req.Chain, c.rule = chain, rule
	}
	if len(c.req.Chain.Entries) == 0 {
		return &FailedError{Class: string(provider.ClassInvalidRequest), Message: errNoEntries.Error()}
	}
	for depth, e := range c.req.Chain.Entries {
		if depth < c.req.From {
			continue
		}
		for _, r := range c.g.serving(e.Model, c.req.Caller.Mode) {
			c.entries = append(c.entries, &entry{ChainEntry: e, route: r, depth: depth})
		}
		if _, err := c.g.route(e.Model); err != nil {
			c.passOver(&entry{ChainEntry: e, depth: depth}, provider.ClassNotFound, err.Error())
		}
	}
	c.othersFirst(c.entries)
	c.keepAble()
	markLast(c.entries)
	return nil
}

// othersFirst puts the entries whose family is to be avoided behind all others.
func (c *completion) othersFirst(entries []*entry) {
	if len(c.req.Avoid) == 0 {
		return
	}
	for _, e := range entries {
		e.avoided = c.g.isAvoided(c.req.Avoid, e.route.model)
	}
	slices.SortStableFunc(entries, func(a, b *entry) int { return asLast(a.avoided) - asLast(b.avoided) })
}

// isAvoided reports whether a model is of the family of one of these.
func (c *catalog) isAvoided(avoid []string, model string) bool {
	family := c.Family(model)
	return slices.ContainsFunc(avoid, func(a string) bool { return c.Family(a) == family })
}

// asLast orders what is avoided behind what is not.
func asLast(avoided bool) int {
	if avoided {
		return 1
	}
	return 0
}

func markLast(entries []*entry) {
	for i, e := range entries {
		e.last = i == len(entries)-1
	}
}

// keepAble drops the entries whose models are known not to do what is asked, and those with too small a window while a
// later one has room.
func (c *completion) keepAble() {
	c.entries = slices.DeleteFunc(c.entries, func(e *entry) bool {
		why := c.unable(e.route.known)
		if why != "" {
			c.passOver(e, provider.ClassCapabilityMismatch, why)
		}
		return why != ""
	})
	room := 0 // the last entry with room for the prompt
	for i, e := range c.entries {
		if c.over(e) == 0 {
			room = i
		}
	}
	able := make([]*entry, 0, len(c.entries))
	for i, e := range c.entries {
		if over := c.over(e); over > 0 && i < room {
			c.passOver(e, provider.ClassContextLength, fmt.Sprintf("the prompt is about %d tokens longer than its window has room for", over))
			continue
		}
		able = append(able, e)
	}
	c.entries = able
}

func (c *completion) unable(k *known) string {
	if k == nil {
		return ""
	}
	if len(c.req.Ask.Tools) > 0 && !k.tools {
		return "it takes no tools"
	}
	for _, m := range c.req.Ask.Messages {
		if len(m.Images) > 0 && !k.vision {
			return "it sees no pictures"
		}
	}
	return ""
}

// dropTooSmall passes over the entries from i on whose window is no larger than one that a provider found too small.
func (c *completion) dropTooSmall(i int) {
	if c.tooLong == 0 {
		return
	}
	rest := slices.DeleteFunc(c.entries[i:], func(e *entry) bool {
		k := e.route.known
		small := k != nil && k.contextTokens > 0 && k.contextTokens <= c.tooLong
		if small {
			c.passOver(e, provider.ClassContextLength, fmt.Sprintf("its window of %d tokens is no larger than one that the prompt did not fit", k.contextTokens))
		}
		return small
	})
	c.entries = c.entries[:i+len(rest)]
	markLast(c.entries)
}
