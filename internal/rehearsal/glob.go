package rehearsal

import (
	"regexp"
	"strings"
	"sync"
)

var globs sync.Map // pattern → *regexp.Regexp

// matches reports whether a name fits a glob, in which * stands for anything. The empty one fits all.
func matches(glob, name string) bool {
	if glob == "" || glob == name {
		return true
	}
	if !isGlob(glob) {
		return false
	}
	known, ok := globs.Load(glob)
	if !ok {
		known, _ = globs.LoadOrStore(glob, regexp.MustCompile(`(?s)\A`+strings.ReplaceAll(regexp.QuoteMeta(glob), `\*`, `.*`)+`\z`))
	}
	return known.(*regexp.Regexp).MatchString(name)
}

func isGlob(glob string) bool { return strings.Contains(glob, "*") }
