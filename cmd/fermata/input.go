package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// readInput makes the input of a run from -i flags, or a form from --form flags:
//
//	name=text     the text; parsed as JSON where the workflow's schema wants something else than a string
//	name=@file    the text of a file, likewise; @- is standard input
//	name:=json    JSON, whatever the schema says
//	@file         the whole input, a JSON file
//
// types are the JSON types of the top-level properties, as far as they are known; option is what the flags are called.
func readInput(s *screen, option string, flags []string, types map[string]string) (json.RawMessage, error) {
	input := map[string]json.RawMessage{}
	for _, flag := range flags {
		if name, ok := strings.CutPrefix(flag, "@"); ok {
			if len(flags) > 1 {
				return nil, usageError("%s @%s is all of it: it goes with no other %s", option, name, option)
			}
			text, err := readText(s, name)
			if err != nil {
				return nil, err
			}
			if !json.Valid([]byte(text)) {
				return nil, usageError("%s @%s: not JSON", option, name)
			}
			return json.RawMessage(text), nil
		}
		name, value, err := readField(s, option, flag, types)
		if err != nil {
			return nil, err
		}
		if _, twice := input[name]; twice {
			return nil, usageError("%s %s: given twice", option, name)
		}
		input[name] = value
	}
	return json.Marshal(input)
}

func readField(s *screen, option, flag string, types map[string]string) (string, json.RawMessage, error) {
	name, text, ok := strings.Cut(flag, "=")
	if !ok || name == "" || name == ":" {
		return "", nil, usageError("%s %s: not name=value, name=@file or name:=json", option, flag)
	}
	name, raw := strings.CutSuffix(name, ":")
	if file, ok := strings.CutPrefix(text, "@"); ok {
		var err error
		if text, err = readText(s, file); err != nil {
			return "", nil, err
		}
	}
	kind, known := types[name]
	if !known && len(types) > 0 {
		s.say("warning: %s %s: the schema has no such name%s", option, name, meant(name, types))
	}
	if raw || kind != "" && kind != "string" {
		if !json.Valid([]byte(text)) {
			if raw {
				kind = "JSON"
			}
			hint := ""
			if like := jsonLike[kind]; like != "" {
				hint = fmt.Sprintf("; write it like %s %s='%s'", option, name, like)
			}
			return "", nil, usageError("%s %s: %q is no %s%s", option, name, cut(oneLine(text), 40), kind, hint)
		}
		return name, json.RawMessage(text), nil
	}
	value, err := json.Marshal(text)
	return name, value, err
}

// jsonLike shows how values of a type are written.
var jsonLike = map[string]string{"array": `["a", "b"]`, "object": `{"name": "value"}`, "boolean": "true", "number": "1.5", "integer": "1"}

// meant is the end of a sentence about a name that is not known.
func meant(name string, known map[string]string) string {
	names := slices.Sorted(maps.Keys(known))
	if near := fault.Nearest(name, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; it has " + cut(strings.Join(names, ", "), 80)
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

// inputTypes finds the JSON types of a schema's properties; empty: it says none, or several.
func inputTypes(schema json.RawMessage) map[string]string {
	var shape struct {
		Properties map[string]struct {
			Type any `json:"type"`
		} `json:"properties"`
	}
	types := map[string]string{}
	if json.Unmarshal(schema, &shape) != nil { // none, or one that is true or false
		return types
	}
	for name, p := range shape.Properties {
		types[name], _ = p.Type.(string)
	}
	return types
}
