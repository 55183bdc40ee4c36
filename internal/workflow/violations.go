package workflow

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/fermata-run/fermata/internal/fault"
)

// located is one violation and where in the value it is.
type located struct {
	path  []string
	issue fault.Issue
}

// violations flattens what the library says into one issue per violation.
func violations(e *jsonschema.ValidationError) []located {
	var list []located
	switch k := e.ErrorKind.(type) {
	case *kind.AnyOf:
		list = alternatives(e, "it meets none of the alternatives")
	case *kind.OneOf:
		if len(k.Subschemas) > 0 {
			list = []located{locateIssue(e.InstanceLocation, "one_of", "it meets more than one of the alternatives")}
		} else {
			list = alternatives(e, "it meets none of the alternatives")
		}
	default:
		if len(e.Causes) > 0 {
			for _, cause := range e.Causes {
				list = append(list, violations(cause)...)
			}
			break
		}
		list = leaf(e)
	}
	slices.SortStableFunc(list, func(a, b located) int { return slices.Compare(a.path, b.path) })
	return slices.CompactFunc(list, func(a, b located) bool { return a.issue == b.issue })
}

// alternatives is one issue that says of each alternative why it is not met.
func alternatives(e *jsonschema.ValidationError, what string) []located {
	const shownMax = 4
	var why []string
	for _, cause := range e.Causes {
		for i, v := range violations(cause) {
			if i > 0 || len(why) == shownMax {
				break
			}
			text := v.issue.Detail
			if at := strings.TrimPrefix(v.issue.Pointer, pointerTo(e.InstanceLocation)); at != "" {
				text = at + " " + text
			}
			if !slices.Contains(why, text) {
				why = append(why, text)
			}
		}
	}
	if len(why) == 1 {
		return []located{locateIssue(e.InstanceLocation, "any_of", why[0])}
	}
	return []located{locateIssue(e.InstanceLocation, "any_of", what+": "+strings.Join(why, "; or "))}
}

func locateIssue(path []string, code, detail string) located {
	return located{path, fault.Issue{Pointer: pointerTo(path), Code: code, Detail: detail}}
}

func pointerTo(path []string) string {
	var b strings.Builder
	for _, p := range path {
		b.WriteByte('/')
		b.WriteString(pointerEscapes.Replace(p))
	}
	return b.String()
}

func leaf(e *jsonschema.ValidationError) []located {
	at := e.InstanceLocation
	one := func(code, format string, args ...any) []located {
		return []located{locateIssue(at, code, fmt.Sprintf(format, args...))}
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		var list []located
		for _, name := range k.Missing {
			list = append(list, locateIssue(at, "required", fmt.Sprintf("%q is missing", name)))
		}
		return list
	case *kind.AdditionalProperties:
		var list []located
		for _, name := range k.Properties {
			list = append(list, locateIssue(append(slices.Clone(at), name), "unknown_property", fmt.Sprintf("there is no property %q", clip(name))))
		}
		return list
	case *kind.Type:
		return one("type", "must be %s, not %s", orList(k.Want), article(k.Got))
	case *kind.Enum:
		return one("enum", "%s is none of %s", shown(k.Got), shownList(k.Want))
	case *kind.Const:
		return one("const", "must be %s, not %s", shown(k.Want), shown(k.Got))
	case *kind.Format:
		if k.Want == "regex" {
			return one("format", "%s is no regular expression: %v", shown(k.Got), k.Err)
		}
		return one("format", "%s is not a %s", shown(k.Got), k.Want)
	case *kind.Pattern:
		return one("pattern", "%s does not match the pattern %s", shown(k.Got), k.Want)
	case *kind.MinLength:
		return one("min_length", "has %s; at least %d are needed", count(k.Got, "character"), k.Want)
	case *kind.MaxLength:
		return one("max_length", "has %s; at most %d are allowed", count(k.Got, "character"), k.Want)
	case *kind.Minimum:
		return one("minimum", "%s is less than %s", rational(k.Got), rational(k.Want))
	case *kind.Maximum:
		return one("maximum", "%s is more than %s", rational(k.Got), rational(k.Want))
	case *kind.ExclusiveMinimum:
		return one("exclusive_minimum", "%s must be more than %s", rational(k.Got), rational(k.Want))
	case *kind.ExclusiveMaximum:
		return one("exclusive_maximum", "%s must be less than %s", rational(k.Got), rational(k.Want))
	case *kind.MinItems:
		return one("min_items", "has %d entries; at least %d are needed", k.Got, k.Want)
	case *kind.MaxItems:
		return one("max_items", "has %d entries; at most %d are allowed", k.Got, k.Want)
	case *kind.UniqueItems:
		return one("unique_items", "the entries %d and %d are equal", k.Duplicates[0], k.Duplicates[1])
	case *kind.FalseSchema:
		return one("not_allowed", "nothing is allowed here")
	}
	printer := message.NewPrinter(language.English)
	code := "schema"
	if path := e.ErrorKind.KeywordPath(); len(path) > 0 {
		code = snake(path[len(path)-1])
	}
	return one(code, "%s", e.ErrorKind.LocalizedString(printer))
}

// snake turns a keyword (minProperties) into a code (min_properties).
func snake(keyword string) string {
	var b strings.Builder
	for _, r := range keyword {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return strings.TrimPrefix(b.String(), "$")
}

func article(typeName string) string {
	switch typeName {
	case "null", "nothing":
		return typeName
	case "boolean":
		return "true or false"
	case "array":
		return "a list"
	case "object", "integer":
		return "an " + typeName
	}
	return "a " + typeName
}

func orList(typeNames []string) string {
	var names []string
	for _, t := range typeNames {
		names = append(names, article(t))
	}
	return strings.Join(names, " or ")
}

func shown(v any) string {
	raw, err := appendNative(nil, v, 0)
	if err != nil {
		return "the value"
	}
	return clip(string(raw))
}

func shownList(list []any) string {
	const shownMax = 12
	var texts []string
	for i, v := range list {
		if i == shownMax {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, shown(v))
	}
	return strings.Join(texts, ", ")
}

func rational(r *big.Rat) string {
	if r.IsInt() {
		return clip(r.Num().String())
	}
	f, _ := r.Float64()
	return fmt.Sprint(f)
}
