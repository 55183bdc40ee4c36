package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/fermata-run/fermata/internal/workflow"
)

// readInput makes the input of a run from -i flags:
//
//	name=text     the text; parsed as JSON where the workflow's schema wants something else than a string
//	name=@file    the text of a file, likewise; @- is standard input
//	name:=json    JSON, whatever the schema says
//	@file         the whole input, a JSON file
//
// types are the JSON types of the top-level properties, as far as they are known.
func readInput(s *screen, flags []string, types map[string]string) (json.RawMessage, error) {
	input := map[string]json.RawMessage{}
	for _, flag := range flags {
		if name, ok := strings.CutPrefix(flag, "@"); ok {
			if len(flags) > 1 {
				return nil, usageError("-i @%s is the whole input: it goes with no other -i", name)
			}
			text, err := readText(s, name)
			if err != nil {
				return nil, err
			}
			if !json.Valid([]byte(text)) {
				return nil, usageError("-i @%s: not JSON", name)
			}
			return json.RawMessage(text), nil
		}
		name, value, err := readField(s, flag, types)
		if err != nil {
			return nil, err
		}
		if _, twice := input[name]; twice {
			return nil, usageError("-i %s: given twice", name)
		}
		input[name] = value
	}
	return json.Marshal(input)
}

func readField(s *screen, flag string, types map[string]string) (string, json.RawMessage, error) {
	name, text, ok := strings.Cut(flag, "=")
	if !ok || name == "" || name == ":" {
		return "", nil, usageError("-i %s: not name=value, name=@file or name:=json", flag)
	}
	name, raw := strings.CutSuffix(name, ":")
	if file, ok := strings.CutPrefix(text, "@"); ok {
		var err error
		if text, err = readText(s, file); err != nil {
			return "", nil, err
		}
	}
	kind := types[name]
	if raw || kind != "" && kind != "string" {
		if !json.Valid([]byte(text)) {
			if raw {
				kind = "JSON"
			}
			return "", nil, usageError("-i %s: %q is no %s", name, cut(oneLine(text), 40), kind)
		}
		return name, json.RawMessage(text), nil
	}
	value, err := json.Marshal(text)
	return name, value, err
}

// readText reads a file that must be text.
func readText(s *screen, name string) (string, error) {
	from := s.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", usageError("read the input: %w", err)
		}
		defer f.Close()
		from = f
	}
	b, err := readAll(from, workflow.InputBytesMax)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	if !utf8.Valid(b) {
		return "", usageError("%s is not UTF-8 text", name)
	}
	return string(b), nil
}

// inputTypes finds the JSON types of a definition's input properties: those that say exactly one.
func inputTypes(w *workflow.Workflow) map[string]string {
	var definition struct {
		Input struct {
			Properties map[string]struct {
				Type any `json:"type"`
			} `json:"properties"`
		} `json:"input"`
	}
	types := map[string]string{}
	if w == nil || json.Unmarshal(w.Source, &definition) != nil {
		return types
	}
	for name, p := range definition.Input.Properties {
		if t, ok := p.Type.(string); ok {
			types[name] = t
		}
	}
	return types
}
