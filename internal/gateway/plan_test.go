package gateway

import (
	"errors"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/workflow"
)

// What is passed over is told by its own name, also when its place in the list was taken by the one behind it.
func TestPassedOverByName(t *testing.T) {
	long := agent.Ask{Messages: []agent.Message{{Role: agent.RoleUser, Content: strings.Repeat("the quick brown fox jumps over the lazy dog\n", 16_000)}}}
	p := &scripted{name: "p", scripts: map[string][]string{"gemini-2.5-pro": {"auth"}}}
	g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
	_, err := g.Complete(t.Context(), Request{Ask: long, Chain: chain(
		workflow.ChainEntry{Model: "gpt-4o"}, workflow.ChainEntry{Model: "gpt-4o-mini"}, workflow.ChainEntry{Model: "gemini-2.5-pro"},
	)})
	var failed *FailedError
	if !errors.As(err, &failed) {
		t.Fatal(err)
	}
	var told []string
	for _, a := range failed.Attempts {
		told = append(told, a.Model+" "+a.Class)
	}
	if got, want := strings.Join(told, ", "), "gpt-4o context_length, gpt-4o-mini context_length, gemini-2.5-pro auth"; got != want {
		t.Errorf("told %s\nwant %s", got, want)
	}
}
