package preview

import (
	"fmt"
	"slices"

	"github.com/fermata-run/fermata/internal/workflow"
)

// When a prompt holds too much.
const (
	// answersMax is how many whole answers one conversation can weigh: more than five sources are work for delegates.
	answersMax = 5
	// windowShare of the smallest window may be filled by the prompt: the rest is for the conversation and the answer.
	windowShare = 2
)

// contextExplosion fires at an agent step that is shown, whole, more than five answers that may be large (more than
// 1,000 tokens each; a map counts with all its items), or whose prompt may fill more than half of the smallest window in
// its chain, as far as outputs are bounded by max_tokens, contracts and max_items. Summaries and fields are what they are.
func (l *linter) contextExplosion() {
	for _, s := range l.w.Steps {
		if s.Agent == nil {
			continue
		}
		var k load
		var most workflow.Read
		for _, r := range s.Reads {
			if !shown(feed{to: s, read: r}) {
				continue
			}
			one := l.readLoad(r)
			if k = k.plus(one); most.Step == nil || one.tokens > l.readLoad(most).tokens {
				most = r
			}
		}
		if most.Step == nil {
			continue
		}
		window := l.window(&s.Agent.Agent)
		k.tokens += textSize(s.Agent.Agent.Instructions + written(s.Agent.Prompt))
		edit := fmt.Sprintf("output: {summary: {max_tokens: 200}}   # of who made it\n${{ steps.%s.summary }}", most.Step.ID)
		if most.Step.Agent == nil {
			edit = fmt.Sprintf("${{ steps.%s.output.… }}   # only what is needed; have the steps inside hand out summaries", most.Step.ID)
		}
		switch {
		case k.large > answersMax:
			l.step(s, edit, "%s is shown %d whole answers at once: pass on summaries or the fields it needs", s.ID, k.large)
		case window > 0 && k.tokens > window/windowShare:
			l.step(s, edit, "what %s is shown may have %d tokens, more than half of a window of %d: pass on summaries or the fields it needs", s.ID, k.tokens, window)
		}
	}
}

// window is the smallest one that a prompt of the agent may have to fit into; 0: not known.
func (l *linter) window(a *workflow.Agent) int64 {
	n := a.ContextTokens
	for _, e := range a.Chain.Entries {
		if f, ok := l.model(e.Model); ok && f.ContextTokens > 0 && (n == 0 || f.ContextTokens < n) {
			n = f.ContextTokens
		}
	}
	return n
}

// readersMax is how many agents may be shown a whole large answer before a summary of it is worth its price.
const readersMax = 2

// noSummary fires at a delegate without a summary whose answer may be large: whoever delegates is handed all of it, which
// is what delegating was to spare them. And at an agent step without a summary whose answer may be large, if three or
// more steps of other agents that make something are shown all of it. Reviewers have to see all, and do not count.
func (l *linter) noSummary() {
	seen := map[string]bool{}
	for d := range l.duties() {
		if d.what == dutyDelegates && !seen[d.agent.Name] && d.agent.Summary == nil && l.answerLoad(d.agent).large > 0 {
			seen[d.agent.Name] = true
			l.agent(d.agent, d.step, "output: {summary: {max_tokens: 200}}", "%s is delegated to and hands back all it writes, up to %d tokens: a summary is what the other needs", d.agent.Name, l.answerMax(d.agent))
		}
	}
	for _, s := range l.w.Steps {
		if s.Agent == nil || s.Agent.Agent.Summary != nil || l.loadOf(s).large == 0 {
			continue
		}
		readers := map[string]bool{}
		for _, f := range l.feeds[s.Index] {
			if f.whole && shown(f) && l.author(f.to) && f.to.Agent.Agent.Name != s.Agent.Agent.Name {
				readers[f.to.ID] = true
			}
		}
		if len(readers) > readersMax {
			l.step(s, "output: {summary: {max_tokens: 200}}", "%s are each shown all that %s writes, up to %d tokens: make a summary, and show it to those that need no more", names(sortedKeys(readers)), s.ID, l.loadOf(s).tokens)
		}
	}
}

// duplicateRead fires at a tool step that fetches (side_effect none) what another one fetches at the same time: the same
// tool with the same arguments. And at one inside a map whose arguments do not hang on the item: it fetches the same
// once for each. Who reads once shares the output. Steps in an order are not meant: between them it may have changed.
func (l *linter) duplicateRead() {
	fetched := map[string][]*workflow.Step{}
	for _, s := range l.w.Steps {
		if s.Tool == nil || acting(s) {
			continue
		}
		if m := s.Body.Owner; m != nil && m.Map != nil && !l.hangsOn(s, m) {
			l.step(s, fmt.Sprintf("steps: [… {id: %s, tool: %s, args: …}]   # before %s", s.ID, s.Tool.Ref, m.ID), "%s reads the same for every item of %s: read it once before, and share it", s.ID, m.ID)
			continue
		}
		key := s.Tool.Ref
		if s.Tool.Args != nil {
			key += string(s.Tool.Args.Source)
		}
		if i := slices.IndexFunc(fetched[key], func(before *workflow.Step) bool { return l.parallel(before, s) }); i >= 0 {
			before := fetched[key][i]
			l.step(s, fmt.Sprintf("${{ steps.%s.output }}", before.ID), "%s reads what %s reads at the same time: read it once, and share it", s.ID, before.ID)
			continue
		}
		fetched[key] = append(fetched[key], s)
	}
}

// hangsOn reports whether what a step in a map does hangs on the item: by its arguments, its condition, or what it waits
// for there.
func (l *linter) hangsOn(s, m *workflow.Step) bool {
	if s.When != nil || len(s.Edges) > 0 || s.Parent != nil {
		return true
	}
	for _, e := range expressions(s.Tool.Args) {
		for _, ref := range e.Refs() {
			if ref.Root == "item" || ref.Root == "index" || ref.Root == m.Map.As {
				return true
			}
		}
	}
	return false
}

// When one conversation goes on too long.
const (
	turnsMany    = 20
	transcripts  = 4 // earlier answers of the same agent that are carried along
	turnsSuggest = "max_turns: 12\ncontext: {max_tokens: 60000, overflow: trim}"
)

// sessionMarathon fires at an agent that may take more than 20 turns at one step without a bound of its context (context
// max_tokens): it goes on until its window is full. And at the step where a chain of steps by one agent becomes a single
// conversation in disguise: it is shown, whole, four or more earlier answers of the same agent, made one after another.
// A fresh conversation with a brief of what matters does better.
func (l *linter) sessionMarathon() {
	seen := map[string]bool{}
	for d := range l.duties() {
		a := d.agent
		if (len(a.Delegates) > 0 || d.what == dutyWorks) && a.MaxTurns > turnsMany && a.ContextTokens == 0 && !seen[a.Name] {
			seen[a.Name] = true
			l.agent(a, d.step, turnsSuggest, "%s may take %d turns in one conversation, and nothing bounds what it drags along: it forgets the beginning before the end", a.Name, a.MaxTurns)
		}
	}
	for _, s := range l.w.Steps {
		if s.Agent == nil || s.Agent.By != nil {
			continue
		}
		var before []*workflow.Step
		for _, r := range s.Reads {
			if from := r.Step; shown(feed{to: s, read: r}) && l.isWhole(r) && from.Agent != nil && from.Agent.Agent.Name == s.Agent.Agent.Name && !slices.Contains(before, from) {
				before = append(before, from)
			}
		}
		if len(before) >= transcripts && l.inTurn(before) {
			last := before[len(before)-1].ID
			l.step(s, fmt.Sprintf("prompt: \"… ${{ steps.%s.output }}\"", last), "%s is shown all that %s said in %d steps before it: that is one long conversation; begin it anew with what the last step hands over", s.ID, s.Agent.Agent.Name, len(before))
		}
	}
}

// inTurn reports whether steps come one after another.
func (l *linter) inTurn(list []*workflow.Step) bool {
	slices.SortFunc(list, func(a, b *workflow.Step) int { return a.Index - b.Index })
	for i := range list[1:] {
		if !l.before(list[i+1]).has(list[i].Index) {
			return false
		}
	}
	return true
}
