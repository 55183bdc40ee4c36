package preview

import (
	"maps"
	"regexp"
	"strings"
	"unicode"

	"github.com/fermata-run/fermata/internal/workflow"
)

// expressions are all of a template's expressions.
func expressions(t *workflow.Template) []*workflow.Expr {
	var list []*workflow.Expr
	if t != nil {
		eachPiece(t.Parts(), func(_ string, e *workflow.Expr) {
			if e != nil {
				list = append(list, e)
			}
		})
	}
	return list
}

// written is the text of a template without its expressions: what its author tells the agent.
func written(t *workflow.Template) string {
	var b strings.Builder
	if t != nil {
		eachPiece(t.Parts(), func(text string, _ *workflow.Expr) {
			b.WriteString(text)
			b.WriteByte(' ')
		})
	}
	return strings.TrimSpace(b.String())
}

// eachPiece gives every text and every expression of a template in order.
func eachPiece(p workflow.TemplatePart, give func(text string, e *workflow.Expr)) {
	switch {
	case p.Expr != nil:
		give("", p.Expr)
	case p.Const != nil:
		give(strings.ReplaceAll(strings.Trim(string(p.Const), `"`), `\n`, "\n"), nil)
	}
	for _, piece := range p.Text {
		give(piece.Text, piece.Expr)
	}
	for _, item := range p.Items {
		eachPiece(item, give)
	}
	for _, m := range p.Members {
		eachPiece(m.Part, give)
	}
}

// letterTokens is how many bytes of plain text a token has, about.
const letterTokens = 4

func textSize(s string) int64 { return int64(len(s)+letterTokens-1) / letterTokens }

// areas are kinds of work that are a trade each, by the English words, or pairs of words, for what they make.
var areas = areaWords(map[string]string{
	"backend":       "backend|back-end|server|api|apis|endpoint|endpoints",
	"frontend":      "frontend|front-end|ui|user interface|website|web page|web pages",
	"database":      "database|databases|sql|migration|migrations|data model",
	"tests":         "test|tests|testing",
	"documentation": "docs|documentation|readme|user guide|manual",
	"deployment":    "deploy|deployment|ci|docker|dockerfile|kubernetes|terraform|infrastructure",
	"design":        "mockup|mockups|wireframe|wireframes|logo|illustration|illustrations",
	"security":      "security review|security audit|threat model",
	"research":      "research|market analysis|literature review",
	"writing":       "article|articles|blog post|blog posts|script|white paper|newsletter",
	"marketing":     "marketing|social media|landing page|press release|ad copy|campaign",
	"audio":         "audio|voiceover|narration",
	"video":         "video|videos|animation|storyboard",
	"translation":   "translation|translations|localization",
	"finance":       "financial model|financial plan|price list|forecast",
	"law":           "terms of|privacy policy|legal review",
})

func areaWords(table map[string]string) map[string]string {
	byWord := map[string]string{}
	for area, list := range table {
		for word := range strings.SplitSeq(list, "|") {
			byWord[word] = area
		}
	}
	return byWord
}

var (
	making  = set("create|build|write|implement|generate|develop|make|produce|deliver|do|does|draft|design|including|set")
	negated = set("not|never|no|nothing|except|without|don't|only|cannot")
)

func set(list string) map[string]bool {
	all := map[string]bool{}
	for word := range strings.SplitSeq(list, "|") {
		all[word] = true
	}
	return all
}

// areasOf are the kinds of work that a text asks for: sentences without a verb of making, and those that say what is not
// to be done, count for nothing.
func areasOf(text string) []string {
	found := map[string]bool{}
	for sentence := range strings.FieldsFuncSeq(strings.ToLower(text), func(r rune) bool { return strings.ContainsRune(".!?;\n", r) }) {
		makes, denies, before := false, false, ""
		var named []string
		for word := range strings.FieldsFuncSeq(sentence, func(r rune) bool { return !unicode.IsLetter(r) && r != '-' && r != '\'' }) {
			makes, denies = makes || making[word], denies || negated[word]
			for _, w := range [...]string{word, before + " " + word} {
				if area := areas[w]; area != "" {
					named = append(named, area)
				}
			}
			before = word
		}
		for _, area := range named {
			found[area] = found[area] || makes && !denies
		}
	}
	maps.DeleteFunc(found, func(_ string, asked bool) bool { return !asked })
	return sortedKeys(found)
}

// mechanical tasks are done by an expression, the same each time and for nothing.
var mechanical = regexp.MustCompile(`^(?:` +
	`concatenate\b|join (?:the|these|both|two) (?:texts?|strings?|lists?|parts?)\b|` +
	`(?:convert|turn) .{1,40} (?:to|into) (?:upper|lower) ?case\b|(?:upper|lower)case (?:the|this)\b|` +
	`count (?:the|how many) (?:words|lines|characters|items|entries)\b|` +
	`sort (?:the|these|this)\b|reverse (?:the|these|this)\b|remove (?:the )?duplicates\b|deduplicate (?:the|this|these)\b|` +
	`(?:pick|return|take) the (?:first|last|largest|smallest|highest|lowest)\b|` +
	`(?:return|repeat|output) .{1,40} (?:unchanged|as is|verbatim)\b|` +
	`(?:add|sum|multiply) (?:up )?(?:the|these|all) numbers\b|split (?:the|this) (?:text|string|list) (?:at|by|on)\b)`)

// mechanicalVerbs are what such tasks begin with.
var mechanicalVerbs = set("concatenate|join|convert|turn|uppercase|lowercase|count|sort|reverse|remove|deduplicate|pick|return|take|repeat|output|add|sum|multiply|split")
