package main

import (
	"encoding/json"
	"fmt"
	"strings"

	format "github.com/fermata-run/fermata/internal/workflow/schema"
)

type schemaCommand struct{}

// Run prints the JSON Schema of workflow definitions, for editors.
func (schemaCommand) Run(s *screen) error {
	_, err := s.out.Write(format.JSON())
	return err
}

type explainCommand struct {
	Path string `arg:"" optional:"" help:"The key, with those around it: steps.map.concurrency. Left out: the whole format."`
}

// explainWidth is how wide an explanation is at most: longer lines are hard to read.
const explainWidth = 80

// Run says what a key of the format is.
func (c *explainCommand) Run(s *screen) error {
	topic, err := format.Explain(c.Path)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(topic)
	}
	s.explain(topic)
	return nil
}

func (s *screen) explain(t *format.Topic) {
	page := *s
	page.width = func() int {
		if w := s.width(); w > 0 {
			return min(w, explainWidth)
		}
		return explainWidth
	}
	name := t.Path
	if name == "" {
		name = "spec: workflow/v1"
	}
	page.print("%s\n", page.paint(colorBold, name))
	for _, line := range wrapped(oneLine(t.Description), page.width()) {
		page.print("%s", line)
	}
	page.print("")
	page.facts(t)
	if len(t.Keys) > 0 {
		page.print("")
		page.keys(t.Keys)
	}
}

// facts shows what is known of a key beside its description.
func (s *screen) facts(t *format.Topic) {
	show := func(name, text string) {
		if text != "" {
			s.fact(name, text)
		}
	}
	kind := t.Type
	if t.Form != "" {
		kind += ": " + t.Form
	}
	show("type", kind)
	if t.Required {
		show("required", "yes")
	}
	show("values", bare(t.Values, ", "))
	show("default", bare([]json.RawMessage{t.Default}, ""))
	show("limits", t.Limits)
	show("examples", bare(t.Examples, "  or  "))
	show("note", t.NotRun)
}

// bare joins values as a definition in YAML would have them.
func bare(values []json.RawMessage, between string) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
		var text string
		if json.Unmarshal(v, &text) == nil && text != "" {
			texts[i] = text
		}
	}
	return strings.Join(texts, between)
}

// keys lists the keys inside one; an asterisk marks those that must be there.
func (s *screen) keys(keys []format.Topic) {
	nameWidth, typeWidth := 0, 0
	for _, k := range keys {
		nameWidth, typeWidth = max(nameWidth, len(lastOf(k.Path))), max(typeWidth, len(k.Type))
	}
	for _, k := range keys {
		mark := " "
		if k.Required {
			mark = "*"
		}
		head := fmt.Sprintf("%s %s  %-*s  ", mark, s.paint(colorBold, fmt.Sprintf("%-*s", nameWidth, lastOf(k.Path))), typeWidth, k.Type)
		indent := 2 + nameWidth + 2 + typeWidth + 2
		for _, line := range wrapped(firstSentence(k), s.width()-indent) {
			s.print("%s%s", head, line)
			head = strings.Repeat(" ", indent)
		}
	}
}

func lastOf(path string) string { return path[strings.LastIndex(path, ".")+1:] }

// firstSentence is enough of a description to choose by.
func firstSentence(t format.Topic) string {
	text := t.Description
	if t.NotRun != "" {
		text = "Not run by this version."
	}
	if i := strings.Index(text, ". "); i >= 0 {
		text = text[:i+1]
	}
	return oneLine(text)
}
